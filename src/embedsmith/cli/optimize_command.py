"""optimize."""

from pathlib import Path
from typing import Annotated

import typer

from embedsmith.cli.app import (
    SETTINGS_EPILOG,
    TAKES_SETTINGS,
    Device,
    app,
    at_home,
    heavy_imports,
    make_console,
    read_overrides,
)
from embedsmith.support.errors import RunError


@app.command("optimize", context_settings=TAKES_SETTINGS, epilog=SETTINGS_EPILOG)
def optimize_command(
    context: typer.Context,
    config: Annotated[Path, typer.Option(callback=at_home, help="Search file (YAML).")],
    trials: Annotated[int | None, typer.Option(help="How many, in the place of the file's.")] = None,
    budget_minutes: Annotated[
        float | None, typer.Option(help="Of training, over all trials and restarts, in the place of the file's.")
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "--output_dir", callback=at_home, help="Folder of the runs and the pages."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run again what failed: trials first, as further ones.")
    ] = False,
    report_only: Annotated[bool, typer.Option("--report-only", help="Write tables and page of what there is.")] = False,
    device: Device = None,
) -> None:
    """Choose settings of a recipe jointly, within a budget; goes on where it was when started again."""
    with heavy_imports():
        from embedsmith.reporting.optimize_report import best_line, search_table
        from embedsmith.verbs.optimize import read_findings, run_search
        from embedsmith.verbs.optimize_space import make_search, read_search

    given = {"output_dir": str(output_dir) if output_dir else None, "trials": trials, "budget_minutes": budget_minutes}
    plan = read_search(config, overrides={key: value for key, value in given.items() if value is not None})
    search = make_search(plan, settings=read_overrides(context.args))
    console = make_console()
    if report_only:
        findings = read_findings(search)
    else:
        findings = run_search(search, retry_failed=retry_failed, device=device, console=console)
    console.print(search_table(findings))
    console.print(best_line(findings), soft_wrap=True)
    console.print(f"Tables and page: {plan.output_dir}/search.md, {plan.output_dir}/search.html")
    if findings.winner:
        console.print(f"The recipe: embedsmith train --config {plan.output_dir}/best.yaml", soft_wrap=True)
    failed = [f"trial {one.number}: {one.failed}" for one in findings.trials if one.failed]
    failed += [f"trial {one.number}: {failure}" for one in findings.finalists for failure in one.failures]
    if failed:
        raise RunError("\n".join(["Some runs failed:", *failed]))
