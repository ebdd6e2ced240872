"""A model or run -> a folder that other tools load, kept only if it embeds as the model does.

`merged`: transformers' own form, the adapter taken into the weights in float32. `sentence-transformers`: the same, with
a tokenizer that puts the end token itself, and that package's description of pooling, length and prompts. Both hold
`embedding.json`, so that `Embedder.load` takes them too, and take texts as characters (`plain_tokenizers.py`). The LM
head is left out: an embedding has no use for it. `onnx` and `openvino` have a graph (`graph.py`) in the place of the
weights, and what sentence-transformers and transformers.js want beside it.

Invariant: the folder appears under its name only when a set of texts, long and odd ones among them, came out of it as
they come out of the model (`parity.py`); how near is kept in `parity.json`.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch

from embedsmith.export.graph import make_graph
from embedsmith.export.older_names import add_older_names
from embedsmith.export.onnx_files import check_onnx_packages, write_onnx
from embedsmith.export.openvino_files import check_openvino_packages, write_openvino
from embedsmith.export.parity import Parity, check_graph, check_merged, check_sentence_transformers, expect
from embedsmith.export.placing import PlacedPrompts, faults_of_prompts, named_prompts, place_prompts
from embedsmith.export.plain_tokenizers import write_closing_tokenizer, write_tokenizer
from embedsmith.export.sentence_modules import MODES, describe
from embedsmith.model.embedder import Embedder
from embedsmith.model.graph_runner import GraphModel, open_onnx, open_openvino
from embedsmith.model.loading.backbone import SETTINGS_FILE
from embedsmith.model.loading.configuration import can_say_both_ways, let_see_both_ways, sees_both_ways
from embedsmith.settings.choices import Pooling, Precision, Quantization
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, RunError
from embedsmith.support.free_memory import let_go

log = logging.getLogger(__name__)

# Settings that a sentence-transformers folder carries, one way or another; a new one must be thought about.
_CARRIED = {
    *("base_model", "pooling", "prompt", "query_prompt", "instruction", "end_token", "max_length", "matryoshka_dims"),
    *("prompts", "prompt_tokens"),
    *("bidirectional_layers", "pool_over", "quantization"),  # refused where the format cannot say them
}


class Format(StrEnum):
    """What to export to."""

    MERGED = "merged"
    SENTENCE_TRANSFORMERS = "sentence-transformers"
    ONNX = "onnx"
    OPENVINO = "openvino"


class Dtype(StrEnum):
    """Of the weights stored."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"


DTYPES = {
    Format.MERGED: (Dtype.FP32, Dtype.BF16),
    Format.SENTENCE_TRANSFORMERS: (Dtype.FP32, Dtype.BF16),
    Format.ONNX: (Dtype.FP32, Dtype.FP16, Dtype.INT8),
    Format.OPENVINO: (Dtype.FP32, Dtype.FP16, Dtype.INT8),
}
_OPENERS: dict[Format, Callable[[Path], GraphModel]] = {Format.ONNX: open_onnx, Format.OPENVINO: open_openvino}
"""Formats that hold a graph, and what runs it."""
PARITY_FILE = "parity.json"
_COMPUTED = {
    Dtype.FP32: torch.float32,
    Dtype.BF16: torch.bfloat16,
    Dtype.FP16: torch.float16,
    Dtype.INT8: torch.float32,
}


def export(
    model: str,
    *,
    folder: Path,
    to: Format,
    dtype: Dtype = Dtype.FP32,
    base_model: str | None = None,
    device: str = "cpu",
) -> Parity:
    """Write `folder`; returns how near its embeddings are to the model's.

    One model is held at a time, in float32.

    Args:
        model: built-in name, hub id, folder or run.
        folder: must not exist, or be empty; an empty one is filled, so it may be the one where the user stands.
        to: see `Format`.
        dtype: one of `DTYPES` of the format.
        base_model: where the base of a run lies, if not where it lay in training.
        device: where model and folder are compared; a CPU has the most memory, and rounds float32 products nowhere.
            A graph runs on the CPU always.

    Raises:
        RunError: the folder is taken or cannot be written, or what was written does not embed as the model does.
        ConfigError: the format cannot express a setting of the model, or has no such dtype.
        ModelError, MissingExtraError: by their names.
    """
    if dtype not in DTYPES[to]:
        raise ConfigError(f"--dtype is {dtype}, and {to} takes {' or '.join(DTYPES[to])}.\nGive one of those.")
    if to is Format.ONNX:
        check_onnx_packages()
    elif to is Format.OPENVINO:
        check_openvino_packages(in_8_bits=dtype is Dtype.INT8)
    check_new_folder(folder)
    live = Embedder.load(model, base_model=base_model, precision=Precision.FP32, device=device, fused=False)
    _check_expressible(live, to=to)
    expected = expect(live, with_empty=to in _OPENERS and _has_empty_text(live))
    placed = None if to is Format.MERGED else place_prompts(live)
    if to not in _OPENERS and _is_newly_open(live):
        log.warning(
            "Attention goes both ways there, as config.json says. transformers knows that from 5.2 on; tools that do "
            "not know it compute other vectors, and say nothing."
        )
    with files.atomic_folder(folder) as temporary:
        if to in _OPENERS:
            _write_graph(temporary, live=live, placed=place_prompts(live), to=to, dtype=dtype)
        else:
            _write(temporary, live=live, placed=placed, dtype=dtype)
        del live
        let_go()
        if placed is None:
            parity = check_merged(temporary, expected=expected, dtype=dtype, device=device)
        elif to in _OPENERS:
            parity = check_graph(temporary, open_graph=_OPENERS[to], expected=expected, placed=placed, dtype=dtype)
        else:
            parity = check_sentence_transformers(
                temporary, expected=expected, placed=placed, dtype=dtype, device=device
            )
        files.write_json(temporary / PARITY_FILE, asdict(parity))
    return parity


def _write(folder: Path, *, live: Embedder, placed: PlacedPrompts | None, dtype: Dtype) -> None:
    """All files; the adapter stays in the model's weights."""
    network = merge_adapter(live).to(_COMPUTED[dtype])
    network.save_pretrained(folder)
    add_older_names(folder)
    files.write_json(folder / SETTINGS_FILE, asdict(live.settings))
    if placed is None:
        write_tokenizer(live.backbone.tokenizer, folder=folder)
    else:
        write_closing_tokenizer(live.tokenizer, folder=folder, prompts=placed)
        describe(folder, live=live, prompts=placed)


def _write_graph(folder: Path, *, live: Embedder, placed: PlacedPrompts, to: Format, dtype: Dtype) -> None:
    """All files of a format that holds a graph; the adapter stays in the model's weights."""
    # openvino rounds weights itself, and multiplies them in its own number format.
    computed = torch.float32 if to is Format.OPENVINO else _COMPUTED[dtype]
    config = merge_adapter(live).to("cpu", computed).config
    write_closing_tokenizer(
        live.tokenizer,
        folder=folder,
        prompts=placed,
        stands_alone=True,
        # transformers.js takes the last column for the last token, and cuts off what stands behind a text with it.
        padding_side="left" if live.settings.pooling is Pooling.LAST else "right",
        model_max_length=getattr(config, "max_position_embeddings", None),
    )
    describe(folder, live=live, prompts=placed)
    in_8_bits = dtype is Dtype.INT8
    if to is Format.OPENVINO:
        in_16_bits = dtype is Dtype.FP16
        write_openvino(
            make_graph(live), folder=folder, model=live.backbone.name, in_16_bits=in_16_bits, in_8_bits=in_8_bits
        )
        files.write_json(folder / "config.json", config.to_dict())
        return
    file = write_onnx(make_graph(live), folder=folder, model=live.backbone.name, in_8_bits=in_8_bits)
    has_data = file.with_name(f"{file.name}_data").exists()
    in_browsers = {"transformers.js_config": {"dtype": "fp32", "use_external_data_format": has_data}}
    files.write_json(folder / "config.json", {**config.to_dict(), **in_browsers})


def _has_empty_text(live: Embedder) -> bool:
    """Whether an empty text has the same tokens elsewhere: one at all, and no blank that stands before texts there."""
    is_bare = live.prompt_of().template == "{text}" and not live.tokenizer.encoder.starts
    return bool(live.tokenizer.end_token or not is_bare) and not live.tokenizer.encoder.puts_blank


def _check_expressible(live: Embedder, *, to: Format) -> None:
    faults = what_cannot_be_expressed(live, to=to)
    if not faults:
        return
    able = [other for other in Format if not what_cannot_be_expressed(live, to=other)]
    advice = f"Export to {able[0]}, or load" if able else "Load"
    raise ConfigError(f"Cannot be expressed in {to}: {'; '.join(faults)}.\n{advice} it with embedsmith.")


def what_cannot_be_expressed(live: Embedder, *, to: Format) -> list[str]:
    """Settings that the format has no place for, by name and value."""
    settings, faults = live.settings, []
    if settings.quantization is not Quantization.NONE:
        faults.append(f"quantization {settings.quantization}: the adapter was trained on rounded weights")
    if to is Format.MERGED:
        if live.backbone.dense:
            faults.append("dense layers behind the pooling")
        return faults
    for name in sorted(set(asdict(settings)) - _CARRIED):
        faults.append(f"{name} {getattr(settings, name)}")
    if (why_not := _why_not_attended(live, to=to)) is not None:
        faults.append(f"bidirectional_layers {settings.bidirectional_layers}{why_not}")
    if settings.pool_over == "text":
        faults.append("means over the text alone, without the start token")
    has_lead = settings.pooling is not Pooling.LAST and any(one.parts[0] for one in named_prompts(live).values())
    if to in _OPENERS and settings.pool_over == "behind_prompt" and has_lead:
        faults.append("means behind the prompt alone: a graph does not know where that ends")
    if settings.pooling not in MODES:
        faults.append(f"pooling {settings.pooling}")
    return [*faults, *faults_of_prompts(live)]


def _why_not_attended(live: Embedder, *, to: Format) -> str | None:
    """What to say of layers that do not see what they should there; None: they do."""
    config = live.transformer.config
    if live.attends_as_base:
        return None
    if to in _OPENERS:  # a graph opens any layers, and closes none
        return ", but its base sees both ways" if sees_both_ways(config) else None
    if live.causal_layers:
        return ", where a configuration opens all layers or none"
    return None if _is_newly_open(live) else f" within a window of {config.sliding_window} tokens"


def _is_newly_open(live: Embedder) -> bool:
    """Whether attention goes both ways as the base's configuration does not say, and could."""
    assert live.settings.max_length
    could = can_say_both_ways(live.transformer.config, max_length=live.settings.max_length)
    return live.causal_layers == 0 and not live.attends_as_base and could


def check_new_folder(folder: Path) -> None:
    """Raise RunError where a folder is there already and holds something, or leads nowhere."""
    if folder.is_symlink() and not folder.exists():
        raise RunError(f"{folder} is a link to nothing.\nChoose another folder.")
    files.check_output_folder(folder, option="FOLDER")
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} exists already and is not empty.\nChoose another folder.")


def merge_adapter(live: Embedder) -> Any:
    """The network, with the adapter in its weights, and attention both ways in its configuration."""
    if live.adapter is not None:
        live.adapter.merge_and_unload()
    if _is_newly_open(live):
        let_see_both_ways(live.backbone.model.config)
    return live.backbone.model
