"""average: runs or adapters on one base -> their mean, or one of them smaller, in a folder that is a MODEL again.

    MODELs, checked to be of one kind -> mean of the weights (`model/averaging.py`) -> lower rank -> number format
    -> folder: adapter/ or model/, average.json, README.md

What is lost on the way is measured: the share of each layer's update that is kept, and embeddings of some sentences.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from embedsmith.data.pairs import load_pairs
from embedsmith.model.averaging import mean_adapter, mean_weights
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.backbone import SETTINGS_FILE, find_adapter, find_model
from embedsmith.model.loading.fingerprint import fingerprint_model, fingerprint_own_files
from embedsmith.model.loading.low_rank import LowRank, make_plain, reduce_rank
from embedsmith.model.loading.settings import EmbeddingSettings
from embedsmith.settings.choices import Precision
from embedsmith.settings.recipe import load_config
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, ModelError, RunError, list_faults
from embedsmith.training.late import LATE_FOLDER
from embedsmith.verbs.card import write_card
from embedsmith.verbs.inputs import begun_machine
from embedsmith.verbs.origin import AVERAGE_FILE, read_average
from embedsmith.verbs.run_folder import CONFIG_FILE, OUTCOME_FILE, is_run, read_outcome

log = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_NUM_SENTENCES = 48


@dataclass(frozen=True)
class Average:
    """What was made.

    Attributes:
        folder: that holds it.
        ranks: (smallest, largest) over the layers; None: all weights, no adapter.
        size_bytes: of the weights' files.
        kept: layer -> share of its update's squared norm that the lower rank has; empty: none was asked for.
        smallest_cosine: of embeddings of sentences to those before rank and number format were lowered; None: neither
            was.
    """

    folder: Path
    ranks: tuple[int, int] | None
    size_bytes: int
    kept: Mapping[str, float]
    smallest_cosine: float | None


@dataclass(frozen=True)
class _Source:
    """A MODEL to be averaged: what the user called it, where its weights lie, how it embeds, the run it is of."""

    model: str
    folder: Path
    is_adapter: bool
    settings: EmbeddingSettings
    run: Path | None


def average_models(
    models: Sequence[str],
    *,
    folder: Path,
    weights: Sequence[float] | None = None,
    rank: int | None = None,
    dtype: str = "fp32",
    base_model: str | None = None,
    device: str | None = None,
) -> Average:
    """Write the mean of models' weights as a model.

    Args:
        models: runs, their `late/step-...` folders, or adapters; one alone is only made smaller.
        folder: to be made; nothing may be in it.
        weights: as many, above 0, of any sum; None: all alike.
        rank: of the adapter, at most; None: as many as the mean needs, the sum of all ranks or the layer's width.
        dtype: number format of an adapter's weights: `fp32`, `bf16` or `fp16`.
        base_model: where the models' base lies; None: where it lay in training.
        device: as `Embedder.load`.

    Raises:
        ConfigError: weights, rank or number format do not fit the models, or change nothing.
        ModelError: a model is not there, or they differ in base, kind or how they embed.
        RunError: the folder is taken.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunError(f"{folder} exists already.\nChoose another folder for --to, or remove it.")
    files.check_output_folder(folder, option="--to")
    shares = _read_weights(weights, models=models)
    sources = [_read_source(model) for model in models]
    _check_alike(sources, base_model=base_model)
    _check_asked(sources, rank=rank, dtype=dtype)
    embedder = _load(sources[0], base_model=base_model, device=device)
    mean = _take_mean(embedder, sources, shares=shares, rank=rank, is_stored_whole=dtype == "fp32")
    with files.atomic_folder(folder) as temporary:
        inner = temporary / embedder.trained.folder_name
        embedder.save(inner, dtype=_DTYPES[dtype])
        smallest_cosine = None
        if mean.vectors is not None:
            embedder.trained.reload(inner)
            smallest_cosine = float(np.einsum("kd,kd->k", _embed_sentences(embedder), mean.vectors).min())
        size_bytes = sum(path.stat().st_size for path in inner.glob("*.safetensors"))
        record = {
            "models": [part for source, share in zip(sources, shares, strict=True) for part in _parts(source, share)],
            "rank": rank,
            "dtype": dtype,
            "kept": mean.kept,
            "smallest_cosine": smallest_cosine,
            "family": embedder.backbone.model.config.model_type,
            "is_plain": embedder.is_plain,
            "attends_as_base": embedder.attends_as_base,
        }
        files.write_json(temporary / AVERAGE_FILE, record)
    write_card(folder)
    return Average(folder, mean.ranks, size_bytes, mean.kept, smallest_cosine)


def _load(source: _Source, *, base_model: str | None, device: str | None) -> Embedder:
    """What the mean is put on."""
    if source.is_adapter:
        return Embedder.load(source.model, base_model=base_model, device=device)
    # Fused blocks keep weights in a place of their own.
    embedder = Embedder.load(source.model, precision=Precision.FP32, device=device, fused=False)
    if embedder.backbone.dense:
        raise ModelError(f"'{source.model}' has layers behind its pooling, which would not be averaged.")
    # A whole model is loaded as its own base.
    embedder.settings = replace(embedder.settings, base_model=source.settings.base_model)
    return embedder


@dataclass(frozen=True)
class _Mean:
    """As of `Average`; `vectors` of the sentences, (K, D), before anything was lowered, where it is."""

    ranks: tuple[int, int] | None = None
    kept: Mapping[str, float] = field(default_factory=dict)
    vectors: np.ndarray | None = None


def _take_mean(
    embedder: Embedder, sources: Sequence[_Source], *, shares: Sequence[float], rank: int | None, is_stored_whole: bool
) -> _Mean:
    """Set what is trained to the mean, an adapter's rank lowered."""
    folders = [source.folder for source in sources]
    if embedder.adapter is None:
        embedder.trained.set_state(mean_weights(folders, weights=shares))
        return _Mean()
    updates = mean_adapter(embedder, folders, weights=shares)
    embedder.replace_adapter(make_plain(updates, backbone=embedder.backbone))
    vectors = None if rank is None and is_stored_whole else _embed_sentences(embedder)
    kept: dict[str, float] = {}
    if rank is not None:
        updates, kept = _reduce(updates, rank=rank)
        embedder.replace_adapter(make_plain(updates, backbone=embedder.backbone))
    ranks = [update.rank for update in updates.values()]
    return _Mean((min(ranks), max(ranks)), kept, vectors)


def _read_weights(weights: Sequence[float] | None, *, models: Sequence[str]) -> list[float]:
    if weights is None:
        return [1 / len(models)] * len(models)
    if len(weights) != len(models):
        raise ConfigError(f"--weights has {len(weights)} numbers for {len(models)} models.\nGive one for each.")
    if wrong := [weight for weight in weights if not (isfinite(weight) and weight > 0)]:
        raise ConfigError(f"--weights holds {wrong[0]:g}; a weight is a number above 0.")
    return [weight / sum(weights) for weight in weights]


def _read_source(model: str) -> _Source:
    inner = find_model(model)
    adapter = find_adapter(inner)
    if adapter is None and not Path(inner).exists():
        raise ModelError(f"There is no run or adapter '{model}'.")
    if adapter is None and not (Path(inner) / SETTINGS_FILE).exists():
        raise ModelError(
            f"'{model}' is neither a run nor an adapter, so nothing says what was trained of it.\n"
            "Name runs of embedsmith train, or LoRA adapters."
        )
    folder = adapter or Path(inner)
    return _Source(model, folder, adapter is not None, EmbeddingSettings.read(folder), _run_of(folder))


def _run_of(folder: Path) -> Path | None:
    """The run that weights are of: `RUN/adapter`, `RUN/model` or `RUN/late/step-...`."""
    folder = folder.absolute()
    run = folder.parent.parent if folder.parent.name == LATE_FOLDER else folder.parent
    return run if is_run(run) else None


def _check_alike(sources: Sequence[_Source], *, base_model: str | None) -> None:
    """Refuse what has no mean that embeds as its parts do; all differences are named."""
    first, *others = sources
    places = [source.folder.resolve() for source in sources]
    if twice := next((one.model for one, place in zip(sources, places, strict=True) if places.count(place) > 1), None):
        raise ConfigError(f"'{twice}' is named twice.\nName it once, and let it count more with --weights.")
    bases = [_fingerprint_base(source, base_model=base_model) for source in sources]
    faults = [
        fault
        for source, base in zip(others, bases[1:], strict=True)
        for fault in _differences(source, first, is_same_base=base == bases[0])
    ]
    if faults:
        advice = "Average runs on the same base that embed their texts in the same way."
        raise ModelError(list_faults("These models have no average:", faults, advice=advice))
    formats = {begun_machine(source.run).get("computed in", "") for source in sources if source.run} - {""}
    if len(formats) > 1:
        log.warning("The models were trained on their base in different ways: %s.", ", ".join(sorted(formats)))


def _fingerprint_base(source: _Source, *, base_model: str | None) -> tuple[str, ...]:
    try:
        return fingerprint_model(base_model or source.settings.base_model)
    except ModelError as error:
        advice = "If that base lies elsewhere by now, name it: --base-model MODEL."
        raise ModelError(f"The base of {source.model}: {error}\n{advice}") from error


def _differences(source: _Source, first: _Source, *, is_same_base: bool) -> Iterator[str]:
    if source.is_adapter != first.is_adapter:
        yield f"{source.model} is {_kind(source)}, {first.model} {_kind(first)}"
        return
    if not is_same_base:
        own, base = source.settings.base_model, first.settings.base_model
        yield f"{source.model} was trained on the base {own}, {first.model} on {base}, which is another"
    expected = _embedding(first.settings)
    for name, value in _embedding(source.settings).items():
        if value != expected[name]:
            yield f"{source.model}: {name} is {value!r}, of {first.model} it is {expected[name]!r}"


def _kind(source: _Source) -> str:
    return "an adapter" if source.is_adapter else "a whole model"


def _embedding(settings: EmbeddingSettings) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(asdict(settings)))  # as the file has them
    return {name: value for name, value in values.items() if name != "base_model"}


def _check_asked(sources: Sequence[_Source], *, rank: int | None, dtype: str) -> None:
    if dtype not in _DTYPES:
        raise ConfigError(f"--dtype is {dtype!r}; it may be {', '.join(_DTYPES)}.")
    if not sources[0].is_adapter and (rank or dtype != "fp32"):
        raise ConfigError(
            "These models have no adapter, so --rank and --dtype do nothing.\nLeave them away; embedsmith export "
            "--dtype bf16 stores a whole model in half the space."
        )
    if len(sources) == 1 and not rank and dtype == "fp32":
        raise ConfigError("One model alone is its own average.\nName more, or make it smaller with --rank or --dtype.")


def _reduce(updates: Mapping[str, LowRank], *, rank: int) -> tuple[dict[str, LowRank], dict[str, float]]:
    largest = max(update.rank for update in updates.values())
    if rank >= largest:
        raise ConfigError(f"--rank is {rank}, but no layer has more than {largest}.\nGive a smaller one, or none.")
    reduced = {layer: reduce_rank(update, rank=rank) for layer, update in updates.items()}
    return {layer: one.update for layer, one in reduced.items()}, {layer: one.kept for layer, one in reduced.items()}


def _embed_sentences(embedder: Embedder) -> np.ndarray:
    return embedder.encode(load_pairs("sample").sentence1[:_NUM_SENTENCES])


def _parts(source: _Source, share: float) -> list[dict[str, Any]]:
    """What average.json says of a model; of one that is an average itself what that was made from, with its shares."""
    if (path := source.folder.absolute().parent / AVERAGE_FILE).exists():
        inner = read_average(path)["models"]
        return [{**part, "share": share * part["share"], "in": source.model} for part in inner]
    part: dict[str, Any] = {"model": source.model, "share": share, "weights": fingerprint_own_files(source.model)}
    part |= {"recipe": None, "trained_on": None, "num_steps": None}
    if source.run:
        part["recipe"] = load_config(source.run / CONFIG_FILE).model_dump(mode="json")
        if (source.run / OUTCOME_FILE).exists():
            outcome = read_outcome(source.run)
            part |= {"trained_on": outcome["trained_on"], "num_steps": outcome["cost"]["num_steps"]}
    return [part]


def describe_kept(kept: Mapping[str, float]) -> str:
    """For people to read: how much of the updates a lower rank has kept, the mean over layers and the least."""
    worst = min(kept, key=lambda layer: kept[layer])
    return f"{fmean(kept.values()):.1%} on average, {kept[worst]:.1%} at least ({worst})"
