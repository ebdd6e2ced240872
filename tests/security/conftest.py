"""A folder with one of everything that embedsmith reads, and a trap wherever one can be laid without breaking it."""

import builtins
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gguf import GGUFWriter

from tests import gguf_files
from tests.faults.conftest import whole  # noqa: F401 (a fixture)
from tests.security.traps import arm, pickled, template
from tests.tiny import save_encoder

MODELS = ("base", "runs/r", "peft", "merged", "average", "sentence", "encoder", "published")
_OF_PUBLISHED = ("generation_config.json", "sentence_bert_config.json", "config_sentence_transformers.json")
EVIL_MAP = {
    "AutoConfig": "evil.Config",
    "AutoModel": "evil.Model",
    "AutoModelForCausalLM": "evil.Model",
    "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"],
}


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marker") / "sprung"


@pytest.fixture(scope="module")
def armed(whole: Path, marker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The folder; tests may write into it under names of their own."""
    room = tmp_path_factory.mktemp("armed") / "room"
    shutil.copytree(whole, room)
    shutil.rmtree(room / "runs/r/checkpoints")
    save_encoder(room / "encoder", dense_width=16)
    shutil.copytree(room / "base", room / "published")
    shutil.copytree(room / "sentence/1_Pooling", room / "published/1_Pooling")
    shutil.copy(room / "sentence/modules.json", room / "published/modules.json")
    for name in (*MODELS, "runs/r/adapter"):
        arm(room / name, marker)
        _poison(room / name, marker)
    _write_parquet(room / "t.parquet", marker)
    _write_gguf(room / "hostile.gguf", marker)
    return room


@pytest.fixture
def trapped(armed: Path, marker: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:  # noqa: F811
    """The folder to work in, with somebody at the terminal who says yes to everything; the marker must not appear."""
    monkeypatch.setenv("EMBEDSMITH_CACHE", str(whole.with_name("cache")))
    monkeypatch.chdir(armed)
    monkeypatch.syspath_prepend(str(armed / "base"))  # what is named `evil` can be imported
    monkeypatch.setattr(builtins, "input", lambda *_: "y")
    assert not marker.exists()
    yield armed
    assert not marker.exists()


def _poison(folder: Path, marker: Path) -> None:
    """Values of JSON files by which others find program code; none of them changes what is computed."""
    jinja = template(marker)
    for name, values in {
        "config.json": {"auto_map": EVIL_MAP, "custom_pipelines": {"evil": {"impl": "evil.Pipeline"}}},
        "tokenizer_config.json": {"auto_map": EVIL_MAP, "chat_template": jinja, "processor_class": "evil.Processor"},
        "adapter_config.json": {
            "auto_mapping": {"base_model_class": "Model", "parent_library": "evil"},
            "megatron_core": "evil",
        },
        "generation_config.json": {"custom_generate": "evil", "trust_remote_code": True},
        "sentence_bert_config.json": {
            name: {"trust_remote_code": True}
            for name in ("model_args", "config_args", "tokenizer_args", "model_kwargs")
        },
        "config_sentence_transformers.json": {"prompts": {"poem": jinja}, "trust_remote_code": True},
    }.items():
        path = folder / name
        if path.exists() or (name in _OF_PUBLISHED and folder.name in ("published", "encoder")):
            path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | values))
    if (folder / "config.json").exists():
        (folder / "chat_template.jinja").write_text(jinja)
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates/evil.jinja").write_text(jinja)


def _write_parquet(path: Path, marker: Path) -> None:
    """Metadata of the kinds that pyarrow and pandas once unpickled or looked up."""
    pickle = pickled("a.pkl", marker)
    extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle}
    fields = [pa.field(name, pa.string(), metadata=extension) for name in ("anchor", "positive")]
    schema = pa.schema(fields, metadata={b"pandas": pickle, b"pickle": pickle})
    pq.write_table(pa.table({"anchor": ["a cat", "rain"], "positive": ["an animal", "the sea"]}, schema=schema), path)


def _write_gguf(path: Path, marker: Path) -> None:
    """Strings that lead out of a folder, or are templates, where a sound file has names."""

    class Hostile(GGUFWriter):
        def add_name(self, name: str) -> None:
            super().add_name("../../../../elsewhere")
            for key in ("tokenizer.chat_template", "general.basename", "general.author"):
                self.add_string(key, template(marker))
            self.add_string("general.source.url", "file:///etc/passwd")
            self.add_string("embedsmith.settings", _settings(marker))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf_files, "GGUFWriter", Hostile)
        gguf_files.save_gguf(path)


def _settings(marker: Path) -> str:
    values: dict[str, Any] = {"base_model": "../../../../etc", "pooling": "last", "prompt": None, "max_length": 64}
    return json.dumps(values | {"prompts": {"poem": template(marker)}})
