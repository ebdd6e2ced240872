"""Who is compared: a table of variants.

On a processor without bf16 products everybody computes in float32 (`choose_variants`): what emulates bf16 there takes
many times as long, and nobody would use it. Peers bring an environment of their own; while it is not there, they are
skipped and the results say so.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

FOLDER = Path(__file__).parent
UNBOUNDED_TOKENS = 10**9
_OTHER_LINEAR = ("k_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BOUNDED_TOKENS = 6_144


class Tool(StrEnum):
    """Whose code runs."""

    EMBEDSMITH = "embedsmith"
    SENTENCE_TRANSFORMERS = "sentence-transformers"
    PUBLISHED = "published"
    BARE = "bare"
    PEER = "peer"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to do the work.

    Attributes:
        name: key, short.
        label: as tables and plots show it.
        memory_gb: estimate of the peak at a step of 32 triplets with the built-in model; it decides
            who may run beside whom.
        fused: embedsmith only, whether the fused blocks replace the model's layers.
        precision: of the frozen weights.
        chat_template: sentence-transformers only, whether the tokenizer's template is left where it is.
        keep_freed_memory: whether the allocator keeps what was freed.
        prompt: embedsmith only, every text's, the name of a known one; with the end token or without as its authors.
        shares_prefixes: embedsmith only, whether the prompt's first part is computed once for all texts.
        lora_r: rank of the adapter.
        adapts_all: whether it is on all linear layers, not on query and value projections alone.
        max_tokens: embedsmith only, tokens that keep their graph; None: as installed; UNBOUNDED_TOKENS: all of them,
            as the others do it.
        command: how its worker is started.
        environment: variables of its process.
        missing: why it cannot run here, or None.
    """

    name: str
    label: str
    tool: Tool
    memory_gb: float
    fused: bool = False
    precision: str = "bf16"
    chat_template: bool = False
    keep_freed_memory: bool = True
    prompt: str | None = None
    shares_prefixes: bool = True
    lora_r: int = 8
    adapts_all: bool = False
    max_tokens: int | None = UNBOUNDED_TOKENS
    command: tuple[str, ...] = (sys.executable, "-m", "benchmarks.worker")
    environment: tuple[tuple[str, str], ...] = ()
    missing: str | None = None

    @property
    def target_modules(self) -> tuple[str, ...]:
        """Names of the linear layers with an adapter, of the built-in model and its like."""
        query_and_value = ("q_proj", "v_proj")
        return (*query_and_value, *_OTHER_LINEAR) if self.adapts_all else query_and_value

    @property
    def wants_plain_tokenizer(self) -> bool:
        """Whether its model folder has the end token appended by the tokenizer and no chat template."""
        return self.tool not in (Tool.EMBEDSMITH, Tool.PEER) and not self.chat_template


REFERENCE = "embedsmith"
"""The variant that all ratios are taken against; it runs in every group."""

_EMBEDSMITH = Variant(name=REFERENCE, label="embedsmith", tool=Tool.EMBEDSMITH, fused=True, memory_gb=2.6)
_TABLE = (
    _EMBEDSMITH,
    replace(
        _EMBEDSMITH,
        name="embedsmith-default",
        label="embedsmith, default bound on memory",
        max_tokens=None,
    ),
    replace(
        _EMBEDSMITH,
        name="embedsmith-one-thread",
        label="embedsmith, one thread",
        environment=(("OMP_NUM_THREADS", "1"),),
    ),
    replace(
        _EMBEDSMITH,
        name="embedsmith-awake",
        label="embedsmith, threads wait awake for milliseconds",
        environment=(("GOMP_SPINCOUNT", "300000"),),
    ),
    replace(
        _EMBEDSMITH,
        name="embedsmith-bounded",
        label=f"embedsmith, graph of {BOUNDED_TOKENS:,} tokens at most",
        max_tokens=BOUNDED_TOKENS,
    ),
    Variant(name="embedsmith-plain", label="embedsmith, blocks not fused", tool=Tool.EMBEDSMITH, memory_gb=3.4),
    replace(
        _EMBEDSMITH,
        name="embedsmith-prompt",
        label="embedsmith, prompt `pretended-cot`",
        memory_gb=3,
        prompt="pretended-cot",
    ),
    replace(
        _EMBEDSMITH,
        name="embedsmith-prompt-apart",
        label="the same, its first part computed with every text",
        memory_gb=4,
        prompt="pretended-cot",
        shares_prefixes=False,
    ),
    replace(
        _EMBEDSMITH,
        name="embedsmith-rank-32",
        label="embedsmith, rank 32",
        lora_r=32,
    ),
    replace(
        _EMBEDSMITH,
        name="embedsmith-all",
        label="embedsmith, all linear layers",
        memory_gb=3,
        adapts_all=True,
    ),
    replace(
        _EMBEDSMITH,
        name="embedsmith-all-rank-32",
        label="embedsmith, rank 32, all linear layers",
        memory_gb=3.5,
        lora_r=32,
        adapts_all=True,
    ),
    replace(
        _EMBEDSMITH,
        name="embedsmith-fp32",
        label="embedsmith, fp32",
        precision="fp32",
        memory_gb=3,
    ),
    Variant(
        name="embedsmith-plain-fp32",
        label="embedsmith, blocks not fused, fp32",
        tool=Tool.EMBEDSMITH,
        precision="fp32",
        memory_gb=4,
    ),
    Variant(
        name="st-bf16",
        label="sentence-transformers, bf16 weights",
        tool=Tool.SENTENCE_TRANSFORMERS,
        memory_gb=5.5,
    ),
    Variant(
        name="st-bf16-all-rank-32",
        label="sentence-transformers, bf16 weights, rank 32, all linear layers",
        tool=Tool.SENTENCE_TRANSFORMERS,
        memory_gb=7.5,
        lora_r=32,
        adapts_all=True,
    ),
    Variant(
        name="st-fp32-all-rank-32",
        label="sentence-transformers, fp32, rank 32, all linear layers",
        tool=Tool.SENTENCE_TRANSFORMERS,
        precision="fp32",
        memory_gb=10,
        lora_r=32,
        adapts_all=True,
    ),
    Variant(
        name="st-fp32",
        label="sentence-transformers, fp32",
        tool=Tool.SENTENCE_TRANSFORMERS,
        precision="fp32",
        memory_gb=7,
    ),
    Variant(
        name="st-as-it-comes",
        label="sentence-transformers, as it comes",
        tool=Tool.SENTENCE_TRANSFORMERS,
        precision="fp32",
        chat_template=True,
        keep_freed_memory=False,
        memory_gb=9,
    ),
    Variant(
        name="published",
        label="the published way",
        tool=Tool.PUBLISHED,
        memory_gb=16.5,
    ),
    Variant(name="bare-bf16", label="the model's forward alone, bf16", tool=Tool.BARE, memory_gb=1),
    Variant(name="bare-fp32", label="the model's forward alone, fp32", tool=Tool.BARE, precision="fp32", memory_gb=1.3),
)

VARIANTS: dict[str, Variant] = {variant.name: variant for variant in _TABLE}
_IN_FP32 = {
    "embedsmith-fp32": REFERENCE,
    "embedsmith-plain": "embedsmith-plain-fp32",
    "st-bf16": "st-fp32",
    "st-bf16-all-rank-32": "st-fp32-all-rank-32",
    "bare-bf16": "bare-fp32",
}
"""Who does in float32 what another one does in bf16; the others of embedsmith's keep their names."""


def choose_variants(names: Sequence[str], *, precision: str) -> list[Variant]:
    """Those of the table on a machine whose fast precision is that, each once.

    Args:
        names: in the table.
        precision: bf16, or fp32 where the processor has no bf16 products; the published way, which is bf16, is then
            left out.
    """
    if precision == "bf16":
        return [VARIANTS[name] for name in names]
    own = dict.fromkeys(_IN_FP32.get(name, name) for name in names if VARIANTS[name].tool is not Tool.PUBLISHED)
    return [in_fp32(VARIANTS[name]) for name in own]


def in_fp32(variant: Variant) -> Variant:
    """The same in float32, whose weights take twice the memory."""
    if variant.precision == "fp32":
        return variant
    return replace(variant, precision="fp32", memory_gb=1.3 * variant.memory_gb)


_PEERS = (
    Variant(
        name="flagembedding",
        label="FlagEmbedding, bf16",
        tool=Tool.PEER,
        memory_gb=5.5,
        command=(str(FOLDER.parent / ".venv-peer/bin/python"), str(FOLDER / "peers/flagembedding.py")),
    ),
)


def load_peers(*, precision: str) -> list[Variant]:
    """Trainers with an environment of their own, those that are not set up or not for this precision marked so."""
    return [replace(peer, missing=_why_missing(peer, precision=precision)) for peer in _PEERS]


def _why_missing(peer: Variant, *, precision: str) -> str | None:
    if peer.precision != precision:
        return f"it is measured in {peer.precision}, which this processor has no products for"
    return None if Path(peer.command[0]).exists() else "not set up, see benchmarks/peers/README.md"
