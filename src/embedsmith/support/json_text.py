"""JSON in which a name stands once: of two values under one name the library takes the last without a word."""

import json
from typing import Any


class DoubledNameError(ValueError):
    """A name stands twice in one object."""


def parse_json(text: str) -> Any:
    """Any JSON value.

    Raises:
        DoubledNameError: a name stands twice in an object.
        ValueError: it is no JSON, or its numbers are too long; `RecursionError`s become one.
    """
    try:
        return json.loads(text, object_pairs_hook=unique_object)
    except RecursionError as error:
        raise ValueError(f"nested too deeply: {error}") from None


def unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its (name, value) pairs, for `json`'s object_pairs_hook; raises DoubledNameError."""
    found = dict(pairs)
    if len(found) < len(pairs):
        for name in found:
            values = [f"{value!r:.40}" for other, value in pairs if other == name]
            if len(values) > 1:
                raise DoubledNameError(f"the name {name!r:.60} stands there twice, with {values[0]} and {values[1]}")
    return found
