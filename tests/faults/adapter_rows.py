"""Faulty adapters."""

from tests.faults.fault import (
    Fault,
    Make,
    both,
    cut,
    fifo,
    put,
    put_safetensors,
    remove,
    set_json,
)

ENCODE = "encode {} texts.txt --out x.npy"


def _adapter(what: str, place: str, cure: str, make: Make | None = None, *, model: str = "peft") -> Fault:
    return Fault(what, ENCODE.format(model), place, cure, make)


FAULTS = [
    _adapter("an adapter for a wider base", "does not fit", "base", model="peft --base-model wider"),
    _adapter(
        "an adapter whose base is gone",
        "nothing",
        "--base-model",
        set_json("peft/embedding.json", base_model="/nothing/at/all"),
    ),
    _adapter(
        "an adapter that is its own base", "peft", "--base-model", set_json("peft/embedding.json", base_model="peft")
    ),
    _adapter(
        "an adapter's base outside of what is a model",
        "/etc",
        "--base-model",
        set_json("peft/embedding.json", base_model="../../../../../../../etc"),
    ),
    _adapter(
        "an adapter without weights", "adapter_model.safetensors", "again", remove("peft/adapter_model.safetensors")
    ),
    _adapter(
        "an adapter cut short", "adapter_model.safetensors", "again", cut("peft/adapter_model.safetensors", keep=0.6)
    ),
    _adapter(
        "an adapter as a pickle",
        "adapter_model.safetensors",
        "save_file",
        both(remove("peft/adapter_model.safetensors"), put("peft/adapter_model.bin", b"\x80\x04.")),
    ),
    _adapter("an adapter that is a pipe", "adapter_model.safetensors", "again", fifo("peft/adapter_model.safetensors")),
    _adapter(
        "an adapter header of 2^63 bytes",
        "adapter_model.safetensors",
        "again",
        put_safetensors("peft/adapter_model.safetensors", b"{}", size=2**63),
    ),
    _adapter("an adapter of another rank", "lora_A", "peft", set_json("peft/adapter_config.json", r=3)),
    _adapter(
        "an adapter of rank 10^9",
        "rank 1,000,000,000",
        "Get the file again",
        set_json("peft/adapter_config.json", r=10**9),
    ),
    _adapter(
        "an adapter of a negative rank", "r is -1", "Get the file again", set_json("peft/adapter_config.json", r=-1)
    ),
    _adapter(
        "an adapter scaled by a word",
        "lora_alpha",
        "Get the file again",
        set_json("peft/adapter_config.json", lora_alpha="x"),
    ),
    _adapter(
        "an adapter scaled by 10^400",
        "lora_alpha",
        "Get the file again",
        set_json("peft/adapter_config.json", lora_alpha=10**400),
    ),
    _adapter(
        "an adapter of a kind that is not known",
        "WONDER",
        "merge",
        set_json("peft/adapter_config.json", peft_type="WONDER"),
    ),
    _adapter(
        "an adapter on layers that are not there",
        "nothing",
        "peft",
        set_json("peft/adapter_config.json", target_modules=["nothing"]),
    ),
    _adapter(
        "an adapter with a pattern that is none",
        "pattern",
        "Get the file again",
        set_json("peft/adapter_config.json", target_modules="(a+)+("),
    ),
    _adapter(
        "an adapter with a pattern that repeats too often",
        "pattern",
        "Get the file again",
        set_json("peft/adapter_config.json", target_modules="a{99999999999999}"),
    ),
    _adapter(
        "an adapter with a pattern that takes forever",
        "takes forever",
        "name the layers",
        set_json("peft/adapter_config.json", target_modules=r"([a-z_.\d]+)+!"),
    ),
    _adapter(
        "an adapter with a pattern of ranks that takes forever",
        "takes forever",
        "name the layers",
        set_json("peft/adapter_config.json", rank_pattern={r"([a-z_.\d]+)+!": 4}),
    ),
    _adapter(
        "an adapter_config.json that is no JSON", "adapter_config.json", "again", put("peft/adapter_config.json", "{")
    ),
    _adapter(
        "an adapter_config.json that leads out of the folder",
        "/etc",
        "--base-model",
        both(
            remove("peft/embedding.json"),
            set_json("peft/adapter_config.json", base_model_name_or_path="../../../../../../../etc"),
        ),
    ),
    _adapter("an embedding.json that is no JSON", "embedding.json", "again", put("peft/embedding.json", "{")),
    _adapter("an embedding.json that is a list", "embedding.json", "again", put("peft/embedding.json", "[]")),
    _adapter(
        "an embedding.json of endless length",
        "embedding.json",
        "again",
        set_json("peft/embedding.json", max_length=float("inf")),
    ),
    _adapter("an embedding.json that is a pipe", "embedding.json", "again", fifo("peft/embedding.json")),
    _adapter(
        "an embedding.json with a pooling that is none",
        "embedding.json",
        "again",
        set_json("peft/embedding.json", pooling="wonder"),
    ),
    _adapter("an embedding.json from the future", "embedding.json", "newer", set_json("peft/embedding.json", wonder=1)),
    _adapter(
        "an embedding.json with a length below nothing",
        "embedding.json",
        "again",
        set_json("peft/embedding.json", max_length=-1),
    ),
]
