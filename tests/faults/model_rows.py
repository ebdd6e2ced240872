"""Faulty models and tokenizers."""

import json

from tests.faults.fault import (
    Fault,
    Make,
    both,
    cut,
    fifo,
    folder,
    link,
    put,
    put_safetensors,
    remove,
    set_json,
    without_rights,
)
from tests.fuzz import corpus_of

ENCODE = "encode {} texts.txt --out x.npy"
WEIGHTS = "model.safetensors"
ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def _base(what: str, place: str, cure: str, make: Make) -> Fault:
    return Fault(what, ENCODE.format("base"), place, cure, make)


def _header(what: str, header: object, *, size: int | None = None) -> Fault:
    path = f"base/{WEIGHTS}"
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    make = put_safetensors(path, data, size=size, data=b"\0" * 8)
    return _base(f"a safetensors header {what}", path, "again", make)


def _gguf(name: str) -> Make:
    """An input of the fuzzer's in the place of the file; its first byte is the target's."""
    return put("model.gguf", (corpus_of("gguf") / f"{name}.gguf").read_bytes()[1:])


FAULTS = [
    Fault("a folder of a model that is not there", ENCODE.format("./nothing"), "./nothing", "It may be"),
    Fault("a model that is a file", ENCODE.format("t.tsv"), "t.tsv", "Name the folder"),
    Fault("a folder that is no model", ENCODE.format("sts"), "sts", "Name"),
    Fault("a hub id that cannot be one", ENCODE.format("a/b/c/d"), "a/b/c/d", "It may be"),
    Fault("a model in a circle of links", ENCODE.format("./x"), "./x", "It may be", link("x", to="x")),
    _base("weights that are not there", "base'", "again", remove(f"base/{WEIGHTS}")),
    _base("weights that are empty", f"base/{WEIGHTS}", "again", put(f"base/{WEIGHTS}", "")),
    _base("weights cut short", f"base/{WEIGHTS}", "again", cut(f"base/{WEIGHTS}", keep=0.5)),
    _base("weights that are a folder", "base'", "again", folder(f"base/{WEIGHTS}")),
    _base("weights that are a pipe", "base'", "again", fifo(f"base/{WEIGHTS}")),
    _base(
        "weights that are a web page", f"base/{WEIGHTS}", "again", put(f"base/{WEIGHTS}", "<html>not found</html>" * 50)
    ),
    _base(
        "weights that are a Git LFS pointer",
        f"base/{WEIGHTS}",
        "again",
        put(f"base/{WEIGHTS}", "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 999\n"),
    ),
    _base(
        "weights as a pickle alone",
        "base'",
        "save_file",
        both(remove(f"base/{WEIGHTS}"), put("base/pytorch_model.bin", b"\x80\x04.")),
    ),
    _header("of 2^63 bytes", b"{}", size=2**63),
    _header("longer than its file", b"{}", size=10_000),
    _header("that is no JSON", b"{]"),
    _header("with a negative offset", {"model.norm.weight": {**ONE, "data_offsets": [-8, 0]}}),
    _header(
        "with offsets beyond the file",
        {"model.norm.weight": {**ONE, "data_offsets": [0, 10**15], "shape": [25 * 10**13]}},
    ),
    _header("with tensors that overlap", {"a": ONE, "b": ONE}),
    _header("with a shape of 2^63", {"model.norm.weight": {**ONE, "shape": [2**63 - 1, 2**62]}}),
    _header("with a number format that is none", {"model.norm.weight": {**ONE, "dtype": "F33"}}),
    _header("of an array", [1, 2, 3]),
    _header("nested 100,000 deep", b"[" * 100_000),
    _base(
        "weights without the model's tensors",
        "base/config.json",
        "again",
        put_safetensors(f"base/{WEIGHTS}", json.dumps({"model.norm.weight": ONE}).encode(), data=b"\0" * 8),
    ),
    _base(
        "an index that leads out of the folder",
        "base/model.safetensors.index.json",
        "again",
        both(
            remove(f"base/{WEIGHTS}"),
            put(
                "base/model.safetensors.index.json",
                json.dumps({"metadata": {}, "weight_map": {"model.norm.weight": "../wider/model.safetensors"}}),
            ),
        ),
    ),
    _base(
        "an index of files that are not there",
        "base/model.safetensors.index.json",
        "again",
        both(
            remove(f"base/{WEIGHTS}"),
            put(
                "base/model.safetensors.index.json",
                json.dumps({"metadata": {}, "weight_map": {"model.norm.weight": "model-1.safetensors"}}),
            ),
        ),
    ),
    _base(
        "an index of a name of 5,000 letters",
        "base/model.safetensors.index.json",
        "again",
        both(
            remove(f"base/{WEIGHTS}"),
            put("base/model.safetensors.index.json", json.dumps({"weight_map": {"model.norm.weight": "a" * 5000}})),
        ),
    ),
    _base("a config.json that is not there", "The folder base", "Name a folder", remove("base/config.json")),
    _base("a config.json that is no JSON", "base'", "It may be", put("base/config.json", "{")),
    _base("a config.json that is a list", "base'", "It may be", put("base/config.json", "[]")),
    _base(
        "a config.json in UTF-16",
        "base'",
        "It may be",
        put("base/config.json", '{"model_type": "llama"}'.encode("utf-16")),
    ),
    _base("a config.json that is a pipe", "base'", "config.json", fifo("base/config.json")),
    _base("a config.json of no known family", "base'", "It may be", set_json("base/config.json", model_type="wonder")),
    _base(
        "a config.json with another width",
        "(320, 64), not (320, 32)",
        "again",
        set_json("base/config.json", hidden_size=32),
    ),
    _base("a config.json with more layers", "base'", "again", set_json("base/config.json", num_hidden_layers=4)),
    _base("a config.json with fewer layers", "base'", "again", set_json("base/config.json", num_hidden_layers=2)),
    _base("a config.json with 10^9 layers", "base'", "again", set_json("base/config.json", num_hidden_layers=10**9)),
    _base(
        "a config.json with a width of 10^9",
        "base/config.json",
        "again",
        set_json("base/config.json", hidden_size=10**9),
    ),
    _base(
        "a config.json with heads that do not divide",
        "base'",
        "It may be",
        set_json("base/config.json", num_attention_heads=0),
    ),
    _base("a config.json whose vocabulary is less", "base'", "again", set_json("base/config.json", vocab_size=10)),
    _base(
        "a config.json with words for numbers", "base'", "It may be", set_json("base/config.json", hidden_size="wide")
    ),
    _base(
        "a config.json with an activation that is none",
        "base'",
        "again",
        set_json("base/config.json", hidden_act="os.system"),
    ),
    _base(
        "a config.json that asks for program code",
        "base'",
        "never runs",
        both(
            set_json(
                "base/config.json",
                model_type="wonder",
                auto_map={"AutoConfig": "code.Config", "AutoModel": "code.Model"},
            ),
            put("base/code.py", "open('pwned', 'w')\n"),
        ),
    ),
    _base(
        "a config.json that names a pickle",
        "base'",
        "save_file",
        set_json("base/config.json", transformers_weights="x.bin"),
    ),
    _base(
        "a config.json of an encoder", "base'", "sentence-transformers", set_json("base/config.json", model_type="bert")
    ),
    _base(
        "a tokenizer that is not there",
        "base'",
        "tokenizer",
        remove("base/tokenizer.json", "base/tokenizer_config.json"),
    ),
    _base("a tokenizer.json that is empty", "base'", "tokenizer", put("base/tokenizer.json", "")),
    _base("a tokenizer.json cut short", "base'", "tokenizer", cut("base/tokenizer.json", keep=0.5)),
    _base(
        "a tokenizer.json of another kind",
        "base'",
        "tokenizer",
        put("base/tokenizer.json", '{"model": {"type": "Wonder"}}'),
    ),
    _base(
        "a tokenizer that knows more than the model",
        "base'",
        "tokenizer",
        set_json("base/tokenizer.json", model__vocab__zzz=5000),
    ),
    _base("a tokenizer_config.json that is no JSON", "base'", "tokenizer", put("base/tokenizer_config.json", "{")),
    _base(
        "a tokenizer_config.json with code of its own",
        "base'",
        "tokenizer",
        set_json(
            "base/tokenizer_config.json", tokenizer_class="Wonder", auto_map={"AutoTokenizer": ["code.Tokenizer", None]}
        ),
    ),
    _base(
        "a tokenizer.model that is none",
        "base'",
        "tokenizer",
        both(remove("base/tokenizer.json"), put("base/tokenizer.model", "nothing")),
    ),
    Fault(
        "weights that may not be read",
        ENCODE.format("base"),
        f"base/{WEIGHTS}",
        "again",
        without_rights(f"base/{WEIGHTS}"),
        is_of_rights=True,
    ),
    Fault("a GGUF file cut short", ENCODE.format("model.gguf"), "model.gguf", "again", cut("model.gguf", keep=0.3)),
    Fault("a GGUF file that is none", ENCODE.format("model.gguf"), "model.gguf", "again", put("model.gguf", "nothing")),
    Fault("a GGUF file that is empty", ENCODE.format("model.gguf"), "model.gguf", "again", put("model.gguf", "")),
    Fault(
        "a GGUF header that counts 2^60 tensors",
        ENCODE.format("model.gguf"),
        "model.gguf",
        "again",
        put("model.gguf", b"GGUF" + (3).to_bytes(4, "little") + (2**60).to_bytes(8, "little") * 2 + b"\0" * 99),
    ),
    Fault("a GGUF array of 2^60 values", ENCODE.format("model.gguf"), "model.gguf", "again", _gguf("endless-array")),
    Fault("GGUF arrays in arrays", ENCODE.format("model.gguf"), "model.gguf", "again", _gguf("array-of-arrays")),
    Fault("a GGUF tensor without a width", ENCODE.format("model.gguf"), "model.gguf", "again", _gguf("no-dimension")),
    Fault("a GGUF file that is a pipe", ENCODE.format("model.gguf"), "model.gguf", "file", fifo("model.gguf")),
]
