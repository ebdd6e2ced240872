"""What a shell is told that may stand next: commands, options, values; at the price of the command line alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """#!{python}
import sys
from embedsmith.cli import main
try:
    main()
finally:
    assert not {{"torch", "transformers", "numpy", "pyarrow"}} & {{*sys.modules}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with the command in `bin`."""
    folder = tmp_path_factory.mktemp("home")
    command = folder / "bin" / "embedsmith"
    command.parent.mkdir()
    command.write_text(SCRIPT.format(python=sys.executable))
    command.chmod(0o755)
    return folder


def _environment(home: Path, **more: str) -> dict[str, str]:
    places = {"HOME": str(home), "PATH": f"{home / 'bin'}:{os.environ['PATH']}"}
    return {**os.environ, **places, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}


def _bash(script: str, home: Path) -> str:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    command = [bash, "--norc", "-c", f"{script}\ntrue"]  # not its last command, for which it would make room
    done = subprocess.run(command, env=_environment(home), capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout


def test_bash_completes_by_what_was_installed(home: Path) -> None:
    assert "bash completion installed in" in _bash("embedsmith --install-completion", home)
    assert "embedsmith" in (home / ".bashrc").read_text()
    ask = "source ~/.bashrc; COMP_WORDS=({words}); COMP_CWORD={place}; _embedsmith_completion embedsmith; echo {reply}"
    asked = [("embedsmith tr", 1), ("embedsmith data st", 2), ("embedsmith encode --text", 2)]
    found = _bash(
        "\n".join(ask.format(words=words, place=place, reply='"${COMPREPLY[@]}"') for words, place in asked), home
    )
    assert found == "train\nstats\n--text-column\n"


def test_the_script_is_shown(home: Path) -> None:
    assert "complete -o default -F _embedsmith_completion embedsmith" in _bash("embedsmith --show-completion", home)


@pytest.mark.parametrize(
    ("shell", "words", "expected"),
    [
        ("fish", "embedsmith tr", "train\tTrain an adapter into a run folder.\n"),
        ("fish", "embedsmith encode --engine ", "local\nray\n"),
        ("zsh", "embedsmith tr", """_arguments '*: :(("train":"Train an adapter into a run folder."))'\n"""),
        ("zsh", "embedsmith encode m --out x mine/", "_files\n"),
    ],
)
def test_others_are_answered(shell: str, words: str, expected: str, home: Path) -> None:
    asked = {"_EMBEDSMITH_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    environment = _environment(home, **asked, _TYPER_COMPLETE_ARGS=words)
    done = subprocess.run([home / "bin" / "embedsmith"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == expected


def test_a_description_is_one_line(home: Path) -> None:
    asked = {"_EMBEDSMITH_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    environment = _environment(home, **asked, _TYPER_COMPLETE_ARGS="embedsmith encode --")
    done = subprocess.run([home / "bin" / "embedsmith"], env=environment, capture_output=True, text=True, check=True)
    lines = done.stdout.removesuffix("\n").split("\n")
    assert len(lines) > 15
    assert all(line.startswith("--") for line in lines)
