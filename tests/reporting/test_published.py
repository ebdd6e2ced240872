"""Published figures: sourced, consistent with themselves, and shown only beside what they compare with."""

from pathlib import Path
from statistics import fmean, pstdev

import pytest

from embedsmith.records.results import EvaluationResult, TaskResult
from embedsmith.reporting.published import Beside, load_published, published_beside, published_markdown
from embedsmith.settings.families import FAMILIES, line_of

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_every_figure_has_a_source_and_a_place() -> None:
    for one in load_published():
        assert one.url.startswith("https://")
        assert one.title
        assert one.place
        assert all(5 < score < 100 for score in [*one.scores.values(), one.average])


def test_averages_agree_with_the_scores_printed() -> None:
    checked = [one for one in load_published() if set(one.scores) == set(one.average_over)]
    assert len(checked) > 5
    for one in checked:
        assert fmean(one.scores.values()) == pytest.approx(one.average, abs=0.0101)  # rounded twice
        if one.spread is not None:
            assert pstdev(one.scores.values()) == pytest.approx(one.spread, abs=0.0051)


def test_families_are_known_ones_and_stages_are_short() -> None:
    lines = {line_of(model_type) for model_type in FAMILIES}
    assert all(one.family in lines and len(one.stage) < 32 for one in load_published())


def measure(*tasks: str) -> list[tuple[str, EvaluationResult]]:
    return [("measured", EvaluationResult("m", {task: TaskResult(0.5, (0.4, 0.6), 9) for task in tasks}))]


@pytest.mark.parametrize(
    ("name", "model_type", "models", "family"),
    [
        ("openbmb/MiniCPM-2B-dpo-bf16", "minicpm", {"MiniCPM-2B"}, None),
        ("/somewhere/minicpm-2b-dpo-bf16", None, {"MiniCPM-2B"}, None),
        ("facebook/opt-1.3b", "opt", {"OPT-1.3B"}, None),
        ("openbmb/MiniCPM-1B-sft-bf16", "minicpm", {"MiniCPM-2B"}, "MiniCPM"),
        ("gemma3-270m", "gemma3_text", {"Gemma-2B"}, "Gemma"),
        ("google/gemma-2-2b", "gemma2", {"Gemma-2B"}, "Gemma"),
        ("microsoft/Phi-4-mini-instruct", "phi3", {"Phi-2"}, "Phi"),
        ("smollm2-135m", "llama", set(), None),
        ("smollm2-135m", None, set(), None),
    ],
)
def test_a_model_has_its_own_results_or_those_of_its_family(
    name: str, model_type: str | None, models: set[str], family: str | None
) -> None:
    line = line_of(model_type) if model_type else None
    found = published_beside(measure("STS12"), base_model=name, family=line)
    assert {one.model for one in (found.rows if found else ())} == models
    assert (found.family if found else None) == family


def minicpm(*tasks: str) -> Beside | None:
    return published_beside(measure(*tasks), base_model="MiniCPM-2B-dpo-bf16", family=None)


def test_averages_are_over_the_same_sets() -> None:
    found = minicpm("STS12", "STSBenchmark-test", "SICK-R", "mine")
    header, *lines = found.cells()
    assert header == [
        "set",
        "untrained",
        "tuned",
        "tuned without hard negatives",
        "tuned, rerun by others",
        "measured",
    ]
    assert lines == [
        ["STS12", "7.27", "76.38", "75.49", "64.96", "50.0"],
        ["STSBenchmark-test", "33.91", "86.51", "85.48", "81.87", "50.0"],
        ["SICK-R", "49.30", "79.87", "73.35", "75.78", "50.0"],
        ["average of these 3", "30.16", "80.92", "78.11", "74.20", "50.0"],
        ["average as printed", "27.51 of 9", "83.84 of 9", "81.97 of 9", "77.73 of 9", ""],
    ]
    assert [places for _, _, places in found.sources] == ["Table 3, Table 2, Table 6", "Results"]


def test_a_set_that_was_not_published_is_left_out() -> None:
    found = published_beside(measure("STS12", "STS17"), base_model="facebook/opt-125m", family="OPT")
    assert [line[1:] for line in found.cells()[1:]] == [["62.22", "50.0"], ["67.46 of 7", ""]]


def test_where_no_set_was_published_a_models_own_averages_remain() -> None:
    found = minicpm("mine")
    assert found.title.endswith("none of the sets measured here is among them")
    assert [line[0] for line in found.cells()] == ["set", "average as printed"]
    assert published_beside(measure("mine"), base_model="gemma3-270m", family="Gemma") is None


def test_the_page_is_made_from_the_data() -> None:
    assert (DOCS / "published.md").read_text() == published_markdown()
