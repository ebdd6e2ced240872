"""What every command shares: the application, the model argument, overrides of a recipe, the console."""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from embedsmith.support import files
from embedsmith.support.errors import ConfigError, ModelError
from embedsmith.support.imports import quick_imports

log = logging.getLogger(__name__)

IN_ORDER = (
    *("demo", "doctor", "init", "data", "plan", "train", "evaluate", "compare", "report", "card", "baseline"),
    *("sweep", "optimize", "average", "encode", "search", "export", "push", "serve"),
)
"""The commands in the order in which they are used."""


class _Commands(TyperGroup):
    """Commands in the order in which they are used, and whatever else there is behind them."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: IN_ORDER.index(name) if name in IN_ORDER else len(IN_ORDER))


app = typer.Typer(
    cls=_Commands,
    help="Turn a small language model into a text-embedding model, and measure what it gained.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Prepare training data, and look into it.", no_args_is_help=True)
app.add_typer(data_app, name="data")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib import metadata

        print(f"embedsmith {metadata.version('embedsmith')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and stop.")
    ] = False,
) -> None:
    """What stands before a command."""


def at_home(value: Any) -> Any:
    """Callback of arguments and options that name files, folders or models: `~` in front is the home folder.

    Raises:
        ConfigError: a name is empty.
    """
    if isinstance(value, list):
        return [at_home(one) for one in value]
    if isinstance(value, str) and not value.strip():
        raise ConfigError("The name of a model or file is empty.\nIs a variable of your shell not set?")
    if value is None or not str(value).startswith("~"):
        return value
    return type(value)(files.expand_home(str(value)))


def output(*, suffix: str | None = None) -> Callable[[typer.CallbackParam, Path | None], Path | None]:
    """Callback of an option that names a file to be written at the end: it is refused at once where that will fail.

    Raises:
        RunError: as `files.check_output`.
    """

    def check(param: typer.CallbackParam, value: Path | None) -> Path | None:
        path: Path | None = at_home(value)
        if path is not None:
            files.check_output(path, option=param.opts[0], suffix=suffix)
        return path

    return check


Model = Annotated[
    str,
    typer.Argument(
        callback=at_home,
        help="Built-in name (smollm2-135m, gemma3-270m), hub id, local folder, GGUF file, run or LoRA adapter; to be "
        "scored, a sentence-transformers encoder too.",
    ),
]
BaseModel = Annotated[
    str | None,
    typer.Option(callback=at_home, help="The base of a run or adapter, if it does not lie where it lay in training."),
]
Device = Annotated[
    str | None,
    typer.Option(help="Where it runs: cpu, cuda, cuda:1 ...; default: CUDA where there is one, else the CPU."),
]
PairColumns = Annotated[
    str | None,
    typer.Option(help="Column names, as in '{sentence1: text_a, sentence2: text_b, score: gold}'."),
]
PROMPT_HELP = "Template with {text}, or a known name such as prompteol; default: as trained."
TAKES_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of a command that takes any setting of a recipe as an option."""
SETTINGS_EPILOG = "Any setting of a recipe: --section.key VALUE, or --key VALUE; text is taken as typed."
HOW_VALUES_ARE_READ = """\
A value is read by its setting's type. Text is taken as typed; `none` where a setting may be absent means that it is.
Several values: [a, b], of numbers and layer names also a,b. Mappings: {a: b}. A ~ in front of a path is the home
folder."""


def read_overrides(arguments: list[str]) -> dict[str, str]:
    """`--key value` and `--key=value` -> {key: value}; of a key given twice the last one counts, and that is said."""
    overrides: dict[str, str] = {}
    rest, key = list(arguments), ""
    while rest:
        option = rest.pop(0)
        if not option.startswith("--"):
            raise ConfigError(_describe_stray(option, behind=key))
        key, has_value, value = option[2:].partition("=")
        if not has_value:
            if not rest:
                raise ConfigError(f"--{key} has no value. Write --{key} VALUE.")
            value = rest.pop(0)
        if overrides.get(key, value) != value:
            log.warning("--%s is given twice; the last one counts: %s", key, value)
        overrides[key] = value
    return overrides


def _describe_stray(value: str, *, behind: str) -> str:
    said = f"{value!r} stands where a setting was expected. Write --section.key VALUE"
    if not behind:
        return f"{said}; of training data --data.train {value}." if files.is_there(value) else f"{said}."
    return (
        f"{said}.\n--{behind} takes one value: several as --{behind} '[a, b]', and a pattern such as '*.csv' in quotes."
    )


def read_columns(text: str | None, *, takes_lists: bool = False) -> dict[str, Any] | None:
    """`--columns '{anchor: text_a}'` -> the mapping; raises ConfigError when it is none of names to names.

    With `takes_lists`, a name may also stand for several: `{negative: [text_b, text_c]}`.
    """
    if text is None:
        return None
    import yaml

    from embedsmith.settings.yaml_text import parse_yaml

    try:
        named = parse_yaml(text)
    except yaml.YAMLError:
        named = None
    values = list(named.values()) if isinstance(named, dict) else [None]
    if takes_lists:
        values = [name for value in values for name in (value if isinstance(value, list) else [value])]
    if not all(isinstance(name, str) for name in values):
        raise ConfigError(f"--columns must be a mapping such as '{{anchor: text_a}}', it is {text!r}.")
    return named


@contextmanager
def heavy_imports() -> Iterator[None]:
    """What a command imports besides this package: torch, transformers and the like, quickly, and made to be quiet.

    Progress is shown by us; the libraries' bars for loading weights would only come between.
    """
    with quick_imports():
        yield
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
    # Of its own settings' new names: an exported folder has the old ones too, for older versions.
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def raise_failures(failures: Mapping[str, str]) -> None:
    """Raise ModelError naming what could not be scored, when all that could be was given."""
    if failures:
        lines = [f"  {task}: {reason}" for task, reason in failures.items()]
        raise ModelError("\n".join(["Not everything could be scored:", *lines]))


def make_console() -> Console:
    """The terminal, or a wide page where output goes to a file; of several processes only the first one talks.

    What is printed stands there as it is: `[x]` is no markup and `:cat:` no picture.
    """
    is_quiet = os.environ.get("RANK", "0") != "0"
    width = None if sys.stdout.isatty() else 140
    return Console(width=width, quiet=is_quiet, markup=False, emoji=False, highlight=False)
