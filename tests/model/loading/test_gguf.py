"""A GGUF file is a MODEL: converted once, the same numbers, clear refusals."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from tokenizers import Tokenizer, models, normalizers
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from embedsmith.model.embedder import Embedder
from embedsmith.model.loading import gguf
from embedsmith.model.loading.gguf import GgufFile, find_gguf, is_gguf
from embedsmith.settings.config import AdapterSection
from embedsmith.support.errors import ModelError
from tests.gguf_files import LETTERS, TOKENS, save_gguf
from tests.hub import put_in_hub_cache


def gguf_folder(model: str) -> Path:
    return find_gguf(model).convert()


def test_what_names_a_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "folder.gguf").mkdir()
    assert is_gguf("a/b.gguf")
    assert is_gguf("owner/name:B.GGUF")
    assert not is_gguf("owner/name-GGUF")
    assert not is_gguf(str(tmp_path / "folder.gguf"))


def test_the_folder_holds_the_files_numbers(tmp_path: Path, cache: Path) -> None:
    model = save_gguf(tmp_path / "m.gguf")
    folder = gguf_folder(str(tmp_path / "m.gguf"))
    assert folder.is_relative_to(cache)
    loaded = AutoModel.from_pretrained(folder).state_dict()
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(loaded[name], weight) for name, weight in model.state_dict().items())
    assert not list(folder.parent.glob(".joining*"))


def test_quantised_weights_are_what_they_stand_for(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "m.gguf"
    save_gguf(path, quantization=GGMLQuantizationType.Q8_0)
    loaded = AutoModel.from_pretrained(gguf_folder(str(path)))
    tensor = next(tensor for tensor in GGUFReader(path).tensors if tensor.name == "blk.1.ffn_up.weight")
    expected = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type))
    assert torch.equal(loaded.layers[1].mlp.up_proj.weight, expected)


def test_the_tokenizer_comes_along(tmp_path: Path, cache: Path) -> None:
    save_gguf(tmp_path / "m.gguf")
    tokenizer = AutoTokenizer.from_pretrained(gguf_folder(str(tmp_path / "m.gguf")))
    ids = tokenizer("the cat", add_special_tokens=False)["input_ids"]
    assert [TOKENS[index] for index in ids] == ["the", "Ġ", *"cat"]
    assert len(tokenizer) == len(TOKENS) == len(LETTERS) + 7


def test_converted_once_and_again_when_the_content_changes(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "m.gguf"
    save_gguf(path)
    first = gguf_folder(str(path))
    written = (first / "config.json").stat().st_mtime_ns
    assert gguf_folder(str(path)) == first
    assert (first / "config.json").stat().st_mtime_ns == written
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # the last bit of the last weight: same name, size and time
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert gguf_folder(str(path)) != first


def test_a_file_in_pieces(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "m.gguf"
    save_gguf(path)
    content = path.read_bytes()
    pieces = [tmp_path / f"piece{index}" for index in range(3)]
    for index, piece in enumerate(pieces):
        piece.write_bytes(content[index * 10_000 : (index + 1) * 10_000 if index < 2 else None])
    assert GgufFile(pieces, name="m").convert() == gguf_folder(str(path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_parts": 3}, "one of 3 parts of a model"),
        ({"architecture": "clip"}, "The architecture 'clip'"),
        ({"leave_out": "post_attention_layernorm"}, "is incomplete: layers"),
    ],
)
def test_what_cannot_be_converted_is_refused(
    tmp_path: Path, cache: Path, changes: dict[str, object], message: str
) -> None:
    save_gguf(tmp_path / "m.gguf", **changes)
    with pytest.raises(ModelError, match=message):
        gguf_folder(str(tmp_path / "m.gguf"))
    assert not list((cache / "models").glob("m-*/config.json"))


@pytest.mark.parametrize("num_bytes", [0, 3, 100, 5000, 60_000])
def test_a_damaged_file_is_named(tmp_path: Path, cache: Path, num_bytes: int) -> None:
    path = tmp_path / "m.gguf"
    save_gguf(path)
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(ModelError, match=r"m\.gguf is damaged, cut short, or no GGUF file"):
        gguf_folder(str(path))


def test_a_number_format_that_cannot_be_read(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "m.gguf"
    save_gguf(path, quantization=GGMLQuantizationType.Q8_0)
    reader = GGUFReader(path, "r+")
    field = next(tensor.field for tensor in reader.tensors if tensor.name == "blk.0.ffn_up.weight")
    field.parts[4][0] = GGMLQuantizationType.Q8_1.value
    reader.data.flush()
    with pytest.raises(ModelError, match="in a number format that cannot be read: Q8_1"):
        gguf_folder(str(path))


def test_it_is_a_model_like_any_other(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_gguf(tmp_path / "m.gguf")
    model.save_pretrained(tmp_path / "folder")
    find_gguf(str(tmp_path / "m.gguf")).convert()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "folder" / file).write_bytes((find_gguf(str(tmp_path / "m.gguf")).folder / file).read_bytes())
    texts = ["the cat", "a the", ""]
    from_file = Embedder.load(str(tmp_path / "m.gguf"), precision="fp32")
    np.testing.assert_array_equal(
        from_file.encode(texts), Embedder.load(str(tmp_path / "folder"), precision="fp32").encode(texts)
    )
    # An adapter on it finds it from anywhere.
    monkeypatch.chdir(tmp_path)
    embedder = Embedder.load("m.gguf", precision="fp32")
    embedder.add_adapter(AdapterSection())
    embedder.save("adapter")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(
        Embedder.load("../adapter", precision="fp32").encode(texts), from_file.encode(texts)
    )  # a fresh adapter adds nothing


def test_one_on_the_hub(tmp_path: Path, cache: Path, hub_cache: Path) -> None:
    save_gguf(tmp_path / "m.gguf")
    put_in_hub_cache(hub_cache, "owner/name", {"sub.gguf": tmp_path / "m.gguf"})
    assert find_gguf("owner/name:sub.gguf").sha256 == find_gguf(str(tmp_path / "m.gguf")).sha256
    assert gguf_folder("owner/name:sub.gguf").name.startswith("sub-")
    with pytest.raises(ModelError, match=r"There is no file 'owner/name:other\.gguf'"):
        gguf_folder("owner/name:other.gguf")


def test_no_such_file(cache: Path) -> None:
    with pytest.raises(ModelError, match=r"There is no file 'nowhere\.gguf'.\nGive the path"):
        gguf_folder("nowhere.gguf")


@pytest.mark.parametrize("has_merges", [True, False])
def test_a_tokenizer_that_takes_its_own_words_apart_is_refused(has_merges: bool) -> None:
    """As transformers 5.17 reads that of Gemma 3."""
    words = ["\u2581cats", "\u2581roof"]
    merges: list[tuple[str, str]] = []
    vocabulary = {letter: number for number, letter in enumerate("\u2581acforst")}
    for word in words:
        for end in range(2, len(word) + 1):
            merges.append((word[: end - 1], word[end - 1]))
            vocabulary.setdefault(word[:end], len(vocabulary))
    model = models.BPE(vocab=vocabulary, merges=merges if has_merges else [])
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    if has_merges:
        gguf._check_words(wrapped, Path("m.gguf"))
        return
    with pytest.raises(
        ModelError, match=r"does not read the tokenizer of m\.gguf right: of 2 words .* 2 are taken apart"
    ):
        gguf._check_words(wrapped, Path("m.gguf"))
