"""The demo: built-in model and sample -> trained adapter, scores before and after, a report. Minutes on a CPU."""

from pathlib import Path

from rich.console import Console

from embedsmith.reporting.report import ReportContent
from embedsmith.settings.config import AdapterSection, EvaluationSection, RunConfig, TrainingSection
from embedsmith.settings.model import ModelSection
from embedsmith.support import files
from embedsmith.verbs.report import report_models
from embedsmith.verbs.train import train


def demo_config(output_dir: Path) -> RunConfig:
    """The demo's settings: one pass over the built-in sample, with the prompt and the adapter of
    `recipes/smollm2-135m-best.yaml`; attention goes one way, so that the prompt is computed once for all texts."""
    return RunConfig(
        output_dir=str(output_dir),
        model=ModelSection(prompt="pretended-cot", end_token=False),
        adapter=AdapterSection(lora_r=32, lora_alpha=64, lora_dropout=0.0, target_modules=["all-linear"]),
        training=TrainingSection(batch_size=32, max_steps=38, warmup_steps=6, learning_rate=5e-4),
        evaluation=EvaluationSection(eval_steps=10),
    )


def run_demo(output_dir: Path, *, device: str | None = None, console: Console) -> ReportContent:
    """Train the built-in model on the built-in sample and write `report.html` and `results.json` into the run folder.

    Raises:
        RunError: the folder exists already.
        ModelError: the built-in model's wheel is not installed.
        MissingExtraError: the report's packages are not installed.
    """
    from embedsmith.reporting import plots  # noqa: F401 (a missing extra must show before the training, not after)

    train(demo_config(output_dir), device=device, console=console)
    content = report_models([str(output_dir)], out=output_dir / "report.html", device=device, console=console)
    results = {title: result.to_json() for title, result in content.analysis.rows}
    files.write_json(output_dir / "results.json", results)
    return content
