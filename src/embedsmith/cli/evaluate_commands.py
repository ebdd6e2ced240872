"""evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from embedsmith.cli.app import (
    PROMPT_HELP,
    BaseModel,
    Device,
    Model,
    PairColumns,
    app,
    at_home,
    heavy_imports,
    make_console,
    output,
    raise_failures,
    read_columns,
)
from embedsmith.settings.choices import Pooling, VectorPrecision
from embedsmith.support.errors import ConfigError

if TYPE_CHECKING:
    from embedsmith.records.results import BenchmarkResult, EvaluationResult


@app.command("evaluate")
def evaluate_command(
    model: Model,
    tasks: Annotated[
        list[str] | None, typer.Option(help="Task names, of --data or mteb's; several behind one --tasks.")
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help='One of mteb\'s, such as "MTEB(eng, v2)".')] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            callback=at_home,
            help="Folder of <TASK>.tsv.gz files with scored pairs; or of duplicate sets, clustering sets and "
            "retrieval sets in BEIR's layout.",
        ),
    ] = None,
    columns: PairColumns = None,
    out: Annotated[
        Path | None,
        typer.Option(callback=output(suffix=".json"), help="Write the results here (JSON), for compare too."),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="last, mean, weighted_mean, concat, or `all` to score each; default: as trained."),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help=PROMPT_HELP)] = None,
    instruction: Annotated[str | None, typer.Option(help="Fills {instruction} in the prompt.")] = None,
    end_token: Annotated[
        bool | None,
        typer.Option("--end-token/--no-end-token", help="Whether texts end with the end token; default: as trained."),
    ] = None,
    dims: Annotated[
        list[int] | None,
        typer.Option("--dims", "--dim", help="Score the first DIM dimensions; repeat, or list several behind --dims."),
    ] = None,
    vector_precision: Annotated[
        VectorPrecision, typer.Option(help="Of the vectors: float32, int8, uint8, binary or ubinary.")
    ] = VectorPrecision.FLOAT32,
    ranges: Annotated[
        Path | None,
        typer.Option(callback=at_home, help="Ranges of int8 and uint8, as encode writes them; default: of each task."),
    ] = None,
    mteb_folder: Annotated[
        Path | None,
        typer.Option(callback=at_home, help="Where mteb's own result files go; default: in the cache."),
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the weights: auto, bf16 or fp32.")] = "auto",
    base_model: BaseModel = None,
    device: Device = None,
) -> None:
    """Score a model: on similarity tasks with intervals, on any of mteb's tasks and benchmarks, on your own files."""
    with heavy_imports():
        from embedsmith.data.local_sets import find_local_sets
        from embedsmith.evaluation.saved import similarities_path
        from embedsmith.model.loading.devices import choose_precision
        from embedsmith.support import files
        from embedsmith.verbs.benchmark import are_for_mteb, run_benchmark
        from embedsmith.verbs.evaluate import evaluate

    console = make_console()
    if out is not None:
        files.check_output(similarities_path(out), option="--out")
    if pooling is not None and pooling not in ("all", *Pooling):
        raise ConfigError(f"--pooling is {pooling!r}; it must be one of {', '.join(Pooling)} or all.")
    if benchmark is not None and data is not None:
        raise ConfigError("--benchmark takes mteb's own data, --data yours: give one of the two.")
    named = read_columns(columns)
    if named and data is None:
        raise ConfigError("--columns names columns of the files in --data, and there is no --data.")
    has_variants = pooling == "all" or len(dims or []) > 1
    if data is not None:
        is_mtebs = are_for_mteb(find_local_sets(data, tasks, columns=named), folder=data)
    else:
        is_mtebs = benchmark is not None or (bool(tasks) and not has_variants)
    if is_mtebs and has_variants:
        raise ConfigError("These tasks are scored for one pooling and one width at a time.")
    if is_mtebs and (vector_precision is not VectorPrecision.FLOAT32 or ranges is not None):
        raise ConfigError(
            "Other vectors than float32 are scored on scored pairs in files alone: --data FOLDER.\n"
            "Leave --vector-precision and --ranges away."
        )
    embedding: dict[str, Any] = {
        "prompt": prompt,
        "instruction": instruction,
        "end_token": end_token,
        "base_model": base_model,
        "precision": choose_precision(precision),
        "device": device,
        "console": console,
    }
    if is_mtebs:
        folder = mteb_folder or files.cache_root() / "mteb"
        files.check_output_folder(folder, option="--mteb-folder")
        scored = run_benchmark(
            model,
            folder=folder,
            tasks=tasks,
            benchmark=benchmark,
            data=data,
            columns=named,
            pooling=Pooling(pooling) if pooling else None,
            dim=dims[0] if dims else None,
            **embedding,
        )
        _give_benchmark(scored, folder=folder, out=out, console=console)
        _give_published(scored.comparable, model=model, base_model=base_model, console=console)
        raise_failures(scored.failures)
    else:
        poolings = list(Pooling) if pooling == "all" else [Pooling(pooling)] if pooling else []
        results = evaluate(
            model,
            tasks=tasks,
            data=data,
            columns=named,
            poolings=poolings,
            dims=dims or [],
            vector_precision=vector_precision,
            ranges=ranges,
            **embedding,
        )
        _give_results(results, out=out, console=console)
        _give_published(next(iter(results.values())), model=model, base_model=base_model, console=console)
        raise_failures(
            {f"{label}, {task}": why for label, one in results.items() for task, why in one.failures.items()}
        )


def _give_benchmark(scored: "BenchmarkResult", *, folder: Path, out: Path | None, console: Console) -> None:
    from embedsmith.evaluation.saved import save_evaluation
    from embedsmith.reporting.tables import benchmark_table

    console.print(benchmark_table(scored))
    console.print(f"mteb's result files: {folder}", soft_wrap=True)
    if out is not None:
        save_evaluation(out, scored.comparable, benchmark=scored)


def _give_results(results: "dict[str, EvaluationResult]", *, out: Path | None, console: Console) -> None:
    from embedsmith.evaluation.saved import save_evaluation
    from embedsmith.reporting.tables import results_table
    from embedsmith.support import files

    first = next(iter(results.values()))
    console.print(results_table(list(results.items()), with_gain=False))
    if out is not None and len(results) == 1:
        save_evaluation(out, first)
    elif out is not None:
        files.write_json(out, {label: result.to_json() for label, result in results.items()})


def _give_published(result: "EvaluationResult", *, model: str, base_model: str | None, console: Console) -> None:
    from embedsmith.reporting.tables import published_table
    from embedsmith.verbs.evaluate import find_published

    if result.tasks and (beside := find_published([("measured here", result)], model=model, base_model=base_model)):
        console.print(published_table(beside))
        for title, url, places in beside.sources:
            console.print(f"{title}, {places}: {url}", soft_wrap=True, highlight=False)
