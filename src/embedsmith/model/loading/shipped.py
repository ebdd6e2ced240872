"""Embedding models that come with this package: finished runs on a built-in model, by name.

What is not needed to load them (checkpoints, states of an average) is not there; the card says where they are from.
"""

from pathlib import Path

SHIPPED = ("smollm2-135m-sts", "smollm2-135m-sts-taught")
_FOLDER = Path(__file__).parents[1] / "shipped"


def find_shipped(model: str) -> Path | None:
    """The folder of a model that comes with this package; None: MODEL is none of them."""
    return _FOLDER / model if model in SHIPPED else None
