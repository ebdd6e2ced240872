"""The figures in the README are those of the pages that it links."""

import re

import pytest

from tests.docs.pages import PAGES, rows

PERFORMANCE, RESULTS, QUALITY, DOMAIN, SERVING = (
    PAGES[f"docs/{name}.md"].read_text(encoding="utf-8")
    for name in ("performance", "results", "quality", "domain", "serving")
)
README = [" | ".join(row).replace("**", "") for row in rows(PAGES["README.md"].read_text(encoding="utf-8"))]
AVX512, AVX2 = re.split(r"\n## AMD EPYC, AVX2", PERFORMANCE)
TRAINERS = ("sentence-transformers, bf16 weights", "sentence-transformers, fp32")


def _rows_of(text: str, *, num_cells: int) -> dict[str, list[str]]:
    """First cell -> row, the first one of that name and length on a page."""
    return {row[0]: row for row in reversed(rows(text)) if len(row) == num_cells}


def _steps(text: str, *others: str) -> list[str]:
    """Seconds and memory of a step; how many times as long each other takes, and its memory."""
    found = _rows_of(text, num_cells=6)
    return [found["embedsmith"][1], found["embedsmith"][5], *(cell for one in others for cell in found[one][2:6:3])]


def _encodings(text: str, *others: str) -> list[str]:
    found = _rows_of(text, num_cells=7)
    return [found["embedsmith"][2], *(found[one][3] for one in others)]


def _of_64_clients() -> list[str]:
    return [row[2] for row in rows(SERVING) if row[0] == "64"]


def _of_a_gpu() -> list[str]:
    """Seconds and memory of a step, how many times as long sentence-transformers takes, and its memory."""
    _, _, own, _, times, memory = _rows_of(PERFORMANCE.partition("\n## On a GPU")[2], num_cells=6)["SmolLM2-135M"]
    own_memory, _, other_memory = memory.partition(" and ")
    return [str(float(own.removesuffix(" ms")) / 1000), own_memory, times, other_memory]


RANGE = r"([\d.]+) \((?:[\d.]+) to (?:[\d.]+)\) times"
SHOWN = {
    rf"^training step, 32 triplets .* ([\d.]+) s, ([\d.]+) GB .* {RANGE} as long, ([\d.]+) GB; in its default one "
    r"([\d.]+) times, ([\d.]+) GB; the published way ([\d.]+) times, ([\d.]+) GB": _steps(
        AVX512, *TRAINERS, "the published way"
    ),
    rf"([\d.]+) s, ([\d.]+) GB, in float32 .* {RANGE} as long, ([\d.]+) GB": _steps(AVX2, TRAINERS[1]),
    r"^256 triplets \| ([\d.]+) s, ([\d.]+) GB .* ([\d.]+) times as long, ([\d.]+) GB": _of_a_gpu(),
    rf"^encoding sentences \| ([\d.]+) texts .* {RANGE} as long in bf16, ([\d.]+) times": _encodings(AVX512, *TRAINERS),
    rf"([\d.]+) texts a second, in float32 .* {RANGE} as long": _encodings(AVX2, TRAINERS[1]),
    r"^serving 64 clients \| ([\d.]+) .* infinity-emb ([\d.]+), llama.cpp ([\d.]+), sentence-transformers ([\d.]+)": [
        _of_64_clients()[place] for place in (0, 1, 3, 2)
    ],
}


@pytest.mark.parametrize("pattern", SHOWN)
def test_speed_is_that_measured(pattern: str) -> None:
    (shown,) = [match.groups() for row in README if (match := re.search(pattern, row))]
    measured = [float(re.match(r"[\d.]+", cell)[0]) for cell in SHOWN[pattern]]
    decimals = [len(text.partition(".")[2]) for text in shown]
    assert list(shown) == [f"{number:.{places}f}" for number, places in zip(measured, decimals, strict=True)]


def test_quality_is_that_measured() -> None:
    of_nli, of_own = README[:2]
    average = _rows_of(RESULTS, num_cells=8)["average"]
    best = _rows_of(QUALITY, num_cells=7)["the average of four runs, below"]
    assert re.search(r"\| ([\d.]+) as the average of four .*; ([\d.]+) by", of_nli).groups() == (best[6], average[6])
    assert f"{average[5]} with the best of 52 prompts" in of_nli
    for found, page in ((of_nli, QUALITY), (of_own, DOMAIN)):
        gain, interval = re.search(r"([\d.]+) more (\[\+[\d.]+, \+[\d.]+\])", found).groups()
        assert re.search(rf"\b{gain}\b.{{0,20}}{re.escape(interval)}", page)
    domain = {row[0]: row[3].replace("**", "").split()[0] for row in rows(DOMAIN) if row[1:3] == ["test", "2,108"]}
    tuned = domain["SmolLM2-135M, tuned by step 4"]
    assert f"| {tuned}, after 14 minutes | all-MiniLM-L6-v2: {domain['all-MiniLM-L6-v2']} (" in of_own
