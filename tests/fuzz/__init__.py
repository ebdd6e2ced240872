"""Hostile bytes for what reads files: `make fuzz`, and a small corpus that every test run replays."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
NAMES = ("data", "recipes", "gguf", "safetensors", "files")
"""Of the targets in `targets.py`, whose imports take seconds."""


def corpus_of(name: str) -> Path:
    """The folder of a target's inputs that come with the project."""
    return Path(__file__).parent / "corpus" / name
