"""The documentation example: what becomes a pair, what is left out, and files that embedsmith reads."""

import json
from pathlib import Path

import numpy as np
import pytest

from embedsmith.data.beir import load_retrieval_set
from embedsmith.data.triplets import load_triplets
from examples.documentation import main, read_package

FUNCTION = '''
def {name}(x):
    """{sentence}

    {rest}

    Examples
    --------
    >>> {name}(1)
    """
'''
RAIN = "Drops are counted for every minute of the day, and what falls at night is put to the day before it."
WIND = "A vane turns with the air, its angle is read every second, and gusts are those above ten metres."


def _write(folder: Path, name: str, *functions: tuple[str, str, str]) -> None:
    (folder / name / "tests").mkdir(parents=True)
    source = "".join(FUNCTION.format(name=one, sentence=sentence, rest=rest) for one, sentence, rest in functions)
    (folder / name / "__init__.py").write_text(source, encoding="utf-8")
    (folder / name / "tests" / "one.py").write_text(source, encoding="utf-8")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    rain, wind = ("rain", "Measure how much it rains."), ("wind", "Say where the wind comes from.")
    _write(tmp_path, "weather_a", (*rain, RAIN), (*wind, WIND), ("sun", "Say how long the sun shines.", RAIN))
    _write(tmp_path, "weather_b", (*rain, RAIN), ("rains", "Measure how much it RAINS!", WIND))
    _write(tmp_path, "weather_c", (*wind, WIND), ("gust", "Find gusts.", WIND), ("fog", "See through the fog.", "No."))
    return tmp_path


ARGUMENTS = ["--out", "made", "--train", "weather_a", "--dev", "weather_b", "--test", "weather_c"]


def test_what_is_made_trains_and_scores(packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(ARGUMENTS)
    assert capsys.readouterr().out == "2 train, 1 dev, 1 test -> made\n"  # one of two with a passage or a query
    table = load_triplets(["made/train.jsonl"])
    assert table.rows(np.array([0])).texts[0][:2] == ("Measure how much it rains.", f"weather_a weather_a.rain {RAIN}")
    test = load_retrieval_set(Path("made/test"))
    assert test.documents == {"weather_c.wind": ("weather_c weather_c.wind", WIND)}
    assert test.queries == {"weather_c.wind": "Say where the wind comes from."}
    assert test.judgements == {"weather_c.wind": {"weather_c.wind": 1}}
    told = json.loads(Path("made/packages.json").read_text(encoding="utf-8"))
    assert told["train"] == {"weather_a": {"version": None, "entries": 2}}


def test_markup_sections_and_private_names_are_left_out(packages: Path) -> None:
    rest = f"See :class:`~a.b.Rain` and ``x`` or [`y`]. {RAIN}\n    Parameters\n    ----------\n    x : int"
    hidden = ("_hidden", "Measure how much it rains.", RAIN)
    _write(packages, "weather_e", ("rain", "Measure, e.g. by `drops`, how it rains. Twice.", rest), hidden)
    with (packages / "weather_e" / "__init__.py").open("a") as file:
        file.write(FUNCTION.format(name="rain", sentence="Set how much it is to rain.", rest=RAIN))  # as a setter is
    (found,) = read_package("weather_e")
    assert found.query == "Measure, e.g. by drops, how it rains."
    assert found.passage == f"Twice. See a.b.Rain and x or y. {RAIN} Parameters x : int"


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (["--test", "weather_nowhere"], "The package weather_nowhere is not installed"),
        (["--test", "weather_a"], "weather_a stands twice"),
        (["--test", "weather_silent"], "No function of the packages for test has a sentence and a description"),
    ],
)
def test_faults_are_said(packages: Path, changed: list[str], fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    _write(packages, "weather_silent")
    with pytest.raises(SystemExit) as stopped:
        main([*ARGUMENTS, *changed])
    assert stopped.value.code == 2
    assert fault in capsys.readouterr().err
    assert not Path("made").exists()
