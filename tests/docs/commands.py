"""Commands of the pages: found, checked without running them, and run in small."""

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from docs.generate import commands, takes_settings
from embedsmith.cli import _spread_lists, app
from embedsmith.cli.app import read_overrides
from embedsmith.settings.recipe import known_keys, load_config
from embedsmith.verbs.optimize_space import read_search
from embedsmith.verbs.sweep import read_sweep
from tests.docs.pages import ROOT, Block, NotRun, Span

PLACEHOLDERS = re.compile(r"\b(MODEL|RUN|FILE|DIR|NAME|RECIPE|ADAPTER)\b|\.\.\.")
SMALL = {"max_steps": "2", "warmup_steps": "1", "batch_size": "4", "eval_steps": "2", "save_steps": "2"}
"""Settings that shorten a run: a few steps of a few rows."""
_SMALL_OPTIONS = {
    "init": ["--no-plan"],  # a stand-in's tokenizer has no words for the prompt, which the doctor refuses
    "sweep": ["--seeds", "7"],
    "baseline": ["--prompts", "none", "echo"],
    "compare": ["--draws", "200"],
    "report": ["--data", "sts", "--tasks", "STSBenchmark-dev"],
}
TOOLS = ("accelerate", "embedsmith", "make", "pip", "python", "torchrun")


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        line: of the page.
        words: of the shell, without a comment behind them, and without the file that its output goes to.
        not_run: why it is not run as it stands; None: it is.
    """

    line: int
    words: list[str]
    not_run: NotRun | None = None


def commands_of(span: Span) -> Iterator[Command]:
    """The commands of a block, or the one of a code span, which is not run where it only names what is to be run."""
    if isinstance(span.code, Block):
        if span.code.language == "bash":
            yield from _commands_of_block(span.code)
    elif span.code.split()[0] in TOOLS:
        words = shlex.split(span.code)
        is_name = words[0] != "embedsmith" or span.code in commands() or PLACEHOLDERS.search(span.code)
        yield Command(span.line, words, NotRun("it names a command, or has a place for a name") if is_name else None)


def _commands_of_block(block: Block) -> Iterator[Command]:
    unused = set(block.not_run)
    for number, line in enumerate(block.text.splitlines(), start=block.line + 1):
        if words := shlex.split(line.partition(" > ")[0], comments=True):
            said = next((said for said in block.not_run if line.startswith(said.start)), None)
            unused.discard(said)
            yield Command(number, words, said)
    assert not unused, f"line {block.line}: the block has no line that starts with {[said.start for said in unused]}"


def check(words: list[str]) -> None:
    """Whether a command could be run: its name, options, settings, recipes, extras and targets exist.

    Raises:
        Exception: it could not, and why; click's, ours, or an AssertionError.
    """
    for word in words:
        if word.startswith("recipes/") and not PLACEHOLDERS.search(word):
            assert (ROOT / word).exists(), f"{word} is not there"
    match words:
        case ["embedsmith", *arguments]:
            _check_arguments(arguments)
        case ["torchrun" | "accelerate", *rest]:
            if "-m" in rest:  # else it names an option of theirs
                assert rest[rest.index("-m") + 1] == "embedsmith"
                _check_arguments(rest[rest.index("-m") + 2 :])
        case ["make", *targets]:
            _check_targets(targets)
        case ["pip", "install", *rest]:
            _check_extras(rest)
        case ["python", "-m", module, *rest]:
            _check_module(module, rest)
        case _:
            raise AssertionError(f"{words[0]} is no command that this test knows")


def _check_arguments(arguments: list[str]) -> None:
    context = _read(arguments)
    if context and takes_settings(context.command):
        _check_settings(context.params.get("config"), read_overrides(context.args))


def _read(arguments: list[str]) -> Any:
    """What click makes of them; None: an option that acts as soon as it is read, or a command's name alone."""
    command, rest = typer.main.get_command(app), _spread_lists(arguments)
    if _options_of(command).intersection(rest[:1]):
        return None
    context = command.make_context("embedsmith", list(rest))
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, rest)
        if not rest:
            return None
        context = command.make_context(name, list(rest), parent=context)
    return context


def _options_of(command: Any) -> set[str]:
    return {name for option in command.params for name in option.opts}


def _check_settings(config: Any, overrides: dict[str, str]) -> None:
    known = {name for key in known_keys() for name in (key, key.split(".")[-1])}
    assert overrides.keys() <= known, f"no settings: {overrides.keys() - known}"
    if config is None or PLACEHOLDERS.search(str(config)):
        load_config(overrides={"output_dir": "runs/any", **overrides})
    elif "sweeps" in str(config):
        read_sweep(ROOT / config, overrides={})
    elif "searches" in str(config):
        read_search(ROOT / config, overrides={})
    else:  # one that the page has made, or one of ours
        load_config(config if Path(config).exists() else ROOT / config, overrides=overrides)


def _check_targets(targets: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {target.partition("=")[0] for target in targets if "=" in target}
    assert all(f"$({name})" in makefile for name in named), f"no variables of the Makefile: {named}"
    known = re.findall(r"^([\w-]+):", makefile, re.MULTILINE)
    unknown = {target for target in targets if "=" not in target} - set(known)
    assert not unknown, f"no targets of the Makefile: {unknown}"


def _check_extras(arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for argument in arguments:
        if named := re.fullmatch(r"(?:\.|embedsmith)\[([\w,]+)\]", argument):
            unknown = set(named[1].split(",")) - project["optional-dependencies"].keys()
            assert not unknown, f"no extras: {unknown}"


def _check_module(module: str, arguments: list[str]) -> None:
    found = importlib.util.find_spec(module)
    assert found is not None and found.origin is not None, f"no module {module}"
    source = Path(found.origin.replace("__init__.py", "__main__.py")).read_text(encoding="utf-8")
    options = [argument for argument in arguments if argument.startswith("--")]
    assert all(f'"{option}"' in source for option in options), f"{module} has not all of {options}"


def shrink(words: list[str]) -> list[str]:
    """The arguments of `embedsmith` for seconds of work: `SMALL` and few seeds, prompts, draws replace the page's."""
    rest, small = words[1:], list(_SMALL_OPTIONS.get(words[1], []))
    if takes_settings(commands()[f"embedsmith {words[1]}"]) and not {"--resume", "--settings"} & {*words}:
        settings = {**SMALL, "eval_steps": "1", "average_last": "2"} if _keeps_an_average(rest) else SMALL
        small += [part for key, value in settings.items() for part in (f"--{key}", value)]
    replaced = {option.split(".")[-1].removeprefix("--") for option in small if option.startswith("--")}
    kept: list[str] = []
    while rest:
        word = rest.pop(0)
        if word.startswith("--") and word.split(".")[-1].removeprefix("--") in replaced:
            rest.pop(0)
        else:
            kept.append(word)
    return [*kept, *small]


def _keeps_an_average(arguments: list[str]) -> bool:
    context = _read(arguments)
    path, overrides = context.params.get("config"), read_overrides(context.args)
    is_run = context.info_name in ("train", "plan")
    return is_run and load_config(path, overrides=overrides).evaluation.keep == "average"
