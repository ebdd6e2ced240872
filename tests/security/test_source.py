"""What no line of the source code does; ruff's rules `S` (pickle, eval, exec, YAML's loaders) stand beside it."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "src").rglob("*.py"))
LOADERS = {"from_pretrained", "from_config", "SentenceTransformer"}
"""Calls that ask at the terminal whether to run program code, unless they are told not to."""
FOREIGN = {"pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "runpy", "code"}


def _calls(path: Path) -> Iterator[tuple[str, str, dict[str, object], int]]:
    """(owner, name, keywords with a constant value, line) of every call."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            is_attribute = isinstance(node.func, ast.Attribute)
            owner = ast.unparse(node.func.value) if is_attribute else ""
            given = {one.arg or "": getattr(one.value, "value", None) for one in node.keywords}
            yield owner, node.func.attr if is_attribute else node.func.id, given, node.lineno


def test_no_call_leaves_it_open_whether_code_is_run() -> None:
    calls = [(path, *call) for path in SOURCES for call in _calls(path)]
    assert sum(name in LOADERS for _, _, name, *_ in calls) > 10
    for path, owner, name, given, line in calls:
        place = f"{path.name}, line {line}"
        if name in LOADERS and owner != "PeftModel":  # which takes the network as it is, and reads no code
            assert given.get("trust_remote_code", "") is False, place
        if owner in ("np", "numpy") and name == "load":
            assert given.get("allow_pickle") is False, place
        assert (owner, name) not in (("torch", "load"), ("", "eval"), ("", "exec"), ("", "__import__")), place


def test_nothing_that_unpickles_is_imported() -> None:
    named = set()
    for node in (node for path in SOURCES for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            named |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.add((node.module or "").partition(".")[0])
    assert named > {"torch"} and not named & FOREIGN


def test_ruff_looks_for_what_is_unsafe_and_every_excuse_has_a_reason() -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert "S" in ruff["select"]
    assert [rule for rule in ruff["ignore"] if rule.startswith("S")] == ["S101"]
    assert [name for name, rules in ruff["per-file-ignores"].items() if "S" in rules] == ["tests/*"]
    for path in (*SOURCES, *(ROOT / "release").glob("*.py"), *(ROOT / "benchmarks").rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            excuse = re.search(r"# noqa: S\d.*", line)
            assert excuse is None or "(" in excuse[0], f"{path.name}, line {number} says no reason"
