"""What every section of a configuration is built from: its base, and how values of a type are read."""

from collections.abc import Sequence
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from embedsmith.settings.prompts import resolve_template
from embedsmith.support import files


def no_bool(value: Any) -> Any:
    """Refuse true and false: pydantic would read `true` as 1; in a recipe it is a slip."""
    if isinstance(value, bool) or value in ("true", "false"):
        raise ValueError("should be a number, not true or false")
    return value


def as_list(value: Any) -> Any:
    """One value that stands for a list of it."""
    return [value] if isinstance(value, (str, dict)) else value


def _as_names(value: Any) -> Any:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _as_place(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty")
    if "\0" in value:
        raise ValueError("holds a NUL, which no path does")
    return files.expand_home(value)


def _as_template(value: str | None) -> str | None:
    return None if value is None else resolve_template(value)


Int = Annotated[int, BeforeValidator(no_bool)]
Float = Annotated[float, BeforeValidator(no_bool), Field(allow_inf_nan=False)]
Names = Annotated[list[str], BeforeValidator(_as_names)]
Place = Annotated[str, AfterValidator(_as_place)]
"""A file, a folder or what stands for one; a `~` in front is the home folder."""
Template = Annotated[str | None, AfterValidator(_as_template)]
ONE, LIST, MAPPING = "<one>", "<list>", "<mapping>"
"""Tags of the kinds that a setting's value may be of, for pydantic's `Discriminator`: without, a message would hold the
faults of every kind."""


def one_or_list(value: Any) -> str:
    """The tag of a value that is one, or several."""
    return LIST if isinstance(value, list) else ONE


def one_or_mapping(value: Any) -> str:
    """The tag of a value that is a name, or has settings of its own."""
    return MAPPING if isinstance(value, (dict, BaseModel)) else ONE


def without_tags(place: Sequence[str | int]) -> list[str | int]:
    """Where a fault is, as it stands in the file."""
    return [part for part in place if not (isinstance(part, str) and part.startswith("<"))]


class Section(BaseModel):
    """Base of all sections: unknown keys are faults, values cannot change after reading; where a value may be absent,
    the word `none` means that it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _read_none(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        may_be_absent = {name for name, field in cls.model_fields.items() if type(None) in get_args(field.annotation)}
        return {
            name: None if name in may_be_absent and value in ("none", "null") else value
            for name, value in values.items()
        }

    def changed(self) -> list[str]:
        """Names of the settings that are not as by default."""
        return [
            name
            for name, field in type(self).model_fields.items()
            if getattr(self, name) != field.get_default(call_default_factory=True)
        ]
