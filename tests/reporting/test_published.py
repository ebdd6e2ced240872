"""Published figures: sourced, consistent with themselves, and shown only beside what they compare with."""

from pathlib import Path
from statistics import fmean, pstdev

import pytest

from embedsmith.records.results import EvaluationResult, TaskResult
from embedsmith.reporting.published import beside, load_published, published_for, published_markdown

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


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("openbmb/MiniCPM-2B-dpo-bf16", "MiniCPM-2B"),
        ("/somewhere/minicpm-2b-dpo-bf16", "MiniCPM-2B"),
        ("facebook/opt-1.3b", "OPT-1.3B"),
        ("smollm2-135m", None),
        ("openbmb/MiniCPM-2B", None),
    ],
)
def test_a_model_is_known_by_the_last_part_of_its_name(name: str, model: str | None) -> None:
    assert {one.model for one in published_for(name)} == ({model} if model else set())


def test_averages_stand_beside_the_same_tasks_only() -> None:
    task = TaskResult(0.5, (0.4, 0.6), 9)
    published = next(one for one in published_for("MiniCPM-2B-dpo-bf16") if one.method.startswith("contrastive"))
    same = EvaluationResult("m", dict.fromkeys(published.average_over, task))
    lines = beside(same, base_model="MiniCPM-2B-dpo-bf16")
    assert [line.split(": ")[2].split(" ")[0] for line in lines] == ["27.51", "83.84", "81.97", "77.73"]
    assert all(line.endswith("measured here, over the same: 50.00") for line in lines)
    line = beside(EvaluationResult("m", {"STS12": task}), base_model="MiniCPM-2B-dpo-bf16")[1]
    assert "83.84 ± 4.27" in line
    assert published.url in line
    assert line.endswith("SICK-R, so the averages do not compare")
    assert beside(same, base_model="smollm2-135m") == []


def test_the_page_is_made_from_the_data() -> None:
    assert (DOCS / "published.md").read_text() == published_markdown()
