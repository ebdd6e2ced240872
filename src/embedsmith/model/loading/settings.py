"""EmbeddingSettings: what besides the weights defines an embedding, as `embedding.json` keeps it beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from embedsmith.model.loading.adapter import assumed_settings
from embedsmith.model.loading.backbone import SETTINGS_FILE
from embedsmith.settings.choices import Pooling, Quantization
from embedsmith.settings.prompts import INSTRUCTION_FIELD, resolve_template
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, ModelError
from embedsmith.support.json_text import parse_json

PoolOver = Literal["all", "behind_prompt", "text"]
PromptTokens = Literal["apart", "joined"]


@dataclass(frozen=True)
class EmbeddingSettings:
    """How a text becomes a vector; each field as the setting of its name in a recipe's `model` section.

    Attributes:
        base_model: what the weights build on; empty where an adapter of another tool does not say.
        pool_over: what mean poolings look at: `all` tokens; those `behind_prompt`, where there is one; or the `text`,
            and what stands behind it, alone. The two last are ways of published models.
        prompts: name -> template, those that a published model brings for other uses.
        prompt_tokens: whether a prompt's parts and the text are tokenised `apart`, or `joined`: put together first, as
            published models have it, and runs whose file does not say.
        end_token: None: as the tokenizer does by itself.
        max_length: most tokens per text; None: not decided yet.
        bidirectional_layers: None: as the model's configuration says.
        matryoshka_dims: widths the adapter was trained for, or ().
    """

    base_model: str
    pooling: Pooling = Pooling.LAST
    pool_over: PoolOver = "all"
    prompt: str | None = None
    query_prompt: str | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    instruction: str | None = None
    prompt_tokens: PromptTokens = "apart"
    end_token: bool | None = True
    max_length: int | None = None
    bidirectional_layers: int | Literal["all"] | None = None
    quantization: Quantization = Quantization.NONE
    matryoshka_dims: tuple[int, ...] = ()

    @property
    def takes_instruction(self) -> bool:
        """Whether a prompt has a place for an instruction."""
        return any(INSTRUCTION_FIELD in (template or "") for template in (self.prompt, self.query_prompt))

    @classmethod
    def read(cls, folder: Path) -> "EmbeddingSettings":
        """Read `embedding.json`, or assume the published method where another tool wrote the adapter.

        Fields that were not known when the file was written have their defaults; prompts were joined with texts then.

        Raises:
            ModelError: the file is damaged.
        """
        path = folder / SETTINGS_FILE
        try:
            values = parse_json(files.read_text(path)) if path.exists() else assumed_settings(folder)
            if not isinstance(values, dict):
                raise ValueError("it holds no table of names and values")
            known = {one.name for one in fields(cls)}
            unknown = sorted(set(values) - known)
            if unknown:
                raise ValueError(f"{', '.join(unknown)} is not known; a newer embedsmith may have written it")
            layers = values.get("bidirectional_layers", 0)
            if values["max_length"] is not None and int(values["max_length"]) < 1:
                raise ValueError(f"max_length is {values['max_length']}, and no text has so few tokens")
            for name in ("prompt", "query_prompt", "instruction"):
                if not isinstance(values.get(name), str | None):
                    raise ValueError(f"{name} is {values[name]!r:.60}, not a text")
            return cls(**{
                **values,
                "base_model": _name_of_base(values["base_model"]),
                "pooling": Pooling(values["pooling"]),
                "pool_over": _one_of(values.get("pool_over", "all"), get_args(PoolOver)),
                "prompt_tokens": _one_of(values.get("prompt_tokens", "joined"), get_args(PromptTokens)),
                "prompts": {str(name): str(value) for name, value in values.get("prompts", {}).items()},
                "max_length": None if values["max_length"] is None else int(values["max_length"]),
                "end_token": bool(values.get("end_token", True)),
                "bidirectional_layers": layers if layers == "all" else int(layers),
                "quantization": Quantization(values.get("quantization", Quantization.NONE)),
                "matryoshka_dims": tuple(int(dim) for dim in values.get("matryoshka_dims", ())),
            })  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ModelError(f"{path} is damaged: {error!r}\nGet or save the model again.") from error

    def override(self, given: Mapping[str, Any]) -> "EmbeddingSettings":
        """The same with what is given and not None in the place of its own; prompts may be names: the model's own, or
        known ones.

        Raises:
            ConfigError: an unknown pooling, quantization or way of tokenising prompts, or a prompt without a text.
        """
        values = {name: value for name, value in given.items() if value is not None}
        for name, kind in (("pooling", Pooling), ("quantization", Quantization)):
            if name in values and values[name] not in list(kind):
                raise ConfigError(f"{name} is {values[name]!r}; it must be one of {', '.join(kind)}.")
            if name in values:
                values[name] = kind(values[name])
        if (way := values.get("prompt_tokens", "apart")) not in get_args(PromptTokens):
            raise ConfigError(f"prompt_tokens is {way!r}; it must be one of {', '.join(get_args(PromptTokens))}.")
        for name in ("prompt", "query_prompt"):
            if name in values:
                values[name] = self.prompts.get(values[name]) or _template(values[name], own=self.prompts)
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
        layers = num_layers if self.bidirectional_layers == "all" else self.bidirectional_layers or 0
        if not 0 <= layers <= num_layers:
            raise ConfigError(
                f"model.bidirectional_layers is {layers}, but the model has {num_layers} layers.\n"
                "Give a number up to that, or all."
            )
        return layers


@dataclass(frozen=True)
class Described:
    """What a model's files say.

    Attributes:
        settings: of the embedding; None in a field: the files leave it open.
        origins: field -> the file that says it; what no file says is not in it.
    """

    settings: EmbeddingSettings
    origins: Mapping[str, str] = field(default_factory=dict)


def _name_of_base(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"base_model is {value!r}, not a name")
    return value


def _one_of(value: Any, known: Sequence[str]) -> Any:
    if value not in known:
        raise ValueError(f"{value!r} is none of {', '.join(known)}")
    return value


def _template(value: str, *, own: Mapping[str, str]) -> str:
    try:
        return resolve_template(value)
    except ValueError as error:
        names = f"\nThe model's own prompts are {', '.join(own)}." if own else ""
        raise ConfigError(f"The prompt {value!r} {error}.{names}") from None
