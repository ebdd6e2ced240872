"""Embedder: texts -> embeddings, the one path that training, evaluation, the doctor and the Python API all take.

    texts -> TextTokenizer -> pack_tokens -> backbone (+ adapter), packed attention -> pool by segment -> (K, D)

Cost: one forward over the distinct texts' tokens, nothing padded.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch.nn.functional import normalize as unit_length
from transformers import PreTrainedModel

from embedsmith.model.encoding import embed_in_groups, encode_texts, read_texts, tokens_of_a_forward
from embedsmith.model.layers.dropout import rows_from
from embedsmith.model.layers.fused.decoder import FusedDecoder
from embedsmith.model.layers.fused.layout import is_sharded, longest_static, why_not_fused
from embedsmith.model.layers.segments import PackedTexts
from embedsmith.model.loading.adapter import (
    add_adapter,
    load_adapter,
    lora_layers,
    put_adapter,
    set_adapter_dropout,
)
from embedsmith.model.loading.backbone import (
    ADAPTER_FILE,
    SETTINGS_FILE,
    Backbone,
    find_adapter,
    find_model,
)
from embedsmith.model.loading.configuration import sees_both_ways
from embedsmith.model.loading.dense import check_dense
from embedsmith.model.loading.devices import choose_device, choose_precision
from embedsmith.model.loading.embedding_files import describe_model
from embedsmith.model.loading.fingerprint import describe_embedding
from embedsmith.model.loading.plain_lora import PlainLora
from embedsmith.model.loading.settings import EmbeddingSettings, PromptTokens
from embedsmith.model.loading.stages import load_base
from embedsmith.model.loading.tokenizer_files import check_prompt_ids
from embedsmith.model.packing import pack_tokens
from embedsmith.model.pooling import pool, pooled_width
from embedsmith.model.tokens import TextTokenizer, TokenizedTexts
from embedsmith.model.trained import Trained, unfreeze
from embedsmith.model.vector_precision import Ranges, check_vector_precision, quantize_vectors
from embedsmith.model.widths import check_dim, shorten
from embedsmith.settings.choices import Pooling, Precision, Quantization, Side, VectorPrecision
from embedsmith.settings.config import AdapterSection
from embedsmith.settings.model import DEFAULT_MAX_LENGTH
from embedsmith.settings.prompts import Prompt, check_instruction, read_prompt
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, ModelError

ASKED = "asked for"
"""The origin of a setting that the caller gives."""
# The first layer's roundings go through all others: a tenth of bfloat16's error for a thirtieth of the work. On a CPU;
# a GPU's float32 products are too slow for it.
_EXACT_LAYERS = defaultdict(int, cpu=1)


class Embedder:
    """A language model that embeds texts.

    Use `Embedder.load`; the constructor is for models built in memory.

    Args:
        backbone: the frozen decoder and its tokenizer.
        settings: pooling, prompt and length limit.
        fused: whether to run through fused blocks where the family has them.
        origins: field of the settings -> what says it, a file of the model or whoever asked; None: nobody.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        settings: EmbeddingSettings,
        fused: bool = True,
        origins: Mapping[str, str] | None = None,
    ) -> None:
        config = backbone.model.config
        # A text beyond the second would change how all texts of its packed row are embedded.
        limit = min(getattr(config, "max_position_embeddings", None) or sys.maxsize, longest_static(config))
        max_length = min(DEFAULT_MAX_LENGTH, limit) if settings.max_length is None else settings.max_length
        if max_length > limit:
            raise ConfigError(
                f"model.max_length is {max_length}, but '{backbone.name}' takes {limit}.\nGive that, or none."
            )
        if settings.bidirectional_layers is None:
            settings = replace(settings, bidirectional_layers="all" if sees_both_ways(config) else 0)
        num_bidirectional = settings.num_bidirectional(config.num_hidden_layers)
        self.causal_layers = config.num_hidden_layers - num_bidirectional
        # What texts begin with in common is computed once, where no layer lets it see what stands behind.
        self.shares_prefixes = num_bidirectional == 0
        self.backbone = backbone
        self.origins = dict(origins or {})
        self.settings = replace(settings, max_length=max_length)
        self.tokenizer = self._make_tokenizer()
        self.settings = replace(self.settings, end_token=self.tokenizer.end_token)
        self._check_width(settings.pooling)
        self.adapter: PeftModel | None = None
        self._lora_layers: list[LoraLayer] = []
        self.why_not_fused = why_not_fused(backbone.model) if fused else "switched off"
        self.decoder = None
        if self.why_not_fused is None:
            self.decoder = FusedDecoder(backbone.model, num_bidirectional=num_bidirectional)

    @classmethod
    def load(
        cls,
        model: str = "smollm2-135m",
        *,
        pooling: Pooling | str | None = None,
        prompt: str | None = None,
        query_prompt: str | None = None,
        instruction: str | None = None,
        prompt_tokens: PromptTokens | None = None,
        end_token: bool | None = None,
        max_length: int | None = None,
        bidirectional_layers: int | Literal["all"] | None = None,
        precision: Precision | str = Precision.AUTO,
        quantization: Quantization | str | None = None,
        device: str | None = None,
        fused: bool = True,
        sharded: bool = False,
        base_model: str | None = None,
        as_base: bool = False,
    ) -> "Embedder":
        """Load MODEL: a built-in name, hub id, local folder, GGUF file, finished run's folder, or LoRA adapter.

        "As trained" is as the files of a run, or of a published embedding model, say.

        Args:
            model: see above.
            pooling: `last`, `mean`, `weighted_mean` or `concat`; None: as trained, else `last`.
            prompt: template with one or two `{text}`, or a name: of one of the model's own, or a known one; None: as
                trained, else the bare text.
            query_prompt: the same for queries; None: as trained, else as `prompt`.
            instruction: fills `{instruction}` in a prompt; None: as trained.
            prompt_tokens: whether prompt and text are tokenised `apart` or `joined`; None: as trained, else apart.
            end_token: whether texts end with the end token; None: as trained, else yes.
            max_length: most tokens per text; None: as trained, else 150 or what the model takes.
            bidirectional_layers: so many of the last layers, or `all`, see later tokens; None: as trained, else none.
            precision: `auto`, `bf16` or `fp32`.
            quantization: of the base: `none`, `8bit` or `4bit`; None: as trained, else none.
            device: a torch device; None: CUDA where there is one, else the CPU.
            fused: run through fused blocks where the family has them; False: transformers' own layers.
            sharded: hold the base together with all other processes of torch's default group; each must then embed
                as often as the others, and fused blocks do not run.
            base_model: where the base of a run or adapter lies; None: where it lay when it was trained.
            as_base: take a run's adapter into the weights, for another one to be trained on top.

        Raises:
            ModelError: no such model, no decoder, or damaged files.
            ConfigError: an unusable pooling, prompt or length limit.
        """
        model = find_model(model)
        adapter_folder = find_adapter(model)
        if base_model and not adapter_folder:
            raise ConfigError(f"'{model}' is no run or adapter, so it has no base model.\nLeave base_model away.")
        described = describe_model(model, base_model=base_model)
        given = {
            "pooling": pooling,
            "prompt": prompt,
            "query_prompt": query_prompt,
            "instruction": instruction,
            "prompt_tokens": prompt_tokens,
            "end_token": end_token,
            "max_length": max_length,
            "bidirectional_layers": bidirectional_layers,
            "quantization": quantization,
        }
        settings = described.settings.override(
            {**given, "base_model": base_model if adapter_folder and not as_base else model}
        )
        origins = {**described.origins, **{name: ASKED for name, value in given.items() if value is not None}}
        if adapter_folder and not settings.base_model.strip():
            raise ModelError(
                f"The adapter {model} does not say which base model it belongs to (base_model_name_or_path in "
                f"{ADAPTER_FILE} is empty).\nName it: --base-model MODEL, in Python base_model=MODEL."
            )
        try:
            backbone = load_base(
                settings.base_model,
                precision=choose_precision(precision),
                device=choose_device(device),
                quantization=settings.quantization,
                sharded=sharded,
            )
        except ModelError as error:
            if not adapter_folder or base_model or as_base:
                raise
            advice = "If that base lies elsewhere by now, name it: --base-model MODEL, in Python base_model=MODEL."
            raise ModelError(f"The base of the adapter {model}: {error}\n{advice}") from error
        embedder = cls(backbone, settings=settings, fused=fused, origins=origins)
        if adapter_folder and not as_base:
            embedder._take(load_adapter(backbone, folder=adapter_folder))
        return embedder

    def _make_tokenizer(self) -> TextTokenizer:
        settings = self.settings
        assert settings.max_length is not None
        tokenizer = TextTokenizer(
            self.backbone.tokenizer,
            max_length=settings.max_length,
            end_token=settings.end_token,
            pool_over=settings.pool_over,
            prompt_tokens=settings.prompt_tokens,
        )
        for side in Side:  # a prompt that leaves no room, or lacks its instruction, must show at once
            check_prompt_ids(
                tokenizer.tokenize([""], prompts=self.prompt_of(side)).ids[0].tolist(),
                tokenizer=self.backbone.tokenizer,
                num_rows=self.backbone.model.get_input_embeddings().num_embeddings,
            )
        return tokenizer

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.model.device

    @property
    def dim(self) -> int:
        """Embedding width D."""
        return self.width_of(self.settings.pooling)

    @property
    def poolings(self) -> list[Pooling]:
        """Those that its states may be pooled by: all, or its own alone where dense layers were made for that."""
        return [self.settings.pooling] if self.backbone.dense else list(Pooling)

    def width_of(self, pooling: Pooling) -> int:
        """Embedding width D under another pooling."""
        if self.backbone.dense:
            return self.backbone.dense[-1].out_features
        return pooled_width(self.backbone.model.config.hidden_size, pooling=pooling)

    @property
    def max_length(self) -> int:
        """Most tokens per text, prompt and end token included; longer texts are cut."""
        return self.tokenizer.max_length

    @property
    def transformer(self) -> PreTrainedModel:
        """The backbone's network."""
        return self.backbone.model

    @property
    def run_by(self) -> None:
        """No other package's code for embedding."""

    @property
    def takes_instruction(self) -> bool:
        """Whether a prompt has a place for an instruction."""
        return self.settings.takes_instruction

    @property
    def is_plain(self) -> bool:
        """Whether a text's vector is its pooled states and nothing more, with the tokenizer's `eos_token` as end, and
        no blank that the tokenizer puts where prompt and text meet."""
        eos = self.backbone.tokenizer.eos_token_id
        is_pooled = not self.backbone.dense and self.settings.pool_over == "all"
        has_seam = self.settings.prompt_tokens == "apart" and self.settings.prompt is not None
        return is_pooled and self.tokenizer.end_id == eos and not (has_seam and self.tokenizer.encoder.puts_blank)

    @property
    def attends_as_base(self) -> bool:
        """Whether attention goes the ways that the backbone's own configuration says, as other tools run it."""
        return self.settings.bidirectional_layers == ("all" if sees_both_ways(self.backbone.model.config) else 0)

    @property
    def is_sharded(self) -> bool:
        """Whether several processes hold the base together, so that each must run as often as the others."""
        return is_sharded(self.backbone.model)

    @property
    def path(self) -> str:
        """What runs the layers, for people to read."""
        if self.decoder is not None:
            return f"fused blocks, {self.decoder.kernels.name} kernels"
        return f"blocks not fused: {self.why_not_fused}"

    def _check_width(self, pooling: Pooling) -> None:
        check_dense(self.backbone.dense, width=pooled_width(self.backbone.model.config.hidden_size, pooling=pooling))

    # ---- the path -------------------------------------------------------------------------------------------------

    def prompt_of(self, side: Side = Side.DOCUMENT, *, instruction: str | None = None) -> Prompt:
        """The prompt of queries or documents, with this instruction or the model's own.

        Raises:
            ConfigError: the prompt needs an instruction, and there is none.
        """
        settings = self.settings
        template = settings.query_prompt if side is Side.QUERY and settings.query_prompt else settings.prompt
        return read_prompt(template, instruction=instruction or settings.instruction)

    @property
    def prompts(self) -> Mapping[str, str]:
        """Name -> template of what a published model brings; what was trained here is for the prompts it was trained
        with."""
        return {} if self.origins.get("prompts") == SETTINGS_FILE else self.settings.prompts

    def why_not_shared(self, side: Side = Side.DOCUMENT) -> str | None:
        """Why a prompt's first part is computed again with every text; None: it is computed once, or there is none."""
        prompt = self.prompt_of(side)
        if not prompt.parts[0]:
            return None
        if not self.shares_prefixes:
            return "attention goes both ways"
        return "it gives the text twice" if prompt.is_echo else None

    def change_prompt(self, prompt: str | None, *, end_token: bool | None = None) -> None:
        """Embed queries and documents under another template from here on; `end_token` None: as before.

        Raises:
            ConfigError: the prompt leaves no room for a text.
        """
        end_token = self.settings.end_token if end_token is None else end_token
        self.settings = replace(self.settings, prompt=prompt, query_prompt=None, end_token=end_token)
        self.tokenizer = self._make_tokenizer()

    def pack(self, texts: Sequence[str], *, prompts: Sequence[Prompt] | None = None) -> PackedTexts:
        """Tokenize K texts, each under its own prompt (None: a document's), and pack them on the model's device."""
        tokenized = self.tokenizer.tokenize(texts, prompts=self.prompt_of() if prompts is None else prompts)
        return pack_tokens(tokenized, shares_prefixes=self.shares_prefixes, device=self.device)

    def hidden_states(self, packed: PackedTexts, *, ends_only: bool = False, num_exact: int = 0) -> torch.Tensor:
        """Last hidden states after the final norm: (N, H), or with `ends_only` those of the S end tokens, (S, H).

        `num_exact` as for `FusedDecoder`; blocks not fused take no notice of it.
        """
        with rows_from(packed.first_row, rows=packed.rows):
            if self.decoder is not None:
                return self.decoder(packed, ends_only=ends_only, num_exact=num_exact)
            output = self.backbone.model(
                input_ids=packed.input_ids,
                position_ids=packed.position_ids,
                use_cache=False,
                segments=packed.segments,
                causal_layers=self.causal_layers,
            )
        hidden = output.last_hidden_state[0]
        return hidden[packed.segments.ends] if ends_only else hidden

    def embed(self, packed: PackedTexts) -> torch.Tensor:
        """Unit-length embeddings (K, D) float32 of packed texts, with their graph when grad is enabled."""
        pooling = self.settings.pooling
        return self.embed_poolings(packed, [pooling])[pooling]

    def embed_poolings(
        self, packed: PackedTexts, poolings: Sequence[Pooling], *, num_exact: int = 0
    ) -> dict[Pooling, torch.Tensor]:
        """As `embed`, with several poolings of one forward; `num_exact` as for `hidden_states`."""
        ends_only = list(poolings) == [Pooling.LAST]
        hidden = self.hidden_states(packed, ends_only=ends_only, num_exact=num_exact)
        if ends_only:
            pooled = {Pooling.LAST: hidden.float()}
        else:
            pooled = {pooling: pool(hidden, segments=packed.segments, pooling=pooling) for pooling in poolings}
        for layer in self.backbone.dense:
            pooled = {pooling: layer(rows) for pooling, rows in pooled.items()}
        return {pooling: unit_length(rows, dim=-1)[packed.segment_of_text] for pooling, rows in pooled.items()}

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
        texts: Iterable[str],
        *,
        side: Side | str = Side.DOCUMENT,
        instruction: str | None = None,
        dim: int | None = None,
        vector_precision: VectorPrecision | str = VectorPrecision.FLOAT32,
        ranges: Ranges | None = None,
        max_tokens: int | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Embed K texts; returns (K, D) float32, unit length, in the order given, or what `vector_precision` says.

        Args:
            texts: any number of strings, in anything that has an order; equal ones are computed once. Control tokens
                spelled in them are characters.
            side: `query` or `document`, which matters where the model has a prompt for queries.
            instruction: fills `{instruction}` in the prompt; None: the model's own.
            dim: keep this many dimensions, the first ones, at unit length; None: all D. Good where the adapter was
                trained for it (`settings.matryoshka_dims`).
            vector_precision: `float32`, `int8`, `uint8`, `binary` or `ubinary`, as `quantize_vectors` makes them: what
                sentence-transformers' `encode` calls `precision`.
            ranges: of int8 and uint8, the same for all texts to be compared; None: those of these texts, which is said.
            max_tokens: tokens of one forward, a longer text goes alone; None: 4,096 on a CPU, on a GPU 16,384 or as
                many as half of its free memory holds.
            on_progress: called with the number of texts finished by each forward.

        Raises:
            TypeError: `texts` is one string, or holds something else than strings; the message has its place.
            DataError: a text holds half a surrogate pair.
            ConfigError: the prompt needs an instruction, or has no place for one, or leaves no room for a text;
                `dim` is not in 1 ... D; or as `check_vector_precision` and `quantize_vectors`.
        """
        if dim is not None:
            check_dim(dim, width=self.dim)
        vector_precision = check_vector_precision(vector_precision, ranges=ranges, dim=dim or self.dim)
        pooling = self.settings.pooling
        rows = self.encode_poolings(
            texts,
            poolings=[pooling],
            side=side,
            instruction=instruction,
            max_tokens=max_tokens,
            on_progress=on_progress,
        )[pooling]
        rows = rows if dim is None else shorten(torch.from_numpy(rows), dim=dim).numpy()
        return quantize_vectors(rows, vector_precision=vector_precision, ranges=ranges)

    def encode_poolings(
        self,
        texts: Iterable[str],
        *,
        poolings: Sequence[Pooling],
        side: Side | str = Side.DOCUMENT,
        instruction: str | None = None,
        max_tokens: int | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> Mapping[Pooling, np.ndarray]:
        """As `encode`, with several poolings of the same forward."""
        texts = read_texts(texts)
        check_instruction(instruction, is_taken=self.takes_instruction)
        for pooling in poolings:
            self._check_width(pooling)
        num_exact = _EXACT_LAYERS[self.device.type]
        with torch.no_grad(), self.dropout(is_on=False):
            return encode_texts(
                texts,
                embed=lambda packed: self.embed_poolings(packed, poolings, num_exact=num_exact),
                tokenizer=self.tokenizer,
                prompt=self.prompt_of(Side(side), instruction=instruction),
                shares_prefixes=self.shares_prefixes,
                device=self.device,
                widths={pooling: self.width_of(pooling) for pooling in poolings},
                max_tokens=max_tokens or self.tokens_of_a_forward(),
                on_progress=on_progress,
            )

    def tokenize(
        self, texts: Sequence[str], *, side: Side = Side.DOCUMENT, instruction: str | None = None
    ) -> TokenizedTexts:
        """K texts as `encode` cuts them, for `encode_tokens`; may run beside that on another thread.

        Raises:
            TypeError, DataError, ConfigError: as `encode`.
        """
        texts = read_texts(texts)
        check_instruction(instruction, is_taken=self.takes_instruction)
        return self.tokenizer.tokenize(texts, prompts=self.prompt_of(side, instruction=instruction))

    def encode_tokens(self, tokenized: TokenizedTexts, *, max_tokens: int | None = None) -> np.ndarray:
        """Embed K texts that `tokenize` cut, be it under several prompts; (K, D) float32, as `encode` gives them."""
        pooling = self.settings.pooling
        num_exact = _EXACT_LAYERS[self.device.type]
        result = np.empty((len(tokenized.ids), self.dim), dtype=np.float32)
        with torch.no_grad(), self.dropout(is_on=False):
            for group, found in embed_in_groups(
                tokenized,
                embed=lambda packed: self.embed_poolings(packed, [pooling], num_exact=num_exact),
                shares_prefixes=self.shares_prefixes,
                device=self.device,
                max_tokens=max_tokens or self.tokens_of_a_forward(),
            ):
                result[group] = found[pooling]
        return result

    def tokens_of_a_forward(self) -> int:
        """How many tokens `encode` computes at one time, unless it is told."""
        return tokens_of_a_forward(self.backbone.model.config, device=self.device)

    def count_cut(self, texts: Sequence[str], *, side: Side = Side.DOCUMENT, instruction: str | None = None) -> int:
        """How many of K texts are longer than the model takes, and are cut."""
        return self.tokenizer.count_cut(texts, prompt=self.prompt_of(side, instruction=instruction))

    def describe(
        self, *, weights: Sequence[str], pooling: Pooling | None = None, dim: int | None = None
    ) -> dict[str, Any]:
        """All that its embeddings depend on, for files; see `describe_embedding`."""
        return describe_embedding(self.settings, weights=weights, pooling=pooling, dim=dim)

    # ---- the adapter ----------------------------------------------------------------------------------------------

    def add_adapter(self, settings: AdapterSection) -> None:
        """Put a fresh LoRA adapter on the backbone, or free its own weights; errors as `adapter.add_adapter`."""
        assert self.adapter is None, "there is an adapter already"
        if settings.method == "full":
            unfreeze(self.backbone)
        else:
            self._take(add_adapter(self.backbone, settings=settings))

    @property
    def trained(self) -> Trained:
        """What a run trains of it."""
        return Trained(self.backbone, self.adapter)

    def replace_adapter(self, plain: PlainLora) -> None:
        """Put an adapter in the place of the present one, if any; raises ValueError when it does not fit."""
        self.remove_adapter()
        self._take(put_adapter(self.backbone, plain))

    def remove_adapter(self) -> None:
        """Leave the base alone; without an adapter nothing happens."""
        if self.adapter is not None:
            self.adapter.unload()
        self.adapter, self._lora_layers = None, []

    def _take(self, adapter: PeftModel) -> None:
        self.adapter = adapter
        self._lora_layers = lora_layers(self.backbone.model)

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

    def save(self, folder: Path | str, *, dtype: torch.dtype = torch.float32) -> None:
        """Write the adapter, or the whole model where there is none, and `embedding.json` as one folder, atomically.

        Args:
            folder: to be made, or replaced.
            dtype: number format of an adapter's weights.

        Raises:
            ModelError: the number format does not hold a weight.
        """
        with files.atomic_folder(folder) as temporary, nullcontext() if self.adapter else self.plain_layers():
            self.trained.write(temporary, dtype=dtype)
            files.write_json(temporary / SETTINGS_FILE, asdict(self.settings))
