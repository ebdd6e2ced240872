"""Tables, headings, links and names of the pages hold."""

import re
import tomllib
from pathlib import Path

import pytest

import benchmarks
import embedsmith
from docs.generate import commands
from embedsmith.model.doctor import examine
from embedsmith.model.embedder import Embedder
from embedsmith.settings.config import RunConfig
from embedsmith.settings.recipe import known_keys
from tests.docs.pages import PAGES, ROOT, anchors, code, links, rows, table_faults
from tests.published_embedders import save_embedding_gemma

SOURCE = ROOT / "src" / "embedsmith"
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
FILES = [
    str(path.relative_to(ROOT))
    for folder in ("src", "recipes", "tests", "benchmarks", "docs", "examples", "release")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
]


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_well_formed(page: str) -> None:
    assert table_faults(TEXTS[page]) == []


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("| a | b |\n| --- | --- |\n| 1 | 2 |\n| `x\\|y` | |", []),
        ("| a | b |\n| --- |\n| 1 | 2 |", ["line 1: no table"]),
        ("| a | b |\n| 1 | 2 |", ["line 1: no table"]),
        ("| a | b |\n| --- | --- |\n| 1 |", ["line 3: 1 cells under a header of 2"]),
        ("| a | b |\n| --- | --- |\n| `x|y` | 2 |", ["line 3: 3 cells under a header of 2"]),
    ],
)
def test_a_table_that_is_not_is_seen(table: str, fault: list[str]) -> None:
    found = table_faults(f"{table}\n")
    assert len(found) == len(fault)
    assert all(one.startswith(start) for one, start in zip(found, fault, strict=True))


@pytest.mark.parametrize("page", PAGES)
def test_headings_have_anchors_of_their_own(page: str) -> None:
    assert len(anchors(TEXTS[page])) == len(set(anchors(TEXTS[page])))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    here = [link for link in links(TEXTS[page]) if not link.startswith("https://")]
    for target, anchor in (link.partition("#")[::2] for link in here):
        path = (PAGES[page].parent / target).resolve() if target else PAGES[page]
        assert path.exists() and path.is_relative_to(ROOT), f"{page} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), f"{page} links to {target}#{anchor}"


def test_every_page_and_picture_is_reached_from_the_readme() -> None:
    reached, to_read = set(), [PAGES["README.md"]]
    while to_read:
        path = to_read.pop()
        if path in reached:
            continue
        reached.add(path)
        if path.suffix == ".md":
            targets = [link.partition("#")[0] for link in links(path.read_text(encoding="utf-8"))]
            to_read += [(path.parent / target).resolve() for target in targets if target and ":" not in target]
    assert {*PAGES.values(), *(ROOT / "docs" / "images").iterdir()} <= reached


@pytest.mark.parametrize("page", PAGES)
def test_files_named_in_code_are_there(page: str) -> None:
    spans = [span.code for span in code(TEXTS[page]) if isinstance(span.code, str)]
    ours = re.compile(r"(src|recipes|tests|benchmarks|docs|examples)/[\w./-]+|[\w/]+\.(py|c|h)")
    for name in filter(ours.fullmatch, spans):
        path = name.rstrip("/")
        is_there = (ROOT / path).exists() or any(f"/{file}".endswith(f"/{path}") for file in FILES)
        assert is_there or "NAME" in name, f"{page} names {name}"


@pytest.mark.parametrize("page", PAGES)
def test_settings_and_options_named_in_code_are_known(page: str) -> None:
    sections = "|".join(key.split(".")[0] for key in known_keys() if "." in key)
    setting = re.compile(rf"({sections})\.\w+(?=$|:| |=)")
    options = {
        option
        for command in commands().values()
        for parameter in getattr(command, "params", [])
        for option in [*parameter.opts, *parameter.secondary_opts]
    }
    leaves = {f"--{key.split('.')[-1]}" for key in known_keys()}
    known = {*options, *leaves, *(f"--{key}" for key in known_keys()), "--help"}
    for text in (span.code for span in code(TEXTS[page]) if isinstance(span.code, str)):
        if named := setting.match(text):
            assert named[0] in known_keys(), f"{page} names the setting {named[0]}"
        if text.startswith("--"):
            assert re.split("[ ,=]", text)[0] in known, f"{page} names the option {text}"


# ---- lists of what there is -----------------------------------------------------------------------------------------


def test_the_list_of_files_is_whole() -> None:
    """Every Python file stands in docs/design.md#the-files under its folder, and no other."""
    (listing,) = [
        span.code.text
        for span in code(TEXTS["docs/design.md"])
        if not isinstance(span.code, str) and span.code.text.startswith("src/embedsmith/")
    ]
    there = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if path.name not in ("__main__.py",)}
    packages = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("__init__.py")}
    assert _listed(listing, suffix=r"\w+\.(?:py|c|h)") - packages >= there - packages
    assert all((SOURCE / name).exists() for name in _listed(listing, suffix=r"\w+\.(?:py|c|h)"))
    folders = {str(path.parent.relative_to(SOURCE)) for path in SOURCE.rglob("__init__.py")} - {"."}
    assert {name.rstrip("/") for name in _listed(listing, suffix=r"\w+/$")} == folders


def _listed(listing: str, *, suffix: str) -> set[str]:
    """Paths of the names in a tree drawn with two spaces a level; a line may name several files."""
    found, open_folders = set(), []
    for line in listing.splitlines()[1:]:
        level = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        if name.endswith("/"):
            open_folders = [*open_folders[: level - 1], name]
            found |= {"".join(open_folders)} if re.fullmatch(suffix, name) else set()
        found |= {
            "".join(open_folders[: level - 1]) + one for one in re.findall(rf"\b{suffix}", line) if "/" not in one
        }
    return found


def test_docstrings_that_list_files_list_all_of_them() -> None:
    package = re.findall(r"^    (\w+)/ ", embedsmith.__doc__ or "", re.MULTILINE)
    assert sorted(package) == sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
    listed = set(re.findall(r"\b\w+\.py\b", benchmarks.__doc__ or ""))
    assert listed == {path.name for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__.py"}


def test_every_extra_is_explained() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert sorted(row[0] for row in rows(TEXTS["docs/installation.md"])) == sorted(extras)


def test_every_check_of_the_doctor_is_explained(llama: Embedder, tmp_path: Path) -> None:
    published = Embedder.load(str(save_embedding_gemma(tmp_path / "published")))
    found = {finding.check for embedder in (llama, published) for finding in examine(embedder).findings}
    explained = {row[0] for row in rows(TEXTS["docs/doctor.md"])}
    assert found - {"prompt of queries"} == explained


def test_sections_of_the_settings_are_explained() -> None:
    assert {name for name in RunConfig.model_fields if name != "output_dir"} <= set(anchors(TEXTS["docs/settings.md"]))
