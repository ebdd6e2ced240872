"""The command line: parses, calls a verb, prints. Errors a user can fix end in a short message and exit code 2."""

import errno
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.table import Table

from embedsmith.allocator import keep_freed_memory
from embedsmith.errors import ConfigError, EmbedsmithError

app = typer.Typer(
    help="Turn a small language model into a text-embedding model, and measure what it gained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Prepare training data.", no_args_is_help=True)
app.add_typer(data_app, name="data")

_INTERRUPTED = 130
_MODEL_HELP = "Built-in name (smollm2-135m), hub id, local folder, or run folder."
Model = Annotated[str, typer.Argument(help=_MODEL_HELP)]


@app.command(
    "train",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Any setting of a recipe: --section.key VALUE, or --key VALUE.",
)
def train_command(
    context: typer.Context,
    config: Annotated[Optional[Path], typer.Option(help="Recipe (YAML).")] = None,  # noqa: UP045 (typer reads it)
    resume: Annotated[Optional[Path], typer.Option(help="Go on with this stopped run.")] = None,  # noqa: UP045
    settings: Annotated[bool, typer.Option("--settings", help="List every setting of a recipe, and stop.")] = False,
) -> None:
    """Train an adapter into a run folder."""
    from embedsmith import verbs
    from embedsmith.config import describe_settings, load_config
    from embedsmith.reporting.tables import results_table

    console = _console()
    if settings:
        table = Table("setting", "default", "meaning")
        for row in describe_settings():
            table.add_row(*(_escape(cell) for cell in row))
        console.print(table)
        return
    if resume is not None:
        if config is not None or context.args:
            raise ConfigError("--resume takes no other setting: a run goes on as it was begun.")
        run = verbs.resume(resume, console=console)
    else:
        run = verbs.train(load_config(config, overrides=_overrides(context.args)), console=console)
    if run.dev:
        console.print(results_table([(f"step {run.outcome.best_step}", run.dev)]))
    console.print(f"{run.outcome.num_steps} steps in {run.outcome.elapsed_s:.0f} s. The run: {run.config.output_dir}")


@app.command("evaluate")
def evaluate_command(
    model: Model,
    tasks: Annotated[
        Optional[list[str]], typer.Option(help="Task names; repeat, or list several behind one --tasks.")  # noqa: UP045
    ] = None,
    data: Annotated[Optional[Path], typer.Option(help="Folder of <TASK>.tsv.gz files.")] = None,  # noqa: UP045
    out: Annotated[Optional[Path], typer.Option(help="Write the results here (JSON).")] = None,  # noqa: UP045
    pooling: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="last, mean, weighted_mean, or `all` to score the three; default: as trained."),
    ] = None,
) -> None:
    """Score a model on STS tasks, with bootstrap intervals."""
    from embedsmith import files, verbs
    from embedsmith.config import Pooling
    from embedsmith.reporting.tables import results_table

    console = _console()
    if pooling is not None and pooling not in ("all", *Pooling):
        raise ConfigError(f"--pooling is {pooling!r}; it must be one of {', '.join(Pooling)} or all.")
    poolings = list(Pooling) if pooling == "all" else [Pooling(pooling)] if pooling else []
    results = verbs.evaluate(model, tasks=tasks, data=data, poolings=poolings, console=console)
    console.print(results_table(list(results.items()), with_gain=False))
    if out is not None:
        values = {label: result.to_json() for label, result in results.items()}
        files.write_json(out, values if len(values) > 1 else next(iter(values.values())))


@app.command("doctor")
def doctor_command(
    model: Model = "smollm2-135m",
    text: Annotated[Optional[str], typer.Option(help="Show this text's tokens.")] = None,  # noqa: UP045
    prompt: Annotated[Optional[str], typer.Option(help="Template with one {text}.")] = None,  # noqa: UP045
    max_length: Annotated[Optional[int], typer.Option(help="Most tokens per text.")] = None,  # noqa: UP045
) -> None:
    """Check how a model turns text into tokens and vectors; exit 2 when something is wrong."""
    from embedsmith import verbs

    console = _console()
    diagnosis = verbs.diagnose(model, text=text, prompt=prompt, max_length=max_length)
    console.print(f"{diagnosis.text!r}", markup=False, highlight=False)
    console.print(
        "  " + " ".join(f"{token}:{token_id}" for token_id, token in diagnosis.tokens), markup=False, highlight=False
    )
    table = Table(show_header=False)
    for finding in diagnosis.findings:
        mark = "[green]ok[/green]" if finding.is_ok else "[red]WRONG[/red]"
        detail = finding.detail if finding.is_ok else f"{finding.detail}\n-> {finding.advice}"
        table.add_row(mark, finding.check, _escape(detail))
    console.print(table)
    diagnosis.raise_if_wrong()


@app.command("demo")
def demo_command(
    output_dir: Annotated[Path, typer.Option(help="The run folder to make.")] = Path("runs/demo"),
) -> None:
    """The whole story on a CPU: built-in model and sample, train, before and after, report."""
    from embedsmith import demo
    from embedsmith.reporting.tables import results_table

    console = _console()
    result = demo.run_demo(output_dir, console=console)
    console.print(results_table(result.rows))
    console.print(_escape(result.headline))
    console.print(f"Report: {output_dir / 'report.html'}   Scores: {output_dir / 'results.json'}")


@data_app.command("triplets")
def triplets_command(
    sources: Annotated[
        list[str], typer.Argument(help="Files or globs of labelled pairs (premise, hypothesis, label).")
    ],
    out: Annotated[Path, typer.Option(help="File to write: .tsv, .csv or .jsonl, maybe .gz.")],
    columns: Annotated[
        Optional[str], typer.Option(help="Column names, as in '{premise: text_a, hypothesis: text_b}'.")  # noqa: UP045
    ] = None,
) -> None:
    """Make triplets from labelled NLI pairs, as SimCSE does."""
    import yaml

    from embedsmith.data.nli import make_triplets

    named = yaml.safe_load(columns) if columns else None
    if named is not None and not isinstance(named, dict):
        raise ConfigError(f"--columns must be a mapping such as '{{premise: text_a}}', it is {columns!r}.")
    counts = make_triplets(sources, out=out, columns=named)
    _console().print(
        f"{counts.num_triplets} triplets from {counts.num_pairs} labelled pairs "
        f"({counts.num_unlabelled} without a label skipped): {out}",
        highlight=False,
    )


def main() -> None:
    """Entry point of the `embedsmith` command."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("embedsmith").setLevel(logging.INFO)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    keep_freed_memory()
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command; returns its exit code: 0, 2 for what the user can fix, 130 for Ctrl-C."""
    _quiet_libraries()
    try:
        # typer answers Ctrl-C with this exit code, and with None when all went well
        if app(_spread_lists(arguments), standalone_mode=False) == _INTERRUPTED:
            raise KeyboardInterrupt
    except EmbedsmithError as error:
        return _fail(str(error))
    except (typer.Abort, KeyboardInterrupt):
        _fail("Stopped. A run that has checkpoints goes on with: embedsmith train --resume RUN")
        return _INTERRUPTED
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _fail(f"The disk is full: {error.filename or error}.\nFree some space and start again.")
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            return _fail(f"Not allowed to write {error.filename or error}.\nChoose another place.")
        raise
    except Exception as error:
        # click's own errors (a missing argument, an unknown option) know how to show themselves.
        if hasattr(error, "format_message"):
            return _fail(f"{error.format_message()}\nSee embedsmith --help.")
        raise
    return 0


def _spread_lists(arguments: list[str]) -> list[str]:
    """`--tasks A B` -> `--tasks A --tasks B`: several names may stand behind one --tasks."""
    spread: list[str] = []
    is_list = False
    for argument in arguments:
        if argument.startswith("-"):
            is_list = argument == "--tasks"
            spread += [] if is_list else [argument]
        else:
            spread += ["--tasks", argument] if is_list else [argument]
    return spread


def _overrides(arguments: list[str]) -> dict[str, str]:
    """`--key value` and `--key=value` -> {key: value}."""
    overrides: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        if not option.startswith("--"):
            raise ConfigError(f"{option!r} stands where a setting was expected. Write --section.key VALUE.")
        key, has_value, value = option[2:].partition("=")
        if not has_value:
            if not rest:
                raise ConfigError(f"--{key} has no value. Write --{key} VALUE.")
            value = rest.pop(0)
        overrides[key] = value
    return overrides


def _quiet_libraries() -> None:
    """Progress is shown by us; the libraries' bars for loading weights would only come between."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 140)


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
