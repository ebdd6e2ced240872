"""A base that processes hold together, of one process here: what is read, which way it runs, what is refused. Several
processes: `tests/training/test_distributed.py`."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.distributed import HashStore
from transformers import AutoModel

from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.backbone import load_backbone
from embedsmith.settings.config import AdapterSection
from embedsmith.support.errors import ConfigError, ModelError
from tests.tiny import FAMILIES, TEXTS


@pytest.fixture
def group() -> Iterator[None]:
    """A group of this process alone."""
    torch.distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def _copy(folder: str, to: Path, *, without: str = "") -> Path:
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns(without) if without else None)
    return to


@pytest.mark.parametrize("family", FAMILIES)
def test_it_embeds_as_a_whole_one(family: str, model_folders: dict[str, str], group: None) -> None:
    shared = Embedder.load(model_folders[family], precision="fp32", max_length=64, sharded=True)
    assert shared.is_sharded
    assert shared.path == "blocks not fused: several processes hold the base together"
    whole = Embedder.load(model_folders[family], precision="fp32", max_length=64, fused=False)
    torch.testing.assert_close(torch.from_numpy(shared.encode(TEXTS)), torch.from_numpy(whole.encode(TEXTS)))


def test_weights_may_lie_in_several_files(model_folders: dict[str, str], tmp_path: Path, group: None) -> None:
    folder = _copy(model_folders["llama"], tmp_path / "cut", without="*.safetensors")
    AutoModel.from_pretrained(model_folders["llama"]).save_pretrained(folder, max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    cut, one = (Embedder.load(name, precision="fp32", sharded=True) for name in (str(folder), model_folders["llama"]))
    assert (cut.encode(TEXTS) == one.encode(TEXTS)).all()


def test_what_is_refused(model_folders: dict[str, str], tmp_path: Path, group: None) -> None:
    cpu = torch.device("cpu")
    bare = _copy(model_folders["llama"], tmp_path / "bare", without="*.safetensors")
    with pytest.raises(ModelError, match=r"has no safetensors files, so processes cannot share it\.\nLeave"):
        load_backbone(str(bare), device=cpu, sharded=True)
    wide = _copy(model_folders["llama"], tmp_path / "wide")
    config = (wide / "config.json").read_text()
    (wide / "config.json").write_text(config.replace('"vocab_size": 320', '"vocab_size": 321'))
    with pytest.raises(ModelError, match=r"do not fit its config.json: embed_tokens.weight is \(320, 64\), not \(321"):
        load_backbone(str(wide), device=cpu, sharded=True)
    embedder = Embedder.load(model_folders["llama"], precision="fp32")
    run = tmp_path / "run"
    embedder.add_adapter(AdapterSection())
    embedder.save(run / "adapter")
    with pytest.raises(ConfigError, match=r"model\.sharded is true, but .* is a run, whose adapter would have to be"):
        Embedder.load(str(run), as_base=True, sharded=True)
