"""Recipes and command lines -> RunConfig, with all faults shown together.

A leaf name occurs once, so `--learning_rate 1e-3` and `--training.learning_rate 1e-3` mean the same. What a value's
text means, the setting's type says, on the command line as in a recipe: text settings are taken as typed.
"""

import copy
import difflib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from embedsmith.settings.config import RunConfig
from embedsmith.settings.data import TrainSource
from embedsmith.settings.section import Section, without_tags
from embedsmith.settings.yaml_text import parse_yaml
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, list_faults

log = logging.getLogger(__name__)


def load_config(path: Path | str | None = None, *, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a recipe and lay `--key value` overrides over it.

    Args:
        path: YAML file, or None to start from the defaults.
        overrides: dotted or leaf name -> value: a text as written on the command line (see `read_text`), or the value
            itself. Of a setting under both its names the last one counts, and that is said.

    Raises:
        ConfigError: the file is missing or no YAML mapping; unknown keys (with the closest known one), wrong types and
            values out of range, all of them together.
    """
    values = _read_recipe(Path(path)) if path is not None else {}
    return parse_config(values, overrides=overrides, source=f"the configuration {path}" if path else "the settings")


def parse_config(
    values: Mapping[str, Any], *, overrides: Mapping[str, Any] | None = None, source: str = "the settings"
) -> RunConfig:
    """A recipe's sections as they stand in its file, and `--key value` overrides over them; errors as `load_config`."""
    merged = copy.deepcopy(dict(values))
    faults: list[str] = []
    for key, value in by_full_key(overrides or {}, faults=faults).items():
        try:
            _set(merged, key, read_text(key, value) if isinstance(value, str) else value)
        except ConfigError as error:
            faults.append(str(error))
    try:
        config = RunConfig.model_validate(merged)
    except ValidationError as error:
        faults.extend(_describe(detail) for detail in error.errors())
    if faults:
        raise ConfigError(list_faults(f"There are faults in {source}:", faults, advice="Fix them and start again."))
    return config


def read_text(key: str, text: str) -> Any:
    """What the text behind `--key` means, by the type of that setting.

    Text, numbers, switches and choices: the text as typed, which the setting's type reads. A setting that takes several
    values or a mapping: `[a, b]` and `{a: b}` are read as YAML, of which each part is a text again; anything else is
    one value. Numbers may be listed as `8,32`.

    Raises:
        ConfigError: the brackets hold no YAML.
    """
    annotation = dict(_walk(RunConfig, ""))[key].annotation
    kinds = {get_origin(part) or part for part in _parts(annotation)}
    if (list in kinds and _is_within(text, "[]")) or (kinds & {list, dict} and _is_within(text, "{}")):
        try:
            return parse_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--{key}: {text!r} is no list or mapping in YAML: {_problem(error)}") from None
    items = [item for part in _parts(annotation) if get_origin(part) is list for item in get_args(part)]
    if items and all(inner in (int, float) for item in items for inner in _parts(item)):
        return [number.strip() for number in text.split(",")]
    return text


def known_keys() -> list[str]:
    """Every setting as a dotted key, in reading order."""
    return [key for key, _ in _walk(RunConfig, "")]


def is_setting(name: str) -> bool:
    """Whether a name is a setting's, in full or its last part."""
    name = name.replace("-", "_")
    return any(name in (key, key.split(".")[-1]) for key in known_keys())


def number_kind(name: str) -> type[int] | type[float] | None:
    """`int` or `float` where a setting takes one number; None where it does not, or there is no such setting."""
    if not is_setting(name):
        return None
    parts = _parts(dict(_walk(RunConfig, ""))[_full_key(name)].annotation)
    return int if int in parts else float if float in parts else None


def describe_settings() -> list[tuple[str, str, str]]:
    """(dotted key, default, meaning) of every setting, in reading order."""
    return [(key, _default(field), " ".join((field.description or "").split())) for key, field in _walk(RunConfig, "")]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "(required)"
    words = [word for value, word in ((None, "none"), (True, "true"), (False, "false")) if field.default is value]
    if words:
        return words[0]
    if isinstance(field.default, list):
        return f"[{', '.join(map(str, field.default))}]"
    return str(field.default)


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


def by_full_key(overrides: Mapping[str, Any], *, faults: list[str]) -> dict[str, Any]:
    """The same by dotted keys; names that are no setting's go to `faults`."""
    found: dict[str, Any] = {}
    for name, value in overrides.items():
        try:
            key = _full_key(name)
        except ConfigError as error:
            faults.append(str(error))
            continue
        if found.get(key, value) != value:
            log.warning("--%s is given twice; the last one counts: %s", key, value)
        found[key] = value
    return found


def _parts(annotation: Any) -> list[Any]:
    """The types of a union, without what `Annotated` says of them."""
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [part for inner in get_args(annotation) for part in _parts(inner)]
    return [annotation]


def _is_within(text: str, brackets: str) -> bool:
    stripped = text.strip()
    return stripped.startswith(brackets[0]) and stripped.endswith(brackets[1])


def read_yaml_file(path: Path, *, what: str) -> Any:
    """A YAML file as `parse_yaml` reads it; `what` names it in messages.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it is no YAML.
    """
    try:
        return parse_yaml(files.read_text(path))
    except FileNotFoundError:
        raise ConfigError(f"There is no {what} {path}.\nCheck the path.") from None
    except OSError as error:
        raise ConfigError(
            f"The {what} {path} cannot be read: {error.strerror or error}.\nName a file of YAML that can be."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"The {what} {path} is not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start + 1}).\n"
            "Save it as UTF-8."
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"The {what} {path} is no valid YAML: {_problem(error)}.\nCorrect it there.") from None


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f"character {error.position + 1} is {chr(error.character)!r}, which YAML does not allow"
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{getattr(error, 'problem', None) or error}{where}"


def _read_recipe(path: Path) -> dict[str, Any]:
    values = read_yaml_file(path, what="configuration file")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold sections such as 'training:', but is a {type(values).__name__}.")
    return {key: {} if value is None and key != "output_dir" else value for key, value in values.items()}


def _describe(detail: Any) -> str:
    place = without_tags(detail["loc"])
    is_listed = any(isinstance(part, int) for part in place)  # a source's own setting, which no option sets
    key = ".".join(map(str, place))
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        beside = [".".join(map(str, [*place[:-1], name])) for name in TrainSource.model_fields]
        return f"{key}: no such setting.{_closest(key, beside if is_listed else known_keys())}"
    if kind == "missing":
        return f"{key}: must be given" + ("" if is_listed else f", on the command line: --{key} VALUE")
    message = detail["msg"].removeprefix("Value error, ")
    if not key:
        return str(message)
    message = message[0].lower() + message[1:]
    return f"{key}: {message.removeprefix('input ')}; it is {_shown(value)}"


def _shown(value: Any) -> str:
    """As the user wrote it: a number without quotes."""
    try:
        return value if isinstance(value, str) and float(value) is not None else repr(value)
    except ValueError:
        return repr(value)
