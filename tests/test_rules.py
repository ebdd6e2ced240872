"""Rules of the house, as tests: directions of imports, recipes that parse, settings that are read, a light import."""

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from embedsmith.settings.recipe import known_keys, load_config

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "embedsmith"
FOLDERS = {"": "runs", "methods": "runs", "paper": "runs/paper"}
"""Of recipes -> where their runs go."""
RECIPES = {path: runs for name, runs in FOLDERS.items() for path in sorted((ROOT / "recipes" / name).glob("*.yaml"))}
BASE = {"support", "settings", "records"}
PATH = {"model", "model.loading", "model.layers", "model.layers.fused"}
MAY_IMPORT = {
    "support": set[str](),
    "settings": {"support"},
    "records": {"support"},
    "data": BASE,
    "model.layers": BASE,
    "model.layers.fused": {"model.layers", *BASE},
    "model.loading": {"model.layers", *BASE},
    "model": {*PATH, *BASE},
    "training": {*PATH, "data", *BASE},
    "evaluation": {*PATH, "data", *BASE},
    "reporting": BASE,
    "export": {*PATH, "data", *BASE},
    "serving": {*PATH, *BASE},
    "verbs": {*PATH, "data", "training", "evaluation", "reporting", "export", "serving", *BASE},
    "cli": {*PATH, "data", "evaluation", "reporting", "export", "serving", "verbs", *BASE},
}
"""Folder -> the folders above it that it may import from; a folder that is not here has no place in the house."""


def _module(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module(path): path for path in sorted(SOURCE.rglob("*.py"))}


def _imports(module: str) -> set[str]:
    """Our own modules that a module names in any import: at its top, inside a function, or for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are written in full"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (whole & MODULES.keys()) or {node.module or ""}
    return found & MODULES.keys()


def _folder(module: str) -> str:
    """`embedsmith.model.layers.dropout` -> `model.layers`."""
    return _module(MODULES[module].parent / "__init__.py").removeprefix("embedsmith").removeprefix(".")


@pytest.mark.parametrize("module", [module for module in MODULES if _folder(module)])
def test_a_module_imports_only_from_its_folder_and_those_above(module: str) -> None:
    folder = _folder(module)
    assert {_folder(other) for other in _imports(module)} <= {folder, *MAY_IMPORT[folder]}


def test_there_is_no_import_circle() -> None:
    TopologicalSorter({module: _imports(module) for module in MODULES}).prepare()


def test_data_knows_no_torch() -> None:
    for path in (SOURCE / "data").glob("*.py"):
        assert "torch" not in path.read_text(encoding="utf-8").replace("No torch here", ""), path.name


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses(path: Path) -> None:
    config = load_config(path)
    assert load_config(overrides={"output_dir": "x"}) != config
    assert config.output_dir == f"{RECIPES[path]}/{path.stem}"


@pytest.mark.parametrize("key", known_keys())
def test_every_setting_is_read_somewhere(key: str) -> None:
    leaf = key.split(".")[-1]
    code = "\n".join(path.read_text() for path in SOURCE.rglob("*.py") if path.parent.name != "settings")
    assert re.search(rf"\.{leaf}\b", code), f"{key} is never read"


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, embedsmith; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_exists() -> None:
    import embedsmith

    for name in embedsmith.__all__:
        assert getattr(embedsmith, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        embedsmith.nothing  # noqa: B018


@pytest.mark.parametrize("module", MODULES)
def test_only_line_feeds_part_lines(module: str) -> None:
    """`str.splitlines` parts at U+2028, U+0085 and more, which are characters of a text."""
    of_other_programs = {
        "embedsmith.model.layers.fused.build",
        "embedsmith.model.loading.configuration",
        "embedsmith.support.free_memory",
    }
    assert module in of_other_programs or "splitlines" not in MODULES[module].read_text(encoding="utf-8")
