"""Files of weights are looked at before a network is built; what other ways of saving give is no fault."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModel

from embedsmith.model.loading.weight_files import check_weight_files
from embedsmith.support.errors import ModelError


def _config(folder: Path, **changes: Any) -> Any:
    return AutoConfig.from_pretrained(folder, **changes)


def test_a_model_in_shards_is_sound(model_folders: dict[str, str], tmp_path: Path) -> None:
    AutoModel.from_pretrained(model_folders["llama"]).save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    check_weight_files(str(tmp_path), config=_config(tmp_path))


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "not-there.safetensors", ""])
def test_an_index_names_files_of_its_folder(tmp_path: Path, model_folders: dict[str, str], name: str) -> None:
    (tmp_path / "outside.safetensors").write_bytes((Path(model_folders["llama"]) / "model.safetensors").read_bytes())
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"norm.weight": name}}))
    with pytest.raises(ModelError, match=r"index\.json names .*, which is no file of that folder"):
        check_weight_files(str(folder), config=_config(Path(model_folders["llama"])))


def test_what_is_no_folder_or_has_other_files_is_left_to_who_loads_it(tmp_path: Path) -> None:
    for source in ("owner/name", str(tmp_path)):
        check_weight_files(source, config=None)


@pytest.mark.parametrize(
    ("changes", "told"), [({"hidden_size": 2**20}, "parameters"), ({"num_hidden_layers": 5000}, "names 5,000 layers")]
)
def test_a_config_out_of_all_proportion(model_folders: dict[str, str], changes: dict[str, int], told: str) -> None:
    folder = Path(model_folders["llama"])
    with pytest.raises(ModelError, match=told):
        check_weight_files(str(folder), config=_config(folder, **changes))
