"""Recipes and command lines -> RunConfig, with all faults shown together.

A leaf name occurs once, so `--learning_rate 1e-3` and `--training.learning_rate 1e-3` mean the same.
"""

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from embedsmith.settings.config import RunConfig, Section
from embedsmith.support.errors import ConfigError, list_faults


def load_config(path: Path | str | None = None, *, overrides: Mapping[str, str] | None = None) -> RunConfig:
    """Read a recipe and lay `--key value` overrides over it.

    Args:
        path: YAML file, or None to start from the defaults.
        overrides: dotted or leaf name -> value as written on the command line, read as YAML.

    Raises:
        ConfigError: the file is missing or no YAML mapping; unknown keys (with the closest known one), wrong types and
            values out of range, all of them together.
    """
    values = _read_yaml(Path(path)) if path is not None else {}
    return parse_config(values, overrides=overrides, source=f"the configuration {path}" if path else "the settings")


def parse_config(
    values: Mapping[str, Any], *, overrides: Mapping[str, str] | None = None, source: str = "the settings"
) -> RunConfig:
    """A recipe's sections as they stand in its file, and `--key value` overrides over them; errors as `load_config`."""
    merged = copy.deepcopy(dict(values))
    faults = []
    for key, text in (overrides or {}).items():
        try:
            _set(merged, _full_key(key), yaml.safe_load(text))
        except ConfigError as error:
            faults.append(str(error))
        except yaml.YAMLError:
            faults.append(f"--{key}: cannot be read as YAML: {text!r}")
    try:
        config = RunConfig.model_validate(merged)
    except ValidationError as error:
        faults.extend(_describe(detail) for detail in error.errors())
    if faults:
        raise ConfigError(list_faults(f"There are faults in {source}:", faults, advice="Fix them and start again."))
    return config


def known_keys() -> list[str]:
    """Every setting as a dotted key, in reading order."""
    return [key for key, _ in _walk(RunConfig, "")]


def describe_settings() -> list[tuple[str, str, str]]:
    """(dotted key, default, meaning) of every setting, in reading order."""
    return [
        (key, "(required)" if field.is_required() else str(field.default), " ".join((field.description or "").split()))
        for key, field in _walk(RunConfig, "")
    ]


def _walk(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from _walk(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _full_key(key: str) -> str:
    key = key.replace("-", "_")
    keys = known_keys()
    if key in keys:
        return key
    matches = [known for known in keys if known.split(".")[-1] == key]
    if matches:
        return matches[0]
    raise ConfigError(f"--{key}: no such setting.{_closest(key, keys)}")


def _closest(key: str, keys: Sequence[str]) -> str:
    leaves = {known.split(".")[-1]: known for known in keys}
    close = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    close = close or [leaves[leaf] for leaf in difflib.get_close_matches(key.split(".")[-1], leaves, n=1, cutoff=0.5)]
    return f" Did you mean {close[0]}?" if close else f" Known are: {', '.join(keys)}."


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, leaf = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            return  # the file's own fault, reported by the validation
        values = inner
    values[leaf] = value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"There is no configuration file {path}.\nCheck the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no valid YAML: {error}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold sections such as 'training:', but is a {type(values).__name__}.")
    return {key: {} if value is None and key != "output_dir" else value for key, value in values.items()}


def _describe(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return f"{key}: no such setting.{_closest(key, known_keys())}"
    if kind == "missing":
        return f"{key}: must be given, on the command line: --{key} VALUE"
    message = detail["msg"].removeprefix("Value error, ")
    if not key:
        return str(message)
    message = message[0].lower() + message[1:]
    return f"{key}: {message.removeprefix('input ')}; it is {value!r}"
