"""The figures in the README are those of the pages that it links."""

import re
from collections.abc import Sequence

from tests.docs.pages import PAGES, rows

README, PERFORMANCE, RESULTS = (
    PAGES[name].read_text(encoding="utf-8") for name in ("README.md", "docs/performance.md", "docs/results.md")
)
TRAINERS = ("sentence-transformers, bf16 weights", "sentence-transformers, fp32")


def test_speed_and_scores_are_those_measured() -> None:
    readme = " ".join(README.replace("**", "").split())
    speed = re.search(
        r"a training step is ([\d.]+) times as fast .*? \(([\d.]+) times its default, ([\d.]+) times the published "
        r"way\) and takes ([\d.]+) GB where they take ([\d.]+), ([\d.]+) and ([\d.]+); encoding is ([\d.]+) times "
        r"as fast \(([\d.]+) times the default\), at a mean cosine of ([\d.]+) to float32",
        readme,
    )
    scores = re.search(r"goes from ([\d.]+) \(.*?: ([\d.]+), its end token: ([\d.]+)\) to ([\d.]+) on average", readme)
    assert speed and scores
    steps, encodings = (_rows_of(PERFORMANCE, num_cells=count) for count in (6, 7))
    others = [steps[name] for name in (*TRAINERS, "the published way")]
    encoded = [encodings[name] for name in TRAINERS]
    measured = [
        *(row[2] for row in others),
        *(row[5] for row in (steps["embedsmith"], *others)),
        *(row[3] for row in encoded),
        encodings["embedsmith"][6].partition("(")[2],
    ]
    _assert_rounded(speed.groups(), measured)
    average = _rows_of(RESULTS, num_cells=8)["average"]
    _assert_rounded(scores.groups(), [average[5], average[4], average[2], average[6]])


def _rows_of(text: str, *, num_cells: int) -> dict[str, list[str]]:
    """First cell -> row, the first one of that name and length on a page."""
    return {row[0]: row for row in reversed(rows(text)) if len(row) == num_cells}


def _assert_rounded(shown: Sequence[str], measured: Sequence[str]) -> None:
    """Whether figures are others, as these begin, with as many decimals as they show."""
    numbers = [float(re.match(r"[\d.]+", text)[0]) for text in measured]
    decimals = [len(text.partition(".")[2]) for text in shown]
    assert list(shown) == [f"{number:.{places}f}" for number, places in zip(numbers, decimals, strict=True)]
