"""compare, report, card."""

from pathlib import Path
from typing import Annotated

import typer

from embedsmith.cli.app import (
    Device,
    PairColumns,
    app,
    at_home,
    heavy_imports,
    make_console,
    output,
    raise_failures,
    read_columns,
)
from embedsmith.support.errors import ConfigError


@app.command("compare")
def compare_command(
    models: Annotated[
        list[str],
        typer.Argument(
            callback=at_home,
            help="Each a MODEL, an encoder or results.json; seeds of one recipe with commas between. First: the mark.",
        ),
    ],
    tasks: Annotated[list[str] | None, typer.Option(help="Task names, several behind one --tasks.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            callback=at_home,
            help="Folder of <TASK>.tsv.gz files with scored pairs; or of duplicate sets; or of retrieval sets in "
            "BEIR's layout.",
        ),
    ] = None,
    columns: PairColumns = None,
    out: Annotated[
        Path | None, typer.Option(callback=output(suffix=".json"), help="Write the comparison here (JSON).")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="Of bootstrap and permutations.")] = 10_000,
    seed_spread: Annotated[
        float,
        typer.Option(
            min=0,
            help="Usual standard deviation between seeds, in points; it counts where few seeds are given. 0: these "
            "very models, not their recipes.",
        ),
    ] = 0.5,
    device: Device = None,
) -> None:
    """Say whether models are better or worse than the first one, or whether that cannot be told."""
    with heavy_imports():
        from embedsmith.reporting.tables import comparison_table
        from embedsmith.support import files
        from embedsmith.verbs.compare import compare_models

    console = make_console()
    found = compare_models(
        models,
        tasks=tasks,
        data=data,
        columns=read_columns(columns),
        num_draws=draws,
        seed_spread=seed_spread / 100,
        device=device,
        console=console,
    )
    for one in found:
        console.print(comparison_table(one))
        console.print(one.sentence, soft_wrap=True)
    console.print(
        f"{found[0].metric} x 100. Differences with their 95 % interval over the {found[0].units} (paired bootstrap) "
        f"and over seeds (usual spread {seed_spread:g}); p: permutation test, corrected for all tasks (Holm).",
        highlight=False,
        soft_wrap=True,
    )
    if out is not None:
        files.write_json(out, [one.to_json() for one in found])
    console.print("verdict: " + "; ".join(f"{one.verdict}" for one in found))
    raise_failures(found[0].left_out)


@app.command("report")
def report_command(
    models: Annotated[
        list[str],
        typer.Argument(callback=at_home, help="A run, or several models or encoders: the first one is the mark."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            callback=output(suffix=".html"), help="The page; default: report.html in the folder of the last run named."
        ),
    ] = None,
    tasks: Annotated[list[str] | None, typer.Option(help="Task names, several behind one --tasks.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(callback=at_home, help="Folder of <TASK>.tsv.gz files; default: the development set of the run."),
    ] = None,
    columns: PairColumns = None,
    training_data: Annotated[
        bool, typer.Option("--training-data/--no-training-data", help="Look into the run's training data too.")
    ] = True,
    device: Device = None,
) -> None:
    """Write one page on a run or on several models: scores, pictures, failures, training data, leakage, cost."""
    with heavy_imports():
        from embedsmith.verbs.report import report_models
        from embedsmith.verbs.run_folder import is_run

    runs = [model for model in models if is_run(model)]
    if out is None and not runs:
        absent = [model for model in models if "/" in model and not Path(model).exists()]
        raise ConfigError(
            (f"There is no folder {absent[0]}.\n" if absent else "")
            + "None of these models is a run, whose folder could take the page: name a file with --out."
        )
    console = make_console()
    path = out or Path(runs[-1]) / "report.html"
    content = report_models(
        models,
        out=path,
        tasks=tasks,
        data=data,
        columns=read_columns(columns),
        with_data=training_data,
        device=device,
        console=console,
    )
    console.print(content.headline, soft_wrap=True)
    console.print(f"Report: {path}", soft_wrap=True)
    raise_failures({title: why for title, one in content.analysis.rows for why in one.failures.values()})


@app.command("card")
def card_command(
    run: Annotated[Path, typer.Argument(callback=at_home, help="The folder of a finished run or of an average.")],
    results: Annotated[Path, typer.Option(callback=at_home, help="What `embedsmith evaluate RUN --out FILE` wrote.")],
) -> None:
    """Write the model card of a run anew, with the scores of an evaluation."""
    with heavy_imports():
        from embedsmith.verbs.card import write_card

    make_console().print(f"Model card: {write_card(run, results=results)}", soft_wrap=True)
