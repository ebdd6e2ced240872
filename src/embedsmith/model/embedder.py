"""Embedder: texts -> embeddings, the one path that training, evaluation, the doctor and the Python API all take.

    texts -> TextTokenizer -> pack_tokens -> backbone (+ adapter), packed attention -> pool by segment -> (K, D)

Cost: one forward over the distinct texts' tokens, nothing padded.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.nn.functional import normalize as unit_length
from transformers import PreTrainedModel

from embedsmith import files
from embedsmith.config import AdapterSection, ModelSection, Pooling, Precision, Side
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
from embedsmith.model.pooling import pool, pooled_width
from embedsmith.model.tokens import TextTokenizer, tokenize_ahead
from embedsmith.model.widths import check_dim, shorten
from embedsmith.prompts import Prompt, read_prompt, resolve_template

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
    query_prompt: str | None = None
    instruction: str | None = None
    end_token: bool = True
    matryoshka_dims: tuple[int, ...] = ()

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
                query_prompt=values.get("query_prompt"),
                instruction=values.get("instruction"),
                end_token=bool(values.get("end_token", True)),
                matryoshka_dims=tuple(int(dim) for dim in values.get("matryoshka_dims", ())),
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
        limit = _length_limit(backbone)
        if limit and settings.max_length > limit:
            raise ConfigError(f"model.max_length is {settings.max_length}, but '{backbone.name}' takes {limit}.")
        self.backbone = backbone
        self.settings = settings
        self.tokenizer = self._make_tokenizer()
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
        query_prompt: str | None = None,
        instruction: str | None = None,
        end_token: bool | None = None,
        max_length: int | None = None,
        precision: Precision | str = Precision.AUTO,
        device: str | None = None,
        fused: bool = True,
        base_model: str | None = None,
    ) -> "Embedder":
        """Load MODEL: a built-in name, a hub id, a local folder, a finished run's folder, or a LoRA adapter.

        Args:
            model: see above.
            pooling: `last`, `mean`, `weighted_mean` or `concat`; None: as trained, else `last`.
            prompt: template with one or two `{text}`, or a known name; None: as trained, else the bare text.
            query_prompt: the same for queries; None: as trained, else as `prompt`.
            instruction: fills `{instruction}` in a prompt; None: as trained.
            end_token: whether texts end with the end token; None: as trained, else yes.
            max_length: most tokens per text; None: as trained, else 150 or what the model takes.
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
            prompt=_as_template(prompt) if prompt is not None else (saved.prompt if saved else None),
            max_length=max_length or (saved.max_length if saved else 0),
            query_prompt=_as_template(query_prompt) or (saved.query_prompt if saved else None),
            instruction=instruction or (saved.instruction if saved else None),
            end_token=end_token if end_token is not None else (saved.end_token if saved else defaults.end_token),
            matryoshka_dims=saved.matryoshka_dims if saved else (),
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
        if not settings.max_length:
            settings = replace(settings, max_length=min(defaults.max_length, _length_limit(backbone) or sys.maxsize))
        embedder = cls(backbone, settings=settings, fused=fused)
        if adapter_folder:
            embedder._take(load_adapter(backbone, folder=adapter_folder))
        return embedder

    def _make_tokenizer(self) -> TextTokenizer:
        settings = self.settings
        tokenizer = TextTokenizer(self.backbone.tokenizer, max_length=settings.max_length, end_token=settings.end_token)
        for side in Side:  # a prompt that leaves no room, or lacks its instruction, must show at once
            tokenizer.tokenize([""], prompts=self.prompt_of(side))
        return tokenizer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.model.device

    @property
    def dim(self) -> int:
        """Embedding width D."""
        return pooled_width(self.backbone.model.config.hidden_size, pooling=self.settings.pooling)

    @property
    def path(self) -> str:
        """What runs the layers, for people to read."""
        if self.decoder is not None:
            return f"fused blocks, {self.decoder.kernels.name} kernels"
        return f"blocks not fused: {self.why_not_fused}"

    # ---- the path -------------------------------------------------------------------------------------------------

    def prompt_of(self, side: Side = Side.DOCUMENT, *, instruction: str | None = None) -> Prompt:
        """The prompt of queries or documents, with this instruction or the model's own.

        Raises:
            ConfigError: the prompt needs an instruction, and there is none.
        """
        settings = self.settings
        template = settings.query_prompt if side is Side.QUERY and settings.query_prompt else settings.prompt
        return read_prompt(template, instruction=instruction or settings.instruction)

    def change_prompt(self, prompt: str | None, *, end_token: bool) -> None:
        """Embed queries and documents under another prompt from here on.

        Raises:
            ConfigError: the prompt leaves no room for a text.
        """
        self.settings = replace(self.settings, prompt=prompt, query_prompt=None, end_token=end_token)
        self.tokenizer = self._make_tokenizer()

    def pack(self, texts: Sequence[str], *, prompts: Sequence[Prompt] | None = None) -> PackedTexts:
        """Tokenize K texts, each under its own prompt (None: a document's), and pack them on the model's device."""
        tokenized = self.tokenizer.tokenize(texts, prompts=self.prompt_of() if prompts is None else prompts)
        return pack_tokens(tokenized, device=self.device)

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
        side: Side | str = Side.DOCUMENT,
        instruction: str | None = None,
        dim: int | None = None,
        max_tokens: int = ENCODE_MAX_TOKENS,
        on_progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Embed K texts; returns (K, D) float32, unit length, in the order given.

        Args:
            texts: any number of strings; equal ones are computed once.
            side: `query` or `document`, which matters where the model has a prompt for queries.
            instruction: fills `{instruction}` in the prompt; None: the model's own.
            dim: keep this many dimensions, the first ones, at unit length; None: all D. Good where the adapter was
                trained for it (`settings.matryoshka_dims`).
            max_tokens: tokens of one forward; a longer text goes alone.
            on_progress: called with the number of texts finished by each forward.

        Raises:
            TypeError: `texts` is one string, or holds something else than strings.
            ConfigError: the prompt needs an instruction, or leaves no room for a text; `dim` is not in 1 ... D.
        """
        if dim is not None:
            check_dim(dim, width=self.dim)
        pooling = self.settings.pooling
        rows = self.encode_poolings(
            texts,
            poolings=[pooling],
            side=side,
            instruction=instruction,
            max_tokens=max_tokens,
            on_progress=on_progress,
        )[pooling]
        return rows if dim is None else shorten(torch.from_numpy(rows), dim=dim).numpy()

    @torch.no_grad()
    def encode_poolings(
        self,
        texts: Sequence[str],
        *,
        poolings: Sequence[Pooling],
        side: Side | str = Side.DOCUMENT,
        instruction: str | None = None,
        max_tokens: int = ENCODE_MAX_TOKENS,
        on_progress: Callable[[int], None] | None = None,
    ) -> Mapping[Pooling, np.ndarray]:
        """As `encode`, with several poolings of the same forward."""
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("encode takes a list of strings; for one text write encode([text])[0]")
        prompt = self.prompt_of(Side(side), instruction=instruction)
        counts = Counter(texts)
        distinct = list(counts)
        hidden_size = self.backbone.model.config.hidden_size
        result = {
            Pooling(pooling): np.empty((len(distinct), pooled_width(hidden_size, pooling=pooling)), dtype=np.float32)
            for pooling in poolings
        }
        with self.dropout(is_on=False):
            for first, tokenized in tokenize_ahead(self.tokenizer, distinct, prompt=prompt):
                for group in split_by_tokens([len(tokens) for tokens in tokenized.ids], max_tokens=max_tokens):
                    packed = pack_tokens(tokenized.select(group), device=self.device)
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


def _length_limit(backbone: Backbone) -> int | None:
    return getattr(backbone.model.config, "max_position_embeddings", None)


def _portable_name(model: str) -> str:
    """A folder by its full path, so that a run made from it loads from anywhere on this machine."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def _as_template(value: str | None) -> str | None:
    try:
        return None if value is None else resolve_template(value)
    except ValueError as error:
        raise ConfigError(f"The prompt {value!r} {error}.") from None


def _as_choice(kind: type[Choice], value: Choice | str | None, name: str) -> Choice | None:
    try:
        return None if value is None else kind(value)
    except ValueError:
        raise ConfigError(f"{name} is {value!r}; it must be one of {', '.join(kind)}.") from None
