"""EmbeddingSettings: what besides the weights defines an embedding, as `embedding.json` keeps it beside them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from embedsmith.model.loading.adapter import assumed_settings
from embedsmith.model.loading.backbone import SETTINGS_FILE
from embedsmith.settings.config import Pooling, Quantization
from embedsmith.settings.prompts import INSTRUCTION_FIELD, resolve_template
from embedsmith.support.errors import ConfigError, ModelError
from embedsmith.support.json_text import parse_json


@dataclass(frozen=True)
class EmbeddingSettings:
    """How a text becomes a vector; each field as the setting of its name in a recipe's `model` section.

    Attributes:
        base_model: what the weights build on; empty where an adapter of another tool does not say.
        max_length: most tokens per text; None: not decided yet.
        matryoshka_dims: widths the adapter was trained for, or ().
    """

    base_model: str
    pooling: Pooling = Pooling.LAST
    prompt: str | None = None
    query_prompt: str | None = None
    instruction: str | None = None
    end_token: bool = True
    max_length: int | None = None
    bidirectional_layers: int | Literal["all"] = 0
    quantization: Quantization = Quantization.NONE
    matryoshka_dims: tuple[int, ...] = ()

    @property
    def takes_instruction(self) -> bool:
        """Whether a prompt has a place for an instruction."""
        return any(INSTRUCTION_FIELD in (template or "") for template in (self.prompt, self.query_prompt))

    @classmethod
    def read(cls, folder: Path) -> "EmbeddingSettings":
        """Read `embedding.json`, or assume the published method where another tool wrote the adapter.

        Fields that were not known when the file was written have their defaults.

        Raises:
            ModelError: the file is damaged.
        """
        path = folder / SETTINGS_FILE
        try:
            values = parse_json(path.read_text(encoding="utf-8")) if path.exists() else assumed_settings(folder)
            known = {field.name for field in fields(cls)}
            unknown = sorted(set(values) - known)
            if unknown:
                raise ValueError(f"{', '.join(unknown)} is not known; a newer embedsmith may have written it")
            layers = values.get("bidirectional_layers", 0)
            return cls(**{
                **values,
                "base_model": _name_of_base(values["base_model"]),
                "pooling": Pooling(values["pooling"]),
                "max_length": None if values["max_length"] is None else int(values["max_length"]),
                "end_token": bool(values.get("end_token", True)),
                "bidirectional_layers": layers if layers == "all" else int(layers),
                "quantization": Quantization(values.get("quantization", Quantization.NONE)),
                "matryoshka_dims": tuple(int(dim) for dim in values.get("matryoshka_dims", ())),
            })  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path} is damaged: {error!r}") from error

    def override(self, given: Mapping[str, Any]) -> "EmbeddingSettings":
        """The same with what is given and not None in the place of its own; prompts may be known names.

        Raises:
            ConfigError: an unknown pooling or quantization, or a prompt without a text.
        """
        values = {name: value for name, value in given.items() if value is not None}
        for name, kind in (("pooling", Pooling), ("quantization", Quantization)):
            if name in values and values[name] not in list(kind):
                raise ConfigError(f"{name} is {values[name]!r}; it must be one of {', '.join(kind)}.")
            if name in values:
                values[name] = kind(values[name])
        for name in ("prompt", "query_prompt"):
            if name in values:
                values[name] = _template(values[name])
        changed = replace(self, **values)
        # A folder or file by its full path, so that a run made from it loads from anywhere on this machine; an empty
        # name is none, though to Path it is the folder at work.
        is_path = changed.base_model.strip() and Path(changed.base_model).exists()
        return replace(changed, base_model=str(Path(changed.base_model).resolve())) if is_path else changed

    def num_bidirectional(self, num_layers: int) -> int:
        """Layers, from the last on, in which a token sees later ones too.

        Raises:
            ConfigError: more than there are.
        """
        layers = num_layers if self.bidirectional_layers == "all" else self.bidirectional_layers
        if not 0 <= layers <= num_layers:
            raise ConfigError(
                f"model.bidirectional_layers is {layers}, but the model has {num_layers} layers.\n"
                "Give a number up to that, or all."
            )
        return layers


def _name_of_base(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"base_model is {value!r}, not a name")
    return value


def _template(value: str) -> str:
    try:
        return resolve_template(value)
    except ValueError as error:
        raise ConfigError(f"The prompt {value!r} {error}.") from None
