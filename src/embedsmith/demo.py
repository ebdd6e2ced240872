"""The demo: built-in model and sample -> trained adapter, scores before and after, a report. Minutes on a CPU.

Baselines are scored first, on the same pairs: the untrained end token (what is trained), and the best untrained
pooling, which is the honest one to beat.
"""

from dataclasses import dataclass
from pathlib import Path
from platform import platform
from typing import Any

import accelerate
import peft
import torch
import transformers
from rich.console import Console

import embedsmith
from embedsmith import files, verbs
from embedsmith.config import EvaluationSection, Pooling, RunConfig, TrainingSection
from embedsmith.data.pairs import ScoredPairs, load_pairs
from embedsmith.evaluation.sts import pair_similarities, score_task
from embedsmith.model.embedder import Embedder
from embedsmith.reporting.report import ReportContent, headline, write_report
from embedsmith.results import EvaluationResult
from embedsmith.training.loop import METRICS_FILE, read_metrics

TASK = "sample-dev"
TITLES = {
    Pooling.LAST: "untrained, end token",
    Pooling.MEAN: "untrained, mean",
    Pooling.WEIGHTED_MEAN: "untrained, weighted mean",
    Pooling.CONCAT: "untrained, end token and mean",
}
TUNED = "tuned"


@dataclass(frozen=True)
class DemoResult:
    """(title, result) of base, best untrained pooling and tuned model; and the result in a sentence."""

    rows: list[tuple[str, EvaluationResult]]
    headline: str


def demo_config(output_dir: Path) -> RunConfig:
    """The demo's settings: the built-in sample, a few passes over it."""
    return RunConfig(
        output_dir=str(output_dir),
        training=TrainingSection(batch_size=32, max_steps=100, warmup_steps=8, learning_rate=1e-3),
        evaluation=EvaluationSection(eval_steps=25),
    )


def run_demo(output_dir: Path, *, console: Console) -> DemoResult:
    """Train the built-in model on the built-in sample and write `report.html` and `results.json` into the run folder.

    Raises:
        RunError: the folder exists already.
        ModelError: the built-in model's wheel is not installed.
        MissingExtraError: the report's packages are not installed.
    """
    from embedsmith.reporting import plots  # noqa: F401 (a missing extra must show before the training, not after)

    config = demo_config(output_dir)
    verbs.check_run_folder(output_dir)
    pairs = load_pairs("sample")
    console.print("Scoring the model as it is ...", highlight=False)
    untrained = _untrained(pairs, model=config.model.model)
    run = verbs.train(config, console=console)
    similarities = pair_similarities(lambda texts: {TUNED: run.embedder.encode(texts)}, pairs)
    tuned = _result(str(output_dir), similarities[TUNED], pairs)

    results = {pooling: _result(config.model.model, values, pairs) for pooling, values in untrained.items()}
    best = max(results, key=lambda pooling: results[pooling].average)
    rows = [(TITLES[Pooling.LAST], results[Pooling.LAST]), (TITLES[best], results[best]), (TUNED, tuned)]
    if best is Pooling.LAST:
        del rows[1]
    result = DemoResult(rows, headline(results[best], tuned, baseline=f"the best untrained pooling ({best})"))
    content = ReportContent(
        title=f"{config.model.model} · embedsmith demo",
        headline=result.headline,
        rows=rows,
        metrics=read_metrics(output_dir / METRICS_FILE),
        pairs=list(zip(pairs.sentence1, pairs.sentence2, pairs.scores.tolist(), strict=True)),
        similarities={TITLES[pooling]: untrained[pooling] for pooling in dict.fromkeys((Pooling.LAST, best))}
        | {TUNED: similarities[TUNED]},
        facts=_facts(run),
        config_yaml=config.to_yaml(),
    )
    write_report(output_dir / "report.html", content)
    files.write_json(
        output_dir / "results.json",
        {
            "base": results[Pooling.LAST].to_json(),
            "base_best_pooling": {"pooling": str(best), **results[best].to_json()},
            "tuned": tuned.to_json(),
        },
    )
    return result


def _untrained(pairs: ScoredPairs, *, model: str) -> dict[Pooling, Any]:
    """Cosine similarities under each pooling of one forward."""
    embedder = Embedder.load(model)
    similarities = pair_similarities(
        lambda texts: {str(p): v for p, v in embedder.encode_poolings(texts, poolings=list(Pooling)).items()}, pairs
    )
    return {pooling: similarities[str(pooling)] for pooling in Pooling}


def _result(model: str, similarities: Any, pairs: ScoredPairs) -> EvaluationResult:
    return EvaluationResult(model=model, tasks={TASK: score_task(similarities, pairs.scores, task=TASK)})


def _facts(run: verbs.Run) -> dict[str, str]:
    outcome, model = run.outcome, run.embedder.backbone.model
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return {
        "model": f"{run.config.model.model}, {str(model.dtype).removeprefix('torch.')} on {run.embedder.device.type}",
        "trained": f"{trained:,} parameters (LoRA), of {sum(p.numel() for p in model.parameters()):,}",
        "data": f"{run.num_triplets} triplets: {', '.join(run.config.data.source_names)}",
        "kept": f"the adapter of step {outcome.best_step} of {outcome.num_steps}, best on the development pairs",
        "time": f"{outcome.elapsed_s:.0f} s, evaluations included; {outcome.num_tokens:,} tokens",
        "software": f"embedsmith {embedsmith.__version__}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, peft {peft.__version__}, accelerate {accelerate.__version__}",
        "system": f"{platform()}, {torch.get_num_threads()} threads",
    }
