"""What the command line says of itself."""

import subprocess
import sys

import pytest
import typer

import embedsmith
from embedsmith.cli import run_command
from embedsmith.cli.app import IN_ORDER, app


def test_commands_stand_in_the_order_in_which_they_are_used() -> None:
    group = typer.main.get_command(app)
    names = group.list_commands(typer.Context(group))
    assert not set(names) - {*IN_ORDER}  # a new command needs a place
    assert names == [name for name in IN_ORDER if name in names]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"embedsmith {embedsmith.__version__}\n"


def test_help_needs_nothing_but_the_command_line() -> None:
    """Nothing that a command alone needs: each of these takes longer than all of the help."""
    script = "import sys, embedsmith.cli as cli; cli.run_command(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = done.stderr.split()
    assert "embedsmith.cli" in modules
    heavy = {"torch", "transformers", "numpy", "pyarrow", "pydantic", "yaml"}
    assert not heavy & {*modules}
    rooms = {".".join(name.split(".")[1:3]) for name in modules if name.startswith("embedsmith.")}
    assert {name for name in rooms if not name.startswith(("cli", "support"))} == {"settings", "settings.choices"}
