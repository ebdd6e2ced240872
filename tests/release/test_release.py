"""Two builds give the same bytes; what is locked is what was tested; an audit that was none is no success."""

import os
import re
import subprocess
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from release import APART, EXTRAS, LOCK, ROOT, pinned
from release.audit import FOUND, NOT_ASKED, judge
from release.build import build, wheel_of, write_bill

PROBE = {"dependencies": [{"name": "pyyaml", "version": "5.3", "vulns": [{"id": "X", "fix_versions": ["5.3.1"]}]}]}
LOCKED = re.compile(
    r"^([\w.-]+)==([\w.]+)(?: ; .+?)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


def _name(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[ =<>\[;!~]", requirement)[0]).lower()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two builds, as two people make them: at other times, with other rights by default."""
    if not (ROOT / ".git").exists():
        pytest.skip("no clone of the repository, so there is no commit to build")
    room = tmp_path_factory.mktemp("built")
    for name, umask in (("first", 0o022), ("second", 0o077)):
        (room / name).mkdir()
        before = os.umask(umask)
        try:
            build(room / name)
        finally:
            os.umask(before)
    return room


def test_two_builds_give_the_same_bytes(built: Path) -> None:
    first, second = (
        {path.name: path.read_bytes() for path in (built / name).iterdir()} for name in ("first", "second")
    )
    assert [name.rpartition(".")[2] for name in sorted(first)] == ["whl", "gz"]
    assert first == second


def test_a_source_archive_gives_the_same_wheel(built: Path, tmp_path: Path) -> None:
    (wheel,), (archive,) = (built / "first").glob("*.whl"), (built / "first").glob("*.tar.gz")
    assert wheel_of(archive, tmp_path).read_bytes() == wheel.read_bytes()


def test_a_wheel_holds_the_package_alone(built: Path) -> None:
    (wheel,) = (built / "first").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top.partition("-")[0] for top in tops} == {"embedsmith"}
    tracked = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    with zipfile.ZipFile(wheel) as archive:
        assert {f"src/{name}" for name in archive.namelist() if "dist-info" not in name} == set(tracked.split())


def test_a_source_archive_names_nobody(built: Path) -> None:
    (archive,) = (built / "first").glob("*.tar.gz")
    with tarfile.open(archive) as members:
        assert {(one.uid, one.gid, one.uname, one.gname) for one in members} == {(0, 0, "", "")}


def test_the_bill_of_materials_names_what_is_locked_and_torch(built: Path) -> None:
    if not find_spec("cyclonedx_py"):
        pytest.skip("pip install 'embedsmith[release]'")
    text = write_bill(built / "first").read_text()
    assert write_bill(built / "second").read_text() == text
    for name in ("transformers", "torch", "fastapi"):
        assert f'"pkg:pypi/{pinned(name).replace("==", "@")}"' in text


def test_what_is_locked_is_what_was_tested() -> None:
    """Every version is that of constraints.txt, every file has a hash, and nothing that is needed is missing."""
    text = LOCK.read_text(encoding="utf-8")
    locked = {_name(name): version for name, version, _ in LOCKED.findall(text)}
    assert len(locked) == sum(line[:1].isalnum() for line in text.split("\n"))
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n")
    tested = {_name(line): line.partition("==")[2] for line in constraints if "==" in line}
    assert {name: version for name, version in locked.items() if tested.get(name, version) != version} == {}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = project["dependencies"] + [one for extra in EXTRAS for one in project["optional-dependencies"][extra]]
    assert {_name(one) for one in needed} - locked.keys() == set(APART)
    assert not locked.keys() & set(APART)


@pytest.mark.parametrize(
    ("probe", "found", "code", "said"),
    [
        (None, None, NOT_ASKED, "Nothing was audited"),
        ({"dependencies": [{"name": "pyyaml", "skip_reason": "not found"}]}, PROBE, NOT_ASKED, "did not answer"),
        (PROBE, None, NOT_ASKED, "no list"),
        (PROBE, {"dependencies": []}, NOT_ASKED, "no list"),
        (PROBE, PROBE, FOUND, "pyyaml 5.3: X"),
        (PROBE, {"dependencies": [{"name": "a", "skip_reason": "not found"}]}, FOUND, "a: not found"),
        (PROBE, {"dependencies": [{"name": "a", "version": "1", "vulns": []}]}, 0, "1 packages, 0 known"),
    ],
)
def test_an_audit_that_was_none_is_no_success(probe: object, found: object, code: int, said: str) -> None:
    given, lines = judge(probe, found)
    assert given == code
    assert said in "\n".join(lines)
