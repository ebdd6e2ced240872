"""What each fused architecture calls its parts, as transformers' `modeling_*.py` has them. A new one is a row here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Norms:
    """Names of a layer's norms; None where there is none.

    Attributes:
        attention, mlp: of the stream, before each.
        attention_output, mlp_output: of what each gives, before it is added to the stream.
    """

    attention: str | None = "input_layernorm"
    attention_output: str | None = None
    mlp: str | None = "post_attention_layernorm"
    mlp_output: str | None = None


@dataclass(frozen=True)
class Family:
    """One architecture; the defaults are Llama's.

    Attributes:
        norms: of a layer.
        norm_offset: what is added to a norm's weight as it is stored.
        is_parallel: attention and MLP read the same norm and are added together.
        qkv: projections of queries, keys and values, or one for all.
        out: of attention.
        up: the MLP's input: gate and up, one for both, or no gate.
        is_gated: whether there is a gate.
        down: the MLP's output.
        window_in_config: every layer has the configuration's window, not one of its own.
    """

    norms: Norms = Norms()
    norm_offset: float = 0.0
    is_parallel: bool = False
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    out: str = "o_proj"
    up: tuple[str, ...] = ("gate_proj", "up_proj")
    is_gated: bool = True
    down: str = "down_proj"
    window_in_config: bool = False

    @property
    def splits_queries(self) -> bool:
        """Whether queries have a product of their own, of which the last layer needs few rows."""
        return len(self.qkv) > 1


_FOUR_NORMS = Norms(
    attention_output="post_attention_layernorm",
    mlp="pre_feedforward_layernorm",
    mlp_output="post_feedforward_layernorm",
)
_NORMS_BEHIND = Norms(
    attention=None,
    attention_output="post_attention_layernorm",
    mlp=None,
    mlp_output="post_feedforward_layernorm",
)
FUSED_FAMILIES: dict[str, Family] = {
    "llama": Family(),
    "qwen2": Family(),
    "qwen3": Family(),
    "granite": Family(),
    "mistral": Family(window_in_config=True),
    "smollm3": Family(),
    "gemma": Family(norm_offset=1.0),
    "gemma2": Family(norm_offset=1.0, norms=_FOUR_NORMS),
    "gemma3_text": Family(norm_offset=1.0, norms=_FOUR_NORMS),
    "olmo2": Family(norms=_NORMS_BEHIND),
    "phi": Family(norms=Norms(mlp=None), is_parallel=True, out="dense", up=("fc1",), is_gated=False, down="fc2"),
    "phi3": Family(qkv=("qkv_proj",), up=("gate_up_proj",), window_in_config=True),
}
"""By `model_type`. What these parts compute is the same for all; see `layout.py` for what else is looked at."""
