"""The command line: parses, calls a verb, prints. Errors a user can fix end in a short message and exit code 2."""

import errno
import logging
import os
import shlex
import sys
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from typing import get_args, get_type_hints

import typer

from embedsmith.cli import (  # noqa: F401 (each adds its commands to the application)
    average_commands,
    data_commands,
    encode_command,
    evaluate_commands,
    export_commands,
    init_command,
    mine_command,
    model_commands,
    optimize_command,
    push_command,
    result_commands,
    search_command,
    serve_command,
    sweep_commands,
)
from embedsmith.cli.app import app, data_app
from embedsmith.support import files
from embedsmith.support.allocator import keep_freed_memory
from embedsmith.support.errors import ConfigError, EmbedsmithError, Interrupted, is_out_of_memory
from embedsmith.support.processor import share_processor

_INTERRUPTED = 130
_COMPLETION = "_EMBEDSMITH_COMPLETE"
"""Environment variable by which a shell asks for what may stand next; typer answers."""
_GO_ON_BY_THEMSELVES = ("sweep", "optimize", "encode")
"""Commands that go on where they were when they are given again."""
_LISTS = (
    *("--tasks", "--prompts", "--marks", "--dims", "--grid", "--task-types", "--languages", "--against"),
    *("--weights", "--corpus", "--candidates", "--calibration"),
)


def main() -> None:
    """Entry point of the `embedsmith` command."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("embedsmith").setLevel(logging.INFO)
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no reason to stop
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if _COMPLETION in os.environ:  # a description of several lines would be taken for several words
        os.environ["COLUMNS"] = "10000"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    share_processor()
    keep_freed_memory()
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command; returns its exit code: 0, 2 for what the user can fix, 130 for Ctrl-C, 143 for SIGTERM."""
    try:
        # typer answers Ctrl-C with this exit code, and with None when all went well
        _check_paths(arguments)
        if app(_spread_lists(arguments), prog_name="embedsmith", standalone_mode=False) == _INTERRUPTED:
            raise KeyboardInterrupt
    except EmbedsmithError as error:
        return _fail(str(error))
    except Interrupted as stop:
        if os.environ.get("RANK", "0") == "0":
            _fail(f"{stop}\nGo on with:\n  {_going_on(arguments, run=stop.folder)}")
        return 128 + stop.signal
    except (typer.Abort, KeyboardInterrupt):
        _fail("Stopped. A run that has checkpoints goes on with: embedsmith train --resume RUN")
        return _INTERRUPTED
    except OSError as error:
        if files.is_disk_full(error):
            what, advice = files.describe_full(error)
            return _fail(f"The disk is full: {what}.\n{advice} and start again.")
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            return _fail(f"Not allowed to write {error.filename or error}.\nChoose another place.")
        if error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP):
            name = str(error.filename or error)
            return _fail(f"{name if len(name) < 200 else name[:200] + '...'}: {error.strerror}.\nCheck the path.")
        raise
    except Exception as error:
        # click's own errors (a missing argument, an unknown option) know how to show themselves.
        if hasattr(error, "format_message"):
            return _fail(f"{error.format_message()}\nSee embedsmith --help.")
        if is_out_of_memory(error):
            reason, *_ = (str(error) or "no more can be had").split("\n")
            return _fail(
                f"The memory is full: {reason}\nIn training, lower training.max_tokens, with the same results; else "
                "take a smaller model, or bf16 in the place of fp32."
            )
        raise
    return 0


def _going_on(arguments: list[str], *, run: str) -> str:
    """The command that goes on with what a signal has ended."""
    if arguments[0] not in _GO_ON_BY_THEMSELVES:
        given = dict(pairwise([*arguments, ""]))
        device = next((one for one in arguments if one.startswith("--device=")), None)
        devices = [device] if device else ["--device", given["--device"]] if "--device" in given else []
        arguments = ["train", "--resume", run, *devices]
    processes = os.environ.get("WORLD_SIZE", "1")
    launcher = "embedsmith" if processes == "1" else "torchrun ... -m embedsmith"
    if 1 < int(processes) == int(os.environ.get("LOCAL_WORLD_SIZE", "0")):
        launcher = f"torchrun --nproc-per-node {processes} -m embedsmith"
    return f"{launcher} {shlex.join(arguments)}"


def _spread_lists(arguments: list[str]) -> list[str]:
    """`--tasks A B` -> `--tasks A --tasks B`: several values may stand behind one of `_LISTS`.

    Raises:
        ConfigError: none stands there.
    """
    spread: list[str] = []
    option: str | None = None
    for place, argument in enumerate(arguments):
        if argument == "--":  # from here on all are names
            return spread + arguments[place:]
        if argument.startswith("-"):
            option = argument if argument in _LISTS else None
            following = arguments[place + 1] if place + 1 < len(arguments) else "--"
            if option and following.startswith("--"):
                raise ConfigError(f"{option} has no value. Write one behind it, or leave it away.")
            spread += [] if option else [argument]
        else:
            spread += [option, argument] if option else [argument]
    return spread


def _check_paths(arguments: list[str]) -> None:
    """Raise ConfigError for an empty path behind an option: to Path it would be the folder at work."""
    options = _path_options()
    for option, following in pairwise([*arguments, "--"]):
        name, has_value, value = option.partition("=")
        if name in options and not (value if has_value else following).strip():
            raise ConfigError(f"{name} is empty.\nIs a variable of your shell not set?")


def _path_options() -> set[str]:
    """The options, of any command, that name a file or folder."""
    hints = (
        hint
        for commands in (app, data_app)
        for command in commands.registered_commands
        if command.callback
        for hint in get_type_hints(command.callback, include_extras=True).items()
    )
    kinds = {name: get_args(hint)[0] for name, hint in hints if get_args(hint)}
    return {f"--{name.replace('_', '-')}" for name, kind in kinds.items() if Path in (kind, *get_args(kind))}


def _fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 2
