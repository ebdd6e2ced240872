"""What every command shares: the application, the model argument, overrides of a recipe, the console."""

import os
import sys
from typing import Annotated, Optional

import typer
from rich import markup
from rich.console import Console

from embedsmith.support.errors import ConfigError

app = typer.Typer(
    help="Turn a small language model into a text-embedding model, and measure what it gained.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Prepare training data, and look into it.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Model = Annotated[str, typer.Argument(help="Built-in name (smollm2-135m), hub id, local folder, run or LoRA adapter.")]
BaseModel = Annotated[
    Optional[str],  # noqa: UP045 (typer reads it)
    typer.Option(help="The base of a run or adapter, if it does not lie where it lay in training."),
]
PROMPT_HELP = "Template with {text}, or a known name such as prompteol; default: as trained."
TAKES_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of a command that takes any setting of a recipe as an option."""
SETTINGS_EPILOG = "Any setting of a recipe: --section.key VALUE, or --key VALUE."


def read_overrides(arguments: list[str]) -> dict[str, str]:
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


def make_console() -> Console:
    """The terminal, or a wide page where output goes to a file; of several processes only the first one talks."""
    return Console(width=None if sys.stdout.isatty() else 140, quiet=os.environ.get("RANK", "0") != "0")


def escape(text: str) -> str:
    """Text that rich prints as it is."""
    return markup.escape(text)
