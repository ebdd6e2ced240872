"""train, plan, baseline, doctor, demo."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from embedsmith.cli.app import (
    HOW_VALUES_ARE_READ,
    PROMPT_HELP,
    SETTINGS_EPILOG,
    TAKES_SETTINGS,
    BaseModel,
    Device,
    Model,
    PairColumns,
    app,
    at_home,
    heavy_imports,
    make_console,
    output,
    read_columns,
    read_overrides,
)
from embedsmith.support.errors import ConfigError


@app.command(
    "train",
    context_settings=TAKES_SETTINGS,
    epilog=SETTINGS_EPILOG,
)
def train_command(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(callback=at_home, help="Recipe (YAML).")] = None,
    resume: Annotated[Path | None, typer.Option(callback=at_home, help="Go on with this stopped run.")] = None,
    settings: Annotated[bool, typer.Option("--settings", help="List every setting of a recipe, and stop.")] = False,
    device: Device = None,
) -> None:
    """Train an adapter into a run folder."""
    from embedsmith.settings.recipe import describe_settings, load_config

    console = make_console()
    if settings:
        table = Table("setting", "default", "meaning")
        for row in describe_settings():
            table.add_row(*row)
        console.print(table)
        console.print(HOW_VALUES_ARE_READ, soft_wrap=True)
        return
    if resume is not None and (config is not None or context.args):
        raise ConfigError("--resume takes no other setting: a run goes on as it was begun.")
    asked = resume or load_config(config, overrides=read_overrides(context.args))

    # After the settings: a fault in them is told at once, not when torch has been loaded.
    with heavy_imports():
        from embedsmith.reporting.tables import results_table
        from embedsmith.verbs.train import resume_run, train

    if isinstance(asked, Path):
        run = resume_run(asked, device=device, console=console)
    else:
        run = train(asked, device=device, console=console)
    if run.dev:
        kept = "average" if run.outcome.averaged else f"step {run.outcome.best_step}"
        console.print(results_table([(kept, run.dev)]))
    console.print(f"{run.outcome.num_steps} steps in {run.outcome.elapsed_s:.0f} s. The run: {run.config.output_dir}")


@app.command("plan", context_settings=TAKES_SETTINGS, epilog=SETTINGS_EPILOG)
def plan_command(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(callback=at_home, help="Recipe (YAML).")] = None,
    device: Device = None,
) -> None:
    """Tell what a run will take here, before it runs: tokens, time, memory."""
    from embedsmith.settings.recipe import load_config

    overrides = {**({} if config else {"output_dir": "unused"}), **read_overrides(context.args)}
    resolved = load_config(config, overrides=overrides)

    # As in `train`.
    with heavy_imports():
        from embedsmith.reporting.tables import plan_table
        from embedsmith.verbs.plan import plan_run

    console = make_console()
    console.print("Taking a few steps to measure with ...")
    console.print(plan_table(plan_run(resolved, device=device)))


@app.command("baseline")
def baseline_command(
    model: Model = "smollm2-135m",
    dev: Annotated[str, typer.Option(callback=at_home, help="Pairs that decide: a file, or `sample`.")] = "sample",
    columns: PairColumns = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(
            help="Known prompts to try, `none` for the bare text; default: all. Several behind one --prompts."
        ),
    ] = None,
    marks: Annotated[
        list[str] | None,
        typer.Option(
            callback=at_home,
            help="Models to put beside it as they embed, such as the encoder in use. Several behind one --marks.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(callback=output(suffix=".json"), help="Write the ranking here (JSON).")
    ] = None,
    device: Device = None,
) -> None:
    """Find the best a model does without training: over prompts, poolings and the end token."""
    with heavy_imports():
        from embedsmith.data.pairs import load_pairs
        from embedsmith.reporting.tables import format_score
        from embedsmith.support import files
        from embedsmith.verbs.baseline import rank_untrained, score_marks

    console = make_console()
    pairs = load_pairs(dev, columns=read_columns(columns), columns_option="--columns")
    scored = score_marks(marks or [], pairs=pairs, device=device, console=console)
    ranking = rank_untrained(model, pairs=pairs, prompts=prompts, device=device, console=console)
    table = Table("prompt", "end token", "pooling", "Spearman")
    for name, result in scored.items():
        table.add_row(f"the mark {name}", "", "as it embeds", format_score(result))
    table.add_section()
    for candidate in ranking:
        end = "yes" if candidate.end_token else "no"
        table.add_row(candidate.prompt, end, candidate.pooling, format_score(candidate.result))
    console.print(table)
    console.print(
        f"The best of {len(ranking)} was chosen on these pairs, so its score here is a little high. Score it on others "
        f"with:\n  embedsmith evaluate {shlex.quote(model)} {ranking[0].flags} --data DIR",
        highlight=False,
        soft_wrap=True,
    )
    if out is not None:
        found = {
            "ranking": [c.to_json() for c in ranking],
            "marks": {name: one.to_json() for name, one in scored.items()},
        }
        files.write_json(out, {"model": model, "dev": dev, **found})


@app.command("doctor")
def doctor_command(
    model: Model = "smollm2-135m",
    text: Annotated[str | None, typer.Option(help="Show this text's tokens.")] = None,
    prompt: Annotated[str | None, typer.Option(help=PROMPT_HELP)] = None,
    max_length: Annotated[int | None, typer.Option(help="Most tokens per text.")] = None,
    base_model: BaseModel = None,
    device: Device = None,
) -> None:
    """Check how a model turns text into tokens and vectors; exit 2 when something is wrong."""
    with heavy_imports():
        from embedsmith.verbs.doctor import diagnose

    console = make_console()
    diagnosis = diagnose(model, text=text, prompt=prompt, max_length=max_length, base_model=base_model, device=device)
    console.print(f"{diagnosis.text!r}")
    console.print("  " + " ".join(f"{token}:{token_id}" for token_id, token in diagnosis.tokens))
    table = Table(show_header=False)
    for finding in diagnosis.findings:
        mark = Text("ok", style="green") if finding.is_ok else Text("WRONG", style="red")
        detail = finding.detail if finding.is_ok else f"{finding.detail}\n-> {finding.advice}"
        table.add_row(mark, finding.check, detail)
    console.print(table)
    diagnosis.raise_if_wrong()


@app.command("demo")
def demo_command(
    output_dir: Annotated[Path, typer.Option(callback=at_home, help="The run folder to make.")] = Path("runs/demo"),
    device: Device = None,
) -> None:
    """The whole story on a CPU: built-in model and sample, train, before and after, report."""
    with heavy_imports():
        from embedsmith.reporting.tables import results_table
        from embedsmith.verbs import demo

    console = make_console()
    content = demo.run_demo(output_dir, device=device, console=console)
    console.print(results_table(content.analysis.rows))
    console.print(content.headline)
    console.print(f"Report: {output_dir / 'report.html'}   Scores: {output_dir / 'results.json'}")
