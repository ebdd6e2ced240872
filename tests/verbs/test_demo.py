"""The demo's shape, with a tiny model in place of the built-in one (the real one is `make demo`)."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from embedsmith.settings.config import EvaluationSection, RunConfig, TrainingSection
from embedsmith.settings.model import ModelSection
from embedsmith.support.errors import RunError
from embedsmith.verbs import demo


def test_the_demo_writes_its_report_and_results(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, model_folders: dict[str, str]
) -> None:
    def tiny_config(output_dir: Path) -> RunConfig:
        return RunConfig(
            output_dir=str(output_dir),
            model=ModelSection(model=model_folders["llama"], max_length=64, end_token=False),
            training=TrainingSection(batch_size=8, max_steps=4, warmup_steps=1),
            evaluation=EvaluationSection(eval_steps=2),
        )

    monkeypatch.setattr(demo, "demo_config", tiny_config)
    content = demo.run_demo(tmp_path / "demo", console=Console(quiet=True))
    values = json.loads((tmp_path / "demo" / "results.json").read_text())
    best, *_, tuned = values
    assert best.startswith("untrained (")
    assert tuned == "demo"
    assert "untrained (last token)" in values
    for value in values.values():
        task = value["tasks"]["sample-dev"]
        assert set(task) == {"cosine_spearman", "ci95", "num_pairs"}
        assert task["num_pairs"] >= 150
    untrained = [value["average"] for title, value in values.items() if title != tuned]
    assert values[best]["average"] == max(untrained)
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert content.headline in page
    for heading in (
        "Scores",
        "Learning curve",
        "Similarity",
        "Geometry",
        "Map of texts",
        "Training data",
        "Run and cost",
    ):
        assert f"<h2>{heading}</h2>" in page
    with pytest.raises(RunError, match="exists already"):
        demo.run_demo(tmp_path / "demo", console=Console(quiet=True))
