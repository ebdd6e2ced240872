"""The parts of a JSON object that are gone on with, and their types: what else stands in their place is refused."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class JsonParts(BaseModel):
    """Its fields are what is taken from an object without a further look; the object may hold more."""

    model_config = ConfigDict(strict=True)

    @classmethod
    def check(cls, value: Any) -> None:
        """Raise ValueError, with the place, where a part is missing or of another type."""
        try:
            cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))) from None
