"""Facts about model families, keyed by `config.model_type` and never by a hub name.

A family not listed here still works: name `adapter.target_modules` in the recipe.
"""

from dataclasses import dataclass

from embedsmith.support.errors import ConfigError


@dataclass(frozen=True)
class Family:
    """What differs between architectures.

    Attributes:
        title: name for messages and reports.
        lora_targets: the query and value projections, the paper's choice of LoRA targets.
        line: the family that it is a later generation of; "" for a first one.
    """

    title: str
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    line: str = ""


FAMILIES: dict[str, Family] = {
    "llama": Family("Llama"),
    "granite": Family("Granite"),
    "minicpm": Family("MiniCPM"),
    "phi": Family("Phi"),
    "phi3": Family("Phi-3", lora_targets=("qkv_proj",), line="Phi"),
    "gemma": Family("Gemma"),
    "gemma2": Family("Gemma 2", line="Gemma"),
    "gemma3_text": Family("Gemma 3", line="Gemma"),
    "qwen2": Family("Qwen2"),
    "qwen3": Family("Qwen3"),
    "mistral": Family("Mistral"),
    "olmo2": Family("OLMo 2"),
    "smollm3": Family("SmolLM3"),
    "gpt2": Family("GPT-2", lora_targets=("c_attn",)),
    "gpt_neox": Family("GPT-NeoX", lora_targets=("query_key_value",)),
    "opt": Family("OPT"),
}


def line_of(model_type: str) -> str | None:
    """What the generations of a family are called together, such as Gemma; None for a family not in the table."""
    family = FAMILIES.get(model_type)
    return (family.line or family.title) if family else None


def lora_targets(model_type: str) -> tuple[str, ...]:
    """LoRA target modules of a family.

    Raises:
        ConfigError: the family is not in the table.
    """
    family = FAMILIES.get(model_type)
    if family is None:
        raise ConfigError(
            f"No default LoRA targets are known for model_type '{model_type}'.\n"
            f"Known families: {', '.join(sorted(FAMILIES))}.\n"
            "Name the modules in the recipe, for example: adapter.target_modules: [q_proj, v_proj]\n"
            "or on the command line: --adapter.target_modules '[q_proj, v_proj]'"
        )
    return family.lora_targets
