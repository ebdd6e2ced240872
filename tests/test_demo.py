"""The demo's shape, with a tiny model in place of the built-in one (the real one is `make demo`)."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from embedsmith import demo
from embedsmith.config import EvaluationSection, ModelSection, RunConfig, TrainingSection
from embedsmith.errors import RunError


def test_the_demo_writes_its_report_and_results(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, model_folders: dict[str, str]
) -> None:
    def tiny_config(output_dir: Path) -> RunConfig:
        return RunConfig(
            output_dir=str(output_dir),
            model=ModelSection(model=model_folders["llama"], max_length=64),
            training=TrainingSection(batch_size=8, max_steps=4, warmup_steps=1),
            evaluation=EvaluationSection(eval_steps=2),
        )

    monkeypatch.setattr(demo, "demo_config", tiny_config)
    load = demo.Embedder.load
    monkeypatch.setattr(demo.Embedder, "load", lambda model, **kwargs: load(model, **{"max_length": 64, **kwargs}))
    result = demo.run_demo(tmp_path / "demo", console=Console(quiet=True))
    values = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert {"base", "tuned"} <= set(values)
    for name in ("base", "tuned"):
        task = values[name]["tasks"]["sample-dev"]
        assert set(task) == {"cosine_spearman", "ci95", "num_pairs"}
        assert task["num_pairs"] >= 150
    best = max(value["average"] for name, value in values.items() if name != "tuned")
    assert values["base_best_pooling"]["average"] == best
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert result.headline.split(";")[0].split(":")[0] in page
    assert page.count("<svg") == 3
    with pytest.raises(RunError, match="exists already"):
        demo.run_demo(tmp_path / "demo", console=Console(quiet=True))
