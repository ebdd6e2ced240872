"""Settings with a word on each -> the text of a recipe."""

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import yaml

_COMMENT_COLUMN = 36


class Commented(NamedTuple):
    """A setting of a section, its value, and why it is so; an empty comment: it needs none."""

    key: str
    value: Any
    comment: str = ""


def write_settings(output_dir: str, sections: Mapping[str, Sequence[Commented]]) -> str:
    """The YAML of a recipe: the run folder, then section by section, a setting a line with its comment behind it."""
    lines = [f"output_dir: {yaml_text(output_dir)}"]
    for section, settings in sections.items():
        lines += ["", f"{section}:", *map(_line, settings)]
    return "\n".join([*lines, ""])


def _line(setting: Commented) -> str:
    text = f"  {setting.key}: {yaml_text(setting.value)}"
    return f"{text:<{_COMMENT_COLUMN}}  # {setting.comment}" if setting.comment else text


def yaml_text(value: Any) -> str:
    """A value on one line of YAML."""
    plain = str(value) if isinstance(value, StrEnum) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=math.inf, allow_unicode=True, sort_keys=False)
    return text.removesuffix("...\n").strip()
