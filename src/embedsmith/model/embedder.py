"""Embedder: texts -> embeddings, the one path that training, evaluation, the doctor and the Python API all take.

    texts -> TextTokenizer -> pack_tokens -> backbone (+ adapter), packed attention -> pool by segment -> (K, D)

Cost: one forward over the distinct texts' tokens, nothing padded.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.nn.functional import normalize as unit_length
from transformers import PreTrainedModel

from embedsmith import files
from embedsmith.config import AdapterSection, ModelSection, Pooling, Precision
from embedsmith.errors import ConfigError, ModelError
from embedsmith.model.adapter import (
    add_adapter,
    assumed_settings,
    load_adapter,
    lora_layers,
    save_adapter,
    set_adapter_dropout,
    set_adapter_weights,
)
from embedsmith.model.backbone import SETTINGS_FILE, Backbone, choose_device, find_adapter, load_backbone
from embedsmith.model.dropout import rows_from
from embedsmith.model.fused.decoder import FusedDecoder
from embedsmith.model.fused.layout import why_not_fused
from embedsmith.model.packing import PackedTexts, pack_tokens, split_by_tokens
from embedsmith.model.pooling import pool
from embedsmith.model.tokens import TextTokenizer, tokenize_ahead

# More gains nothing on a CPU (measured).
ENCODE_MAX_TOKENS = 4096
# The first layer's roundings go through all others: a tenth of bfloat16's error for a thirtieth of the work. On a CPU;
# a GPU's float32 products are too slow for it.
_ENCODE_EXACT_LAYERS = defaultdict(int, cpu=1)

Choice = TypeVar("Choice", Pooling, Precision)


@dataclass(frozen=True)
class EmbeddingSettings:
    """What besides the weights defines an embedding; saved beside the adapter as `embedding.json`."""

    base_model: str
    pooling: Pooling
    prompt: str | None
    max_length: int

    @classmethod
    def read(cls, folder: Path) -> "EmbeddingSettings":
        """Read `embedding.json`, or assume the published method where another tool wrote the adapter.

        Raises:
            ModelError: the file is damaged.
        """
        path = folder / SETTINGS_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else assumed_settings(folder)
            return cls(
                base_model=str(values["base_model"]),
                pooling=Pooling(values["pooling"]),
                prompt=values["prompt"],
                max_length=int(values["max_length"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path} is damaged: {error!r}") from error


class Embedder:
    """A language model that embeds texts.

    Use `Embedder.load`; the constructor is for models built in memory.

    Args:
        backbone: the frozen decoder and its tokenizer.
        settings: pooling, prompt and length limit.
        fused: whether to run through fused blocks where the family has them.
    """

    def __init__(self, backbone: Backbone, *, settings: EmbeddingSettings, fused: bool = True) -> None:
        limit = getattr(backbone.model.config, "max_position_embeddings", None) or settings.max_length
        if settings.max_length > limit:
            raise ConfigError(f"model.max_length is {settings.max_length}, but '{backbone.name}' takes {limit}.")
        self.backbone = backbone
        self.settings = settings
        self.tokenizer = TextTokenizer(backbone.tokenizer, max_length=settings.max_length, prompt=settings.prompt)
        self.adapter: PeftModel | None = None
        self._lora_layers: list[LoraLayer] = []
        self.why_not_fused = why_not_fused(backbone.model) if fused else "switched off"
        self.decoder = FusedDecoder(backbone.model) if self.why_not_fused is None else None

    @classmethod
    def load(
        cls,
        model: str = "smollm2-135m",
        *,
        pooling: Pooling | str | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        precision: Precision | str = Precision.AUTO,
        device: str | None = None,
        fused: bool = True,
        base_model: str | None = None,
    ) -> "Embedder":
        """Load MODEL: a built-in name, a hub id, a local folder, a finished run's folder, or a LoRA adapter.

        Args:
            model: see above.
            pooling: `last`, `mean` or `weighted_mean`; None: as trained, else `last`.
            prompt: template with one `{text}`; None: as trained, else the bare text.
            max_length: most tokens per text; None: as trained, else 150.
            precision: `auto`, `bf16` or `fp32`.
            device: a torch device; None: CUDA where there is one, else the CPU.
            fused: run through fused blocks where the family has them; False: transformers' own layers.
            base_model: where the base of a run or adapter lies; None: where it lay when it was trained.

        Raises:
            ModelError: no such model, no decoder, or damaged files.
            ConfigError: an unusable pooling, prompt or length limit.
        """
        adapter_folder = find_adapter(model)
        defaults = ModelSection(model=model)
        saved = EmbeddingSettings.read(adapter_folder) if adapter_folder else None
        if base_model and not saved:
            raise ConfigError(f"'{model}' is no run or adapter, so it has no base model.\nLeave base_model away.")
        settings = EmbeddingSettings(
            base_model=_portable_name(base_model or (saved.base_model if saved else model)),
            pooling=_as_choice(Pooling, pooling, "pooling") or (saved.pooling if saved else defaults.pooling),
            prompt=prompt if prompt is not None else (saved.prompt if saved else None),
            max_length=max_length or (saved.max_length if saved else defaults.max_length),
        )
        try:
            backbone = load_backbone(
                settings.base_model,
                precision=_as_choice(Precision, precision, "precision") or Precision.AUTO,
                device=choose_device(device),
            )
        except ModelError as error:
            if not saved or base_model:
                raise
            advice = "If that base lies elsewhere by now, name it: --base-model MODEL, in Python base_model=MODEL."
            raise ModelError(f"The base of the adapter {model}: {error}\n{advice}") from error
        embedder = cls(backbone, settings=settings, fused=fused)
        if adapter_folder:
            embedder._take(load_adapter(backbone, folder=adapter_folder))
        return embedder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.model.device

    @property
    def dim(self) -> int:
        """Embedding width D."""
        return int(self.backbone.model.config.hidden_size)

    @property
    def path(self) -> str:
        """What runs the layers, for people to read."""
        if self.decoder is not None:
            return f"fused blocks, {self.decoder.kernels.name} kernels"
        return f"blocks not fused: {self.why_not_fused}"

    # ---- the path -------------------------------------------------------------------------------------------------

    def pack(self, texts: Sequence[str]) -> PackedTexts:
        """Tokenize K texts and pack them into one row on the model's device."""
        return pack_tokens(self.tokenizer(texts), device=self.device)

    def hidden_states(self, packed: PackedTexts, *, ends_only: bool = False, num_exact: int = 0) -> torch.Tensor:
        """Last hidden states after the final norm: (N, H), or with `ends_only` those of the S end tokens, (S, H).

        `num_exact` as for `FusedDecoder`; blocks not fused take no notice of it.
        """
        with rows_from(packed.first_row):
            if self.decoder is not None:
                return self.decoder(packed, ends_only=ends_only, num_exact=num_exact)
            output = self.backbone.model(
                input_ids=packed.input_ids,
                position_ids=packed.position_ids,
                use_cache=False,
                segments=packed.segments,
            )
        hidden = output.last_hidden_state[0]
        return hidden[packed.segments.ends] if ends_only else hidden

    def embed(self, packed: PackedTexts, *, pooling: Pooling | None = None) -> torch.Tensor:
        """Unit-length embeddings (K, D) float32 of packed texts, with their graph when grad is enabled."""
        pooling = pooling or self.settings.pooling
        if pooling is Pooling.LAST:
            pooled = self.hidden_states(packed, ends_only=True).float()
        else:
            pooled = pool(self.hidden_states(packed), segments=packed.segments, pooling=pooling)
        return unit_length(pooled, dim=-1)[packed.segment_of_text]

    @contextmanager
    def plain_layers(self) -> Iterator[PreTrainedModel]:
        """Run a block on the backbone's own layers, adapter included, as transformers computes them."""
        if self.decoder is None:
            yield self.backbone.model
            return
        with self.decoder.plain_layers():
            yield self.backbone.model

    # ---- without graph --------------------------------------------------------------------------------------------

    def encode(
        self,
        texts: Sequence[str],
        *,
        max_tokens: int = ENCODE_MAX_TOKENS,
        on_progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Embed K texts; returns (K, D) float32, unit length, in the order given.

        Args:
            texts: any number of strings; equal ones are computed once.
            max_tokens: tokens of one forward; a longer text goes alone.
            on_progress: called with the number of texts finished by each forward.

        Raises:
            TypeError: `texts` is one string, or holds something else than strings.
        """
        pooling = self.settings.pooling
        return self.encode_poolings(texts, poolings=[pooling], max_tokens=max_tokens, on_progress=on_progress)[pooling]

    @torch.no_grad()
    def encode_poolings(
        self,
        texts: Sequence[str],
        *,
        poolings: Sequence[Pooling],
        max_tokens: int = ENCODE_MAX_TOKENS,
        on_progress: Callable[[int], None] | None = None,
    ) -> Mapping[Pooling, np.ndarray]:
        """As `encode`, with several poolings of the same forward."""
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("encode takes a list of strings; for one text write encode([text])[0]")
        counts = Counter(texts)
        distinct = list(counts)
        result = {Pooling(pooling): np.empty((len(distinct), self.dim), dtype=np.float32) for pooling in poolings}
        with self.dropout(is_on=False):
            for first, token_lists in tokenize_ahead(self.tokenizer, distinct):
                for group in split_by_tokens([len(tokens) for tokens in token_lists], max_tokens=max_tokens):
                    packed = pack_tokens([token_lists[index] for index in group], device=self.device)
                    for pooling, vectors in self._embed_poolings(packed, list(result)).items():
                        result[pooling][first + group] = vectors.cpu().numpy()
                    if on_progress:
                        on_progress(sum(counts[distinct[first + index]] for index in group))
        if len(distinct) == len(texts):
            return result
        row_of = {text: row for row, text in enumerate(distinct)}
        rows_of_texts = [row_of[text] for text in texts]
        return {pooling: rows[rows_of_texts] for pooling, rows in result.items()}

    def _embed_poolings(self, packed: PackedTexts, poolings: Sequence[Pooling]) -> dict[Pooling, torch.Tensor]:
        ends_only = list(poolings) == [Pooling.LAST]
        num_exact = _ENCODE_EXACT_LAYERS[self.device.type]
        hidden = self.hidden_states(packed, ends_only=ends_only, num_exact=num_exact)
        if ends_only:
            pooled = {Pooling.LAST: hidden.float()}
        else:
            pooled = {pooling: pool(hidden, segments=packed.segments, pooling=pooling) for pooling in poolings}
        return {pooling: unit_length(rows, dim=-1)[packed.segment_of_text] for pooling, rows in pooled.items()}

    # ---- the adapter ----------------------------------------------------------------------------------------------

    def add_adapter(self, settings: AdapterSection) -> None:
        """Put a fresh LoRA adapter on the backbone; errors as `model.adapter.add_adapter`."""
        assert self.adapter is None, "there is an adapter already"
        self._take(add_adapter(self.backbone, settings=settings))

    def _take(self, adapter: PeftModel) -> None:
        self.adapter = adapter
        self._lora_layers = lora_layers(self.backbone.model)

    def reload_adapter(self, folder: Path) -> None:
        """Set the adapter's weights to those saved in `folder`, which must be of the same shape."""
        assert self.adapter is not None, "there is no adapter"
        set_adapter_weights(self.adapter, folder=folder)

    @contextmanager
    def dropout(self, *, is_on: bool) -> Iterator[None]:
        """Run a block with the adapter's dropout on or off; off is the state outside."""
        set_adapter_dropout(self._lora_layers, is_on=is_on)
        try:
            yield
        finally:
            set_adapter_dropout(self._lora_layers, is_on=False)

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Run a block on the base model alone."""
        if self.adapter is None:
            yield
            return
        with self.adapter.disable_adapter():
            yield

    def save(self, folder: Path | str) -> None:
        """Write the adapter and `embedding.json` as one folder, atomically."""
        assert self.adapter is not None, "there is no adapter to save"
        with files.atomic_folder(folder) as temporary:
            save_adapter(self.adapter, folder=temporary)
            files.write_json(temporary / SETTINGS_FILE, asdict(self.settings))


def _portable_name(model: str) -> str:
    """A folder by its full path, so that a run made from it loads from anywhere on this machine."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def _as_choice(kind: type[Choice], value: Choice | str | None, name: str) -> Choice | None:
    try:
        return None if value is None else kind(value)
    except ValueError:
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(kind)}.") from None
