"""A file that varies a recipe -> the recipe it starts from, and what each of its choices changes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Discriminator, Field, Tag, ValidationError

from embedsmith.settings.config import RunConfig
from embedsmith.settings.recipe import by_full_key, is_setting, load_config, parse_config, read_yaml_file
from embedsmith.settings.section import MAPPING, ONE, Place, Section, one_or_mapping, without_tags
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, list_faults


class VariedRecipe(Section):
    """What a sweep and a search have in common."""

    output_dir: Place
    """Folder of what comes out."""
    recipe: Annotated[
        Annotated[Place, Tag(ONE)] | Annotated[dict[str, Any], Tag(MAPPING)], Discriminator(one_or_mapping)
    ]
    """What is varied: a recipe's file, or its sections."""
    settings: dict[str, Any] = Field(default={})
    """Settings of the recipe that are changed for every run."""


Plan = TypeVar("Plan", bound=VariedRecipe)


def read_plan_file(path: Path, *, what: str) -> dict[str, Any]:
    """The values of a file, the place of its recipe seen from here; `what` names it in messages.

    Raises:
        ConfigError: no such file, or no YAML mapping.
    """
    values = read_yaml_file(path, what=f"{what} file")
    if not isinstance(values, dict):
        raise ConfigError(f"The {what} file {path} must hold a recipe and output_dir, as KEY: VALUE.")
    if isinstance(values.get("recipe"), str):
        values["recipe"] = str(path.parent / files.expand_home(values["recipe"]))
    return values


def check_plan(
    kind: type[Plan], values: Mapping[str, Any], *, what: str, path: Path | None, options: Mapping[str, str]
) -> Plan:
    """The values as a plan.

    Args:
        kind: of the plan.
        values: of the file and the command line.
        what: names it in messages.
        path: of its file, if there is one.
        options: key -> the option that gives it too.

    Raises:
        ConfigError: unknown keys or wrong types, all of them together.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        faults = [_describe(detail, options) for detail in error.errors()]
        raise ConfigError(
            list_faults(f"There are faults in the {what} {path or ''}:", faults, advice="Fix them and start again.")
        ) from None


def _describe(detail: Any, options: Mapping[str, str]) -> str:
    key = ".".join(map(str, without_tags(detail["loc"])))
    if detail["type"] == "extra_forbidden":
        return f"{key}: no such key"
    if detail["type"] == "missing":
        return f"{key}: must be given in the file" + (f", or as {options[key]}" if key in options else "")
    message = detail["msg"].removeprefix("Value error, ")
    message = (message[0].lower() + message[1:]).removeprefix("input ")
    return f"{key}: {message}" if key else message


def resolve_base(
    plan: VariedRecipe, settings: Mapping[str, Any] | None, *, what: str, no_seed: str | None = None
) -> RunConfig:
    """The recipe itself, with what the plan and the command line change for every run.

    Args:
        plan: names it.
        settings: of the command line.
        what: the plan is, for messages.
        no_seed: what is said of a seed among those settings, if it has no place there.

    Raises:
        ConfigError: it is faulty.
    """
    faults: list[str] = []
    changed = {**by_full_key(plan.settings, faults=faults), **by_full_key(settings or {}, faults=faults)}
    if no_seed and "training.seed" in changed:
        faults.append(no_seed)
    raise_faults(faults, what=what)
    changed["output_dir"] = plan.output_dir
    if isinstance(plan.recipe, str):
        return load_config(plan.recipe, overrides=changed)
    return parse_config(plan.recipe, overrides=changed)


def raise_faults(faults: Sequence[str], *, what: str) -> None:
    """Raise ConfigError naming the faults, if there are any."""
    if faults:
        raise ConfigError(list_faults(f"There are faults in the {what}:", faults, advice="Fix them and start again."))


def faults_of(error: ConfigError) -> list[str]:
    """The faults that a configuration's error lists, each by itself."""
    lines = str(error).split("\n")
    return [line.strip() for line in lines[1:-1]] or lines[:1]


def changes_of(axis: str, label: str, value: Any, *, no_seed: str, faults: list[str]) -> dict[str, Any]:
    """What a choice changes: an axis is a setting, or a name of the user's own for several that change together.

    Args:
        axis: its name.
        label: of the choice.
        value: of the setting, or {setting: value, ...}.
        no_seed: what is said of a seed among them.
        faults: get what is wrong.
    """
    is_several = isinstance(value, dict) and all(isinstance(key, str) and is_setting(key) for key in value)
    if is_several or is_setting(axis):
        changes = value if is_several else {axis: value}
        if "training.seed" in by_full_key(changes, faults=faults):
            faults.append(f"{axis}: {no_seed}")
        return changes
    faults.append(f"{axis} is no setting, and {label} does not say which settings it stands for")
    return {}


def labelled(value: Any) -> tuple[str, Any]:
    """A choice -> its label and its value: `{label: value}`, or a value that is its own label."""
    if isinstance(value, dict) and len(value) == 1:
        ((label, value),) = value.items()
        return str(label), value
    return ("none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)), value


def as_number(label: str) -> float | None:
    """A label as a number, where it is one."""
    try:
        return float(label)
    except ValueError:
        return None
