"""What a sentence-transformers model is made of, read without that package, and whether its body is an encoder."""

import json
from pathlib import Path

import pytest

from embedsmith.model.loading.sentence_files import find_modules, is_encoder
from embedsmith.support.errors import ModelError
from tests.tiny import save_model, save_teacher

# A module's name in versions 2 to 5 of the package, and in version 6.
OLD = "sentence_transformers.models.{}"
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
}


def _write(folder: Path, *modules: tuple[str, str]) -> None:
    rows = [
        {"idx": index, "name": str(index), "path": path, "type": kind} for index, (kind, path) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(rows))


@pytest.mark.parametrize("version", ["old", "new"])
def test_modules_of_every_version(tmp_path: Path, version: str) -> None:
    names = NEW if version == "new" else {kind: OLD.format(kind) for kind in NEW}
    (tmp_path / "2_Dense").mkdir()
    (tmp_path / "2_Dense" / "model.safetensors").touch()
    _write(
        tmp_path,
        *((names["Transformer"], ""), (names["Pooling"], "1_Pooling"), (names["Dense"], "2_Dense/")),
        (names["Normalize"], "3_Normalize"),
    )
    modules = find_modules(str(tmp_path))
    assert modules is not None
    assert modules.kinds == ("Transformer", "Pooling", "Dense", "Normalize")
    assert modules.folders == ("", "1_Pooling", "2_Dense", "3_Normalize")
    assert modules.find_file(2, "model.safetensors") == tmp_path / "2_Dense" / "model.safetensors"
    assert modules.find_file(1, "config.json") is None


def test_what_the_package_itself_writes(tmp_path: Path) -> None:
    folder = save_teacher(tmp_path)
    modules = find_modules(str(folder))
    assert modules is not None
    assert modules.kinds == ("Transformer", "Pooling", "Normalize")
    assert modules.find_file(1, "config.json") is not None
    assert is_encoder(str(folder))


def test_a_decoder_is_no_encoder(tmp_path: Path) -> None:
    save_model("llama", tmp_path)
    assert find_modules(str(tmp_path)) is None
    assert not is_encoder(str(tmp_path))
    _write(tmp_path, (OLD.format("Transformer"), ""), (OLD.format("Pooling"), "1_Pooling"))
    assert find_modules(str(tmp_path)) is not None
    assert not is_encoder(str(tmp_path))


def test_a_body_in_a_folder_of_its_own(tmp_path: Path) -> None:
    (save_teacher(tmp_path) / "config.json").rename(tmp_path / "bert.json")
    save_model("llama", tmp_path / "teacher" / "0_Transformer")
    _write(tmp_path / "teacher", (OLD.format("Transformer"), "0_Transformer"))
    assert not is_encoder(str(tmp_path / "teacher"))
    (tmp_path / "bert.json").rename(tmp_path / "teacher" / "0_Transformer" / "config.json")
    assert is_encoder(str(tmp_path / "teacher"))


def test_an_adapter_is_left_to_its_loader(tmp_path: Path) -> None:
    """What sentence-transformers saves of a model with peft's adapter: its base is named there, not in config.json."""
    _write(tmp_path, (OLD.format("Transformer"), ""), (OLD.format("Pooling"), "1_Pooling"))
    (tmp_path / "adapter_config.json").touch()
    assert not is_encoder(str(tmp_path))


@pytest.mark.parametrize("model", ["smollm2-135m", "who/nobody", "no/such/folder", "", " "])
def test_what_has_no_modules(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _write(tmp_path, (OLD.format("Transformer"), ""))
    monkeypatch.chdir(tmp_path)  # an empty name is not this folder
    assert find_modules(model) is None
    assert not is_encoder(model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{]", r"modules\.json is damaged"),
        ('[{"type": "sentence_transformers.models.Transformer"}]', r"modules\.json is damaged"),
        ("[]", "begins with neither Transformer nor StaticEmbedding"),
        (json.dumps([{"type": NEW["Pooling"], "path": ""}]), "begins with neither Transformer nor StaticEmbedding"),
        (json.dumps([{"type": "custom.Transformer", "path": ""}]), r"has a module custom\.Transformer, which may need"),
        (
            json.dumps([{"type": NEW["Transformer"], "path": ""}, {"type": NEW["Dense"], "path": "2_Dense"}]),
            "keeps the weights of 2_Dense in a pickle",
        ),
    ],
)
def test_faults(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(ModelError, match=message):
        find_modules(str(tmp_path))


def test_a_body_without_a_configuration(tmp_path: Path) -> None:
    _write(tmp_path, (OLD.format("Transformer"), "0_Transformer"))
    with pytest.raises(ModelError, match=r"no config\.json in the folder of its Transformer \(0_Transformer\)"):
        is_encoder(str(tmp_path))
    (tmp_path / "0_Transformer").mkdir()
    path = tmp_path / "0_Transformer" / "config.json"
    path.write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "code.Own"}}))
    with pytest.raises(ModelError, match="needs program code from its own folder"):
        is_encoder(str(tmp_path))
