"""Sets of other kinds from packages and pages: how they are labelled, what is left out, files that embedsmith reads."""

import json
from pathlib import Path

import pytest

from embedsmith.data.beir import load_retrieval_set
from embedsmith.data.clusters import load_clustering_set
from embedsmith.data.local_sets import SetKind, find_local_sets
from embedsmith.data.pairs import load_duplicates
from examples import beyond_sts
from examples.beyond_sts import by_key, clusters, duplicates, key_of, main, read_sections
from examples.documentation import Entry

FRAME = {
    "frames_a": {
        "head": "Return the first rows of it.",
        "tail": "Return the last rows of it.",
        "total": "Add up all values by column.",
        "to_list": "Make a plain list of values.",
        "isna": "An alias for nothing else.",
    },
    "frames_b": {
        "head": "Get some rows from the top.",
        "tail": "Get some rows from the end.",
        "total": "Add up all values by row.",
        "tolist": "Give back values as Python knows them.",
        "isna": "Say where values are missing.",
    },
}


def _write(folder: Path, name: str, source: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(source, encoding="utf-8")


def _rest(thing: str) -> str:
    """What is said of a thing besides, in words that no other has."""
    return " ".join(f"{thing}{number}" for number in range(12))


def _function(name: str, sentence: str, *, rest: str = "") -> str:
    return f'def {name}(x):\n    """{sentence}\n\n    {rest}\n    """\n'


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(beyond_sts, "MIN_TEXTS", 2)
    for subject in ("rain", "wind"):
        things = [f"{subject}{number}" for number in range(3)]
        functions = [_function(one, f"Count every {one} of a {subject[:2]} day.", rest=_rest(one)) for one in things]
        named = _function("own", f"Measure the library_{subject} at night.", rest=_rest("night"))
        _write(tmp_path, f"library_{subject}", "".join([*functions, named]))
    _write(tmp_path, "parted", "")
    for part in ("fft", "fftpack", "few", "sums"):
        things = ["one"] if part == "few" else [f"{part}{number}" for number in range(2)]
        source = "".join(_function(f"f{one}", f"Take {one} from what {one} gave.", rest=_rest(one)) for one in things)
        (tmp_path / "parted" / f"{part}.py").write_text(source, encoding="utf-8")
    for name, sentences in FRAME.items():
        source = "".join(_function(one, text).replace("\n", "\n    ") for one, text in sentences.items())
        _write(tmp_path, name, f"class DataFrame:\n    {source.rstrip()}\n")
    (tmp_path / "pages").mkdir()
    text = "Rain falls on the roof all day, and nobody counts the drops that it has."
    code = "```bash\n## no heading here\n```"
    page = f"# Weather\n\nAll of it.\n\n## How rain falls\n\n{text}\n\n{code}\n\n## Wind\n\n{text}\n"
    (tmp_path / "pages" / "weather.md").write_text(page, encoding="utf-8")
    return tmp_path


ARGUMENTS = [
    *("--out", "made", "--libraries", "library_rain", "library_wind", "--parted", "parted"),
    *("--frames", "frames_a", "frames_b", "--pages", "pages"),
]


def test_what_is_made_is_of_every_kind(packages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(ARGUMENTS)
    assert capsys.readouterr().out == "6 libraries, 6 parted, 6 dataframes, 1 pages -> made\n"
    found = find_local_sets(Path("made"))
    assert {name: one.kind for name, one in found.items()} == {
        "dataframes": SetKind.DUPLICATES,
        "libraries": SetKind.CLUSTERS,
        "parted": SetKind.CLUSTERS,
        "pages": SetKind.RETRIEVAL,
    }
    libraries = load_clustering_set(found["libraries"].path)
    assert sorted(set(libraries.labels)) == ["library_rain", "library_wind"]
    assert not any("library" in text for text in libraries.texts)  # a sentence that names its label is left out
    assert sorted(load_clustering_set(found["parted"].path).labels) == ["fft"] * 4 + ["sums"] * 2
    pages = load_retrieval_set(found["pages"].path)
    assert list(pages.queries.values()) == ["How rain falls"]
    assert list(pages.documents.values()) == [
        ("weather.md", "Rain falls on the roof all day, and nobody counts the drops that it has.")
    ]
    told = json.loads(Path("made/packages.json").read_text(encoding="utf-8"))
    assert told["frames_a"] == {"version": None, "entries": 5}


def test_pairs_are_of_one_name_beside_near_ones_of_another(packages: Path) -> None:
    main(ARGUMENTS)
    found = load_duplicates(Path("made/dataframes.jsonl"))
    rows = list(zip(found.sentence1, found.sentence2, found.scores, strict=True))
    a, b = FRAME["frames_a"], FRAME["frames_b"]
    assert rows == [
        (a["head"], b["head"], 1),
        (a["head"], b["tail"], 0),  # shares two words, as no other does
        (a["tail"], b["tail"], 1),
        (a["tail"], b["head"], 0),
        (a["to_list"], b["tolist"], 1),
        (a["to_list"], b["total"], 0),
    ]  # "total": it shares four of six words; "isna": an alias


def test_keys_join_what_stands_for_the_same() -> None:
    def key(name: str) -> tuple[str, str] | None:
        return key_of(Entry(name, "", ""))

    assert key("pandas.core.strings.accessor.StringMethods.startswith") == ("strings", "startswith")
    assert key("polars.expr.string.ExprStringNameSpace.starts_with") == ("strings", "startswith")
    assert key("polars.io.csv.read_csv") == key("pandas.io.parsers.readers.read_csv") == ("function", "readcsv")
    assert key("pandas.core._internal.read_csv") is None
    assert key("pandas.core.frame.Styler.bar") is None


def test_functions_under_two_names_are_no_pair_apart() -> None:
    first = [Entry(f"a.DataFrame.{name}", "Merge two tables by a key.", "") for name in ("join", "merge")]
    second = [Entry(f"b.DataFrame.{name}", "Put tables side by side.", "") for name in ("join", "merge")]
    assert duplicates(by_key({"a": first, "b": second})) == []


def test_near_copies_and_small_labels_are_left_out() -> None:
    texts = {"a.x": "one thing here", "a.y": "one thing here", "b.x": "another thing there", "c.x": "few"}
    entries = [Entry(name, text, text * 3) for name, text in texts.items()]
    assert clusters(entries * 15, label_of=lambda entry: entry.name[0]) == [("one thing here", "a")]


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        (["--frames", "frames_a", "frames_nowhere"], "The package frames_nowhere is not installed"),
        (["--frames", "frames_a"], "Too little is documented there for duplicates"),
        (["--libraries", "library_rain"], "Too little is documented there for libraries"),
        (["--pages", "nowhere"], "No page of nowhere has a heading with a text"),
    ],
)
def test_faults_are_said(packages: Path, changed: list[str], fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*ARGUMENTS, *changed])
    assert stopped.value.code == 2
    assert fault in capsys.readouterr().err
    assert not Path("made").exists()


def test_the_projects_own_pages_have_sections() -> None:
    assert len(read_sections(Path("docs"))) > 20
