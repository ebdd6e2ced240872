"""Every command, Python snippet and recipe of the pages runs, in small, or says in front of it why it does not.

Page by page, in the order in which they stand, in a folder with stand-ins of what the pages name (`stage.py`).
"""

import ast
import re
import shlex
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from benchmarks.quality import FIVE
from embedsmith.evaluation import sts
from embedsmith.model.loading import builtin, shipped
from embedsmith.settings import recipe
from embedsmith.settings.yaml_text import parse_yaml
from embedsmith.verbs.optimize_space import SearchConfig, make_search
from tests.docs.commands import SMALL, TOOLS, check, commands_of
from tests.docs.pages import PAGES, ROOT, Block, code
from tests.docs.running import run
from tests.docs.stage import build_stage

GENERATED = ("docs/commands.md", "docs/settings.md", "docs/recipes.md")
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items() if name not in GENERATED}
FROM_THE_README = "embedsmith train --output_dir runs/mine --data.train 'mine/*.jsonl' --evaluation.dev dev.tsv"
GO_ON_WITH_THE_README = ("corpora", "evaluation", "export", "serving", "symptoms", "vectors")
BEST = "embedsmith train --config recipes/smollm2-135m-best.yaml --output_dir"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
EARLIER = {
    **{f"docs/{page}.md": [FROM_THE_README] for page in GO_ON_WITH_THE_README},
    "docs/domain.md": ["embedsmith train --config recipes/smollm2-135m-nli.yaml"],
    "docs/quality.md": [
        *(f"{BEST} runs/{name}" for name in ("both-ways", "directions", "directions-seed-8")),
        f"embedsmith evaluate {MINILM} --data sts --out minilm.json --tasks {' '.join(FIVE)}",
    ],
}
"""What a page goes on with: commands of other pages."""
NEEDS = {"docs/export.md": ["onnx", "onnxscript", "onnxruntime"]}
"""Packages that a page is about."""
LANGUAGES = ("bash", "python", "yaml", "text")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_stage(tmp_path_factory.mktemp("stage"))


@pytest.fixture
def here(stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder; the small model stands for the built-in ones, the hub's cache holds the others."""
    for path in (stage / "data").iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDSMITH_CACHE", str(stage))
    monkeypatch.setitem(builtin.BUILTIN, "gemma3-270m", builtin.BUILTIN["smollm2-135m"])
    monkeypatch.setattr(shipped, "_FOLDER", stage / "shipped")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(stage / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sts, "NUM_DRAWS", 200)
    return tmp_path


def test_what_pages_go_on_with_stands_on_the_readme() -> None:
    assert FROM_THE_README in TEXTS["README.md"]


@pytest.mark.parametrize("page", TEXTS)
def test_what_a_page_shows_works(
    page: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    for package in NEEDS.get(page, []):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'embedsmith[onnx]'")
    for earlier in EARLIER.get(page, []):
        assert run(shlex.split(earlier)) == 0, f"{earlier}: {capsys.readouterr().err}"
    for span in code(TEXTS[page]):
        if isinstance(span.code, Block) and span.code.language == "yaml":
            _check_yaml(parse_yaml(span.code.text))
        elif isinstance(span.code, Block) and span.code.language == "python":
            with monkeypatch.context() as patch:
                patch.setattr(recipe, "load_config", _load_small)
                _run_python(_imports(span.code) if span.code.not_run else span.code, names, where=f"{page}:{span.line}")
        for command in commands_of(span):
            _check(command.words, where=f"{page}:{command.line}")
            if command.not_run is None:
                assert run(command.words) == 0, f"{page}:{command.line}: {capsys.readouterr().err}"


def _check_yaml(values: dict[str, Any]) -> None:
    """A recipe, or the file of a search."""
    if "space" in values:
        base = str(ROOT / "recipes" / "methods" / "base.yaml")
        make_search(SearchConfig.model_validate({**values, "recipe": base}))
    else:
        recipe.parse_config({"output_dir": "runs/any", **values})


def _check(words: list[str], *, where: str) -> None:
    try:
        check(words)
    except Exception as error:
        pytest.fail(f"{where}: {' '.join(words)}\n{getattr(error, 'message', error)}")


def _run_python(block: Block, names: dict[str, Any], *, where: str) -> None:
    try:
        exec(compile(block.text, where, "exec"), names)
    except Exception:
        pytest.fail(f"{where}: {traceback.format_exc()}")


def _imports(block: Block) -> Block:
    """What is left of a snippet that is not run: it is Python, and what it imports is there."""
    kept = [node for node in ast.parse(block.text).body if isinstance(node, ast.Import | ast.ImportFrom)]
    return replace(block, text=ast.unparse(kept))


def _load_small(*arguments: Any, overrides: dict[str, str], load: Any = recipe.load_config) -> Any:
    return load(*arguments, overrides={**overrides, **SMALL})


@pytest.mark.parametrize("page", TEXTS)
def test_what_other_tests_run_is_named_there(page: str) -> None:
    for span in code(TEXTS[page]):
        names = [(command.not_run, _name_of(command.words)) for command in commands_of(span) if command.not_run]
        if isinstance(span.code, Block) and span.code.language == "python":
            names = [(said, "") for said in span.code.not_run]
        for said, name in names:
            if said.by and name not in ("pip", "make"):
                where = f"{page}:{span.line}: {said.by}"
                assert (ROOT / said.by).is_file(), f"{where} is not there"
                assert name in (ROOT / said.by).read_text(encoding="utf-8"), f"{where} has no {name}"


def _name_of(words: list[str]) -> str:
    """What a test that runs a command has to name: the verb, the module, or the launcher."""
    match words:
        case ["embedsmith", "data", verb, *_] | ["embedsmith", verb, *_]:
            return verb
        case ["python", "-m", module, *_]:
            return module.rpartition(".")[2]
        case _:
            return words[0]


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda path: path.stem)
def test_commands_in_a_recipe_s_comments_can_be_run(path: Path) -> None:
    """Indented in a comment, or in backticks; several with && between."""
    comments = [line[1:] for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    shown = [line for line in comments if line.startswith("   ")] + re.findall("`([^`]*)`", " ".join(comments))
    for command in (part.strip() for line in shown for part in line.split(" && ")):
        if command.split(" ")[0] in TOOLS:
            _check(shlex.split(command), where=path.name)


@pytest.mark.parametrize("page", TEXTS)
def test_every_block_says_what_it_is(page: str) -> None:
    """So that no command hides in a block that is not looked at."""
    for span in code(TEXTS[page]):
        if isinstance(span.code, Block):
            assert span.code.language in LANGUAGES, f"{page}:{span.line}: write one of {LANGUAGES} behind the fence"
            is_text = span.code.language == "text"
            assert not (is_text and "embedsmith " in span.code.text), f"{page}:{span.line}: a command in a text block"


@pytest.mark.parametrize(
    "command",
    [
        "embedsmith trian --config recipes/methods/base.yaml",
        "embedsmith evaluate smollm2-135m --tusks STS12",
        "embedsmith evaluate",
        "embedsmith --instal-completion",
        "embedsmith train --config recipes/nothing.yaml",
        "embedsmith train --config recipes/methods/base.yaml --batch_syze 3",
        "embedsmith train --config recipes/methods/base.yaml --batch_size many",
        "torchrun --nproc-per-node 4 -m embedsmith train --config recipes/nothing.yaml",
        "make nothing",
        "pip install 'embedsmith[nothing]'",
        "python -m benchmarks.nothing",
        "python -m benchmarks --nothing",
        "cp a b",
    ],
)
def test_a_command_that_cannot_run_is_seen(command: str) -> None:
    words = shlex.split(command)
    if len(words) > 2 or words[0] != "embedsmith":
        with pytest.raises(pytest.fail.Exception):
            _check(words, where="here")
