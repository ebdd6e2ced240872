"""init."""

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from embedsmith.cli.app import Device, app, at_home, heavy_imports, make_console, output, read_columns
from embedsmith.support.errors import RunError


@app.command("init")
def init_command(
    sources: Annotated[
        list[str], typer.Argument(callback=at_home, help="Training data: files, globs, hub ids or `sample`.")
    ],
    out: Annotated[Path, typer.Option(callback=output(suffix=".yaml"), help="Recipe to write.")] = Path("recipe.yaml"),
    model: Annotated[
        str, typer.Option(callback=at_home, help="What to train: built-in name, hub id, folder or run.")
    ] = "smollm2-135m",
    output_dir: Annotated[str, typer.Option(callback=at_home, help="Run folder of the recipe.")] = "runs/mine",
    columns: Annotated[
        str | None,
        typer.Option(help="Column names, as in '{anchor: question, positive: answer}'; default: found, or guessed."),
    ] = None,
    dev: Annotated[
        str | None, typer.Option(callback=at_home, help="Scored pairs to choose the best step by, a file or `sample`.")
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(callback=at_home, help="Folder to make: a tenth of the rows as a test, the rest to train on."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(callback=at_home, help="For texts without a partner: the model whose vectors to learn."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan/--no-plan", help="Take a few steps to tell time and memory.")] = True,
    device: Device = None,
) -> None:
    """Look at data and write a recipe for it, with a comment on every choice."""
    with heavy_imports():
        from embedsmith.reporting.tables import facts_table
        from embedsmith.support import files
        from embedsmith.verbs.init import describe_plan, draft_recipe, hold_out
        from embedsmith.verbs.plan import plan_run

    if out.exists():
        raise RunError(f"--out: {out} is there already.\nName another file, or remove it.")
    if held_out is not None:
        if held_out.exists():
            raise RunError(f"--held-out: {held_out} is there already.\nName another folder, or remove it.")
        files.check_output_folder(held_out, option="--held-out")
    console = make_console()
    names = read_columns(columns, takes_lists=True)
    draft_of = partial(
        draft_recipe, model=model, output_dir=output_dir, dev=dev, teacher=teacher, has_test=bool(dev or held_out)
    )
    draft = draft_of(sources, columns=names)
    console.print(facts_table(draft.facts))
    for line in draft.columns:
        console.print(line, soft_wrap=True)
    split = hold_out(sources, columns=names, folder=held_out) if held_out else None
    if split:
        console.print(split.description, soft_wrap=True)
        draft = draft_of([split.train], columns=None)
    if plan:
        console.print("Taking a few steps to measure with ...")
    foretold = plan_run(draft.config, device=device) if plan else None
    given = ["embedsmith", "init", *sources, *(["--held-out", str(held_out)] if held_out else [])]
    files.write_text(out, draft.with_head(command=shlex.join(given), plan=foretold))
    said_by_plan = bool(foretold)  # which reads the data once more, and says what a run says of it
    if known := (*(() if said_by_plan else draft.remarks), *draft.advice):
        console.print("Before you train:")
        for line in known:
            console.print(f"- {line}", soft_wrap=True)
    console.print(f"{out}{f': {describe_plan(foretold)}' if foretold else ''}", soft_wrap=True)
    console.print(f"Next: embedsmith train --config {shlex.quote(str(out))}", soft_wrap=True)
    if split:
        then = shlex.join(["embedsmith", "compare", model, output_dir, "--data", split.test])
        console.print(f"Then: {then}", soft_wrap=True)
