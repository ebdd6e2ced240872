"""Rules of the house, as tests: directions of imports, recipes that parse, settings that are read, a light import."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from embedsmith.recipe import known_keys, load_config

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "embedsmith"
RECIPES = sorted([*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "recipes" / "methods").glob("*.yaml")])
BASE = {"errors", "files", "config", "families", "prompts", "recipe", "results", "findings", "data_facts"}
MAY_IMPORT = {
    "data": {"data"},
    "model": {"model"},
    "training": {"training", "model", "data"},
    "evaluation": {"evaluation", "data"},
    "reporting": {"reporting"},
    "export": {"export", "model", "data"},
}


def _imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("embedsmith"):
            parts = (node.module or "").split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return names


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_from_above(folder: str) -> None:
    for path in (SOURCE / folder).glob("*.py"):
        assert _imports(path) <= MAY_IMPORT[folder] | BASE, path.name


def test_data_knows_no_torch() -> None:
    for path in (SOURCE / "data").glob("*.py"):
        assert "torch" not in path.read_text(encoding="utf-8").replace("No torch here", ""), path.name


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_parses(path: Path) -> None:
    config = load_config(path)
    assert load_config(overrides={"output_dir": "x"}) != config
    assert config.output_dir == f"runs/{path.stem}"


@pytest.mark.parametrize("key", known_keys())
def test_every_setting_is_read_somewhere(key: str) -> None:
    leaf = key.split(".")[-1]
    code = "\n".join(path.read_text() for path in SOURCE.rglob("*.py") if path.name != "config.py")
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
