"""train, evaluate, doctor, demo."""

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.table import Table

from embedsmith.cli.app import (
    SETTINGS_EPILOG,
    TAKES_SETTINGS,
    BaseModel,
    Model,
    app,
    escape,
    make_console,
    read_overrides,
)
from embedsmith.errors import ConfigError

_PROMPT_HELP = "Template with {text}, or a known name such as prompteol; default: as trained."


@app.command(
    "train",
    context_settings=TAKES_SETTINGS,
    epilog=SETTINGS_EPILOG,
)
def train_command(
    context: typer.Context,
    config: Annotated[Optional[Path], typer.Option(help="Recipe (YAML).")] = None,  # noqa: UP045 (typer reads it)
    resume: Annotated[Optional[Path], typer.Option(help="Go on with this stopped run.")] = None,  # noqa: UP045
    settings: Annotated[bool, typer.Option("--settings", help="List every setting of a recipe, and stop.")] = False,
) -> None:
    """Train an adapter into a run folder."""
    from embedsmith import verbs
    from embedsmith.recipe import describe_settings, load_config
    from embedsmith.reporting.tables import results_table

    console = make_console()
    if settings:
        table = Table("setting", "default", "meaning")
        for row in describe_settings():
            table.add_row(*(escape(cell) for cell in row))
        console.print(table)
        return
    if resume is not None:
        if config is not None or context.args:
            raise ConfigError("--resume takes no other setting: a run goes on as it was begun.")
        run = verbs.resume(resume, console=console)
    else:
        run = verbs.train(load_config(config, overrides=read_overrides(context.args)), console=console)
    if run.dev:
        console.print(results_table([(f"step {run.outcome.best_step}", run.dev)]))
    console.print(f"{run.outcome.num_steps} steps in {run.outcome.elapsed_s:.0f} s. The run: {run.config.output_dir}")


@app.command("plan", context_settings=TAKES_SETTINGS, epilog=SETTINGS_EPILOG)
def plan_command(
    context: typer.Context,
    config: Annotated[Optional[Path], typer.Option(help="Recipe (YAML).")] = None,  # noqa: UP045
) -> None:
    """Tell what a run will take here, before it runs: tokens, time, memory."""
    from embedsmith.plan import plan_run
    from embedsmith.recipe import load_config
    from embedsmith.reporting.tables import plan_table

    overrides = {**({} if config else {"output_dir": "unused"}), **read_overrides(context.args)}
    console = make_console()
    console.print("Taking a few steps to measure with ...", highlight=False)
    console.print(plan_table(plan_run(load_config(config, overrides=overrides))))


@app.command("evaluate")
def evaluate_command(
    model: Model,
    tasks: Annotated[
        Optional[list[str]], typer.Option(help="Task names; repeat, or list several behind one --tasks.")  # noqa: UP045
    ] = None,
    data: Annotated[Optional[Path], typer.Option(help="Folder of <TASK>.tsv.gz files.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="Write the results here (JSON), for compare too.")] = None,  # noqa: UP045
    pooling: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="last, mean, weighted_mean, concat, or `all` to score each; default: as trained."),
    ] = None,
    prompt: Annotated[Optional[str], typer.Option(help=_PROMPT_HELP)] = None,  # noqa: UP045
    instruction: Annotated[Optional[str], typer.Option(help="Fills {instruction} in the prompt.")] = None,  # noqa: UP045
    end_token: Annotated[
        Optional[bool],  # noqa: UP045
        typer.Option("--end-token/--no-end-token", help="Whether texts end with the end token; default: as trained."),
    ] = None,
    dims: Annotated[
        Optional[list[int]],  # noqa: UP045
        typer.Option("--dims", "--dim", help="Score the first DIM dimensions; repeat, or list several behind --dims."),
    ] = None,
    base_model: BaseModel = None,
) -> None:
    """Score a model on STS tasks, with bootstrap intervals."""
    from embedsmith import files, verbs
    from embedsmith.config import Pooling
    from embedsmith.evaluation.saved import save_evaluation
    from embedsmith.reporting.published import beside
    from embedsmith.reporting.tables import results_table

    console = make_console()
    if pooling is not None and pooling not in ("all", *Pooling):
        raise ConfigError(f"--pooling is {pooling!r}; it must be one of {', '.join(Pooling)} or all.")
    poolings = list(Pooling) if pooling == "all" else [Pooling(pooling)] if pooling else []
    results = verbs.evaluate(
        model,
        tasks=tasks,
        data=data,
        poolings=poolings,
        dims=dims or [],
        prompt=prompt,
        instruction=instruction,
        end_token=end_token,
        base_model=base_model,
        console=console,
    )
    console.print(results_table(list(results.items()), with_gain=False))
    for line in beside(next(iter(results.values())), base_model=base_model or verbs.base_of(model)):
        console.print(line, highlight=False, soft_wrap=True)
    if out is not None and len(results) == 1:
        save_evaluation(out, next(iter(results.values())))
    elif out is not None:
        files.write_json(out, {label: result.to_json() for label, result in results.items()})


@app.command("baseline")
def baseline_command(
    model: Model = "smollm2-135m",
    dev: Annotated[str, typer.Option(help="Scored pairs that decide: a file, or `sample`.")] = "sample",
    prompts: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="Known prompts to try, `none` for the bare text; default: all. Several behind one --prompts."
        ),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="Write the ranking here (JSON).")] = None,  # noqa: UP045
) -> None:
    """Find the best a model does without training: over prompts, poolings and the end token."""
    from embedsmith import files
    from embedsmith.baseline import rank_untrained
    from embedsmith.data.pairs import load_pairs
    from embedsmith.reporting.tables import format_score

    console = make_console()
    ranking = rank_untrained(model, pairs=load_pairs(dev), prompts=prompts, console=console)
    table = Table("prompt", "end token", "pooling", "Spearman")
    for candidate in ranking:
        end = "yes" if candidate.end_token else "no"
        table.add_row(candidate.prompt, end, candidate.pooling, format_score(candidate.result))
    console.print(table)
    console.print(
        f"The best of {len(ranking)} was chosen on these pairs, so its score here is a little high. Score it on others "
        f"with:\n  embedsmith evaluate {model} {ranking[0].flags} --data DIR",
        highlight=False,
        soft_wrap=True,
    )
    if out is not None:
        files.write_json(out, {"model": model, "dev": dev, "ranking": [c.to_json() for c in ranking]})


@app.command("doctor")
def doctor_command(
    model: Model = "smollm2-135m",
    text: Annotated[Optional[str], typer.Option(help="Show this text's tokens.")] = None,  # noqa: UP045
    prompt: Annotated[Optional[str], typer.Option(help=_PROMPT_HELP)] = None,  # noqa: UP045
    max_length: Annotated[Optional[int], typer.Option(help="Most tokens per text.")] = None,  # noqa: UP045
    base_model: BaseModel = None,
) -> None:
    """Check how a model turns text into tokens and vectors; exit 2 when something is wrong."""
    from embedsmith import verbs

    console = make_console()
    diagnosis = verbs.diagnose(model, text=text, prompt=prompt, max_length=max_length, base_model=base_model)
    console.print(f"{diagnosis.text!r}", markup=False, highlight=False)
    console.print(
        "  " + " ".join(f"{token}:{token_id}" for token_id, token in diagnosis.tokens), markup=False, highlight=False
    )
    table = Table(show_header=False)
    for finding in diagnosis.findings:
        mark = "[green]ok[/green]" if finding.is_ok else "[red]WRONG[/red]"
        detail = finding.detail if finding.is_ok else f"{finding.detail}\n-> {finding.advice}"
        table.add_row(mark, finding.check, escape(detail))
    console.print(table)
    diagnosis.raise_if_wrong()


@app.command("demo")
def demo_command(
    output_dir: Annotated[Path, typer.Option(help="The run folder to make.")] = Path("runs/demo"),
) -> None:
    """The whole story on a CPU: built-in model and sample, train, before and after, report."""
    from embedsmith import demo
    from embedsmith.reporting.tables import results_table

    console = make_console()
    result = demo.run_demo(output_dir, console=console)
    console.print(results_table(result.rows))
    console.print(escape(result.headline))
    console.print(f"Report: {output_dir / 'report.html'}   Scores: {output_dir / 'results.json'}")
