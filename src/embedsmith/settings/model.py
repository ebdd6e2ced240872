"""The settings of the language model: which one, and how its states become an embedding."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from embedsmith.settings.choices import Pooling, Precision, Quantization
from embedsmith.settings.prompts import INSTRUCTION_FIELD
from embedsmith.settings.section import Int, Place, Section, Template

DEFAULT_MAX_LENGTH = 150
"""Most tokens per text where nobody says, if the model takes as many."""


def _number_or_all(value: Any) -> str | None:
    if value == "all":
        return "<all>"
    try:
        float(value)
    except (TypeError, ValueError):
        return None
    return "<number>"


Layers = Annotated[
    Annotated[Int, Field(ge=0), Tag("<number>")] | Annotated[Literal["all"], Tag("<all>")],
    Discriminator(
        _number_or_all, custom_error_type="layers", custom_error_message="should be a number of layers, or all"
    ),
]


class ModelSection(Section):
    """The language model and how its states become an embedding."""

    model: Place = "smollm2-135m"
    """Built-in name, hub id or local folder of a decoder; or a finished run, whose adapter becomes part of the weights.
    """
    pooling: Pooling = Pooling.LAST
    """last, mean, weighted_mean or concat (last and mean side by side)."""
    prompt: Template = None
    """Template around every text, with {text} once (twice: echo embeddings), or the name of a known one; none: the bare
    text."""
    query_prompt: Template = None
    """Template around queries: anchors, and both sentences of scored pairs; none: as prompt."""
    instruction: str | None = None
    """Fills {instruction} in a prompt, where a row of data has none of its own."""
    end_token: bool = True
    """Whether the end token is put behind every text; false: a prompt's last token is the last one (PromptEOL)."""
    bidirectional_layers: Layers = 0
    """In how many of the last layers a token sees the whole text, not only what stands before it; all: every layer."""
    max_length: Int | None = Field(default=None, ge=2)
    """Most tokens per text, prompt and end token included; longer texts are cut, never the prompt or the end token.
    None: 150, or as many as the model takes where that is less."""
    precision: Precision = Precision.AUTO
    """Of the frozen backbone: auto, bf16 or fp32."""
    quantization: Quantization = Quantization.NONE
    """Of the frozen base: none, 8bit or 4bit (QLoRA); takes less memory and more time."""
    fused: bool = True
    """Whether families that have fused blocks run through them; false: transformers' own layers, slower and equal."""
    sharded: bool = False
    """Whether the processes of a run hold the base together, each its rows of every weight (FSDP2), for one that does
    not fit each of them; fused blocks do not run then. With one process nothing is shared."""

    @property
    def takes_instruction(self) -> bool:
        """Whether a prompt has a place for an instruction."""
        return any(INSTRUCTION_FIELD in (template or "") for template in (self.prompt, self.query_prompt))
