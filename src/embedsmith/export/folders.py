"""A model or run -> a folder that other tools load, kept only if it embeds as the model does.

`merged`: transformers' own form, the adapter taken into the weights in float32. `sentence-transformers`: the same, with
a tokenizer that puts the end token itself, and that package's description of pooling, length and prompts. Both hold
`embedding.json`, so that `Embedder.load` takes them too, and take texts as characters (`plain_tokenizers.py`). The LM
head is left out: an embedding has no use for it.

Invariant: the folder appears under its name only when a set of texts, long and odd ones among them, came out of it as
they come out of the model (`parity.py`).
"""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch

from embedsmith.export.parity import check_merged, check_sentence_transformers, expect
from embedsmith.export.placing import PlacedPrompts, faults_of_prompts, place_prompts
from embedsmith.export.plain_tokenizers import write_closing_tokenizer, write_tokenizer
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.backbone import SETTINGS_FILE
from embedsmith.model.loading.dense import save_dense
from embedsmith.settings.config import Pooling, Precision, Quantization, Side
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, RunError
from embedsmith.support.free_memory import let_go

_MODES = {Pooling.LAST: "lasttoken", Pooling.MEAN: "mean", Pooling.WEIGHTED_MEAN: "weightedmean"}
_ALL_MODES = {
    "cls": "cls_token",
    "mean": "mean_tokens",
    "max": "max_tokens",
    "mean_sqrt_len": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "lasttoken": "lasttoken",
}
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


def export(
    model: str,
    *,
    folder: Path,
    to: Format,
    dtype: Precision = Precision.FP32,
    base_model: str | None = None,
    device: str = "cpu",
) -> float:
    """Write `folder`; returns the smallest cosine between its embeddings and the model's.

    One model is held at a time, in float32.

    Args:
        model: built-in name, hub id, folder or run.
        folder: must not exist, or be empty; an empty one is filled, so it may be the one where the user stands.
        to: see `Format`.
        dtype: of the weights stored, fp32 or bf16.
        base_model: where the base of a run lies, if not where it lay in training.
        device: where model and folder are compared; a CPU has the most memory, and rounds float32 products nowhere.

    Raises:
        RunError: the folder is taken or cannot be written, or what was written does not embed as the model does.
        ConfigError: the format cannot express a setting of the model.
        ModelError, MissingExtraError: by their names.
    """
    check_new_folder(folder)
    live = Embedder.load(model, base_model=base_model, precision=Precision.FP32, device=device, fused=False)
    faults = what_cannot_be_expressed(live, to=to)
    if faults:
        other = next(format_ for format_ in Format if format_ is not to)
        able = "" if what_cannot_be_expressed(live, to=other) else f"Export to {other}, or "
        raise ConfigError(
            f"Cannot be expressed in {to}: {'; '.join(faults)}.\n{able}{'l' if able else 'L'}oad it with embedsmith."
        )
    expected = expect(live)
    placed = None if to is Format.MERGED else place_prompts(live)
    with files.atomic_folder(folder) as temporary:
        _write(temporary, live=live, placed=placed, dtype=dtype)
        del live
        let_go()
        if placed is None:
            return check_merged(temporary, expected=expected, dtype=dtype, device=device)
        return check_sentence_transformers(temporary, expected=expected, placed=placed, dtype=dtype, device=device)


def _write(folder: Path, *, live: Embedder, placed: PlacedPrompts | None, dtype: Precision) -> None:
    """All files; the adapter stays in the model's weights."""
    network = _merge(live)
    if dtype is Precision.BF16:
        network.to(torch.bfloat16)
    network.save_pretrained(folder)
    files.write_json(folder / SETTINGS_FILE, asdict(live.settings))
    if placed is None:
        write_tokenizer(live.backbone.tokenizer, folder=folder)
    else:
        write_closing_tokenizer(live.tokenizer, folder=folder, prompts=placed)
        _describe(folder, live=live, prompts=placed)


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
    if not live.attends_as_base:
        faults.append(f"bidirectional_layers {settings.bidirectional_layers}")
    if settings.pool_over == "text":
        faults.append("means over the text alone, without the start token")
    if settings.pooling not in _MODES:
        faults.append(f"pooling {settings.pooling}")
    return [*faults, *faults_of_prompts(live)]


def check_new_folder(folder: Path) -> None:
    """Raise RunError where a folder is there already and holds something, or leads nowhere."""
    if folder.is_symlink() and not folder.exists():
        raise RunError(f"{folder} is a link to nothing.\nChoose another folder.")
    files.check_output_folder(folder, option="FOLDER")
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} exists already and is not empty.\nChoose another folder.")


def _merge(live: Embedder) -> Any:
    """The network, with the adapter in its weights."""
    if live.adapter is not None:
        live.adapter.merge_and_unload()
    return live.backbone.model


def _describe(folder: Path, *, live: Embedder, prompts: PlacedPrompts) -> None:
    """sentence-transformers' own files, in the form that its old and new versions and the servers read."""
    settings = live.settings
    dense = live.backbone.dense
    kinds = ["Transformer", "Pooling"]
    for layer in dense:
        kinds += ["Normalize"] * layer.is_normalized + ["Dense"]
    kinds.append("Normalize")
    folders = [f"{index}_{kind}" if index else "" for index, kind in enumerate(kinds)]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(zip(folders, kinds, strict=True))
    ]
    limits = {"max_seq_length": settings.max_length, "do_lower_case": False}
    files.write_json(folder / "sentence_bert_config.json", limits)
    files.write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "SentenceTransformer",
            "prompts": prompts.texts,
            "default_prompt_name": str(Side.DOCUMENT) if prompts.texts[Side.DOCUMENT] else None,
            "similarity_fn_name": "cosine",
        },
    )
    mode = _MODES[settings.pooling]
    (folder / "1_Pooling").mkdir()
    hidden_size = live.backbone.model.config.hidden_size
    files.write_json(
        folder / "1_Pooling" / "config.json",
        {
            "embedding_dimension": hidden_size,
            "word_embedding_dimension": hidden_size,
            "pooling_mode": mode,
            **{f"pooling_mode_{old}": new == mode for new, old in _ALL_MODES.items()},
            "include_prompt": settings.pool_over == "all",
        },
    )
    layers = iter(dense)
    for name, kind in zip(folders, kinds, strict=True):
        if kind == "Normalize":
            (folder / name).mkdir()
            files.write_json(folder / name / "config.json", {})
        elif kind == "Dense":
            save_dense(next(layers), folder / name)
    files.write_json(folder / "modules.json", modules)
