"""A search file -> a recipe, the space of its settings, a budget; every fault is named before the first run.

Each trial has a value for every name of the space, which stands for a setting, or for several that change together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from embedsmith.settings.config import RunConfig
from embedsmith.settings.recipe import by_full_key, number_kind, parse_config
from embedsmith.settings.section import Float, Int, Section
from embedsmith.support.errors import ConfigError
from embedsmith.training.schedule import make_schedule
from embedsmith.verbs.varied_recipe import (
    VariedRecipe,
    changes_of,
    check_plan,
    faults_of,
    labelled,
    raise_faults,
    read_plan_file,
    resolve_base,
)

_NO_SEED = "training.seed is no part of a space: every trial has the recipe's; `final_seeds` names further ones"
Point = Mapping[str, Any]
"""Name of the space -> what a trial has there: a label of its choices, or a number of its range."""


class Halving(Section):
    """Successive halving (asynchronous: Li et al. 2018, arXiv 1810.05934): which trials are stopped early."""

    reduction_factor: Int = Field(default=3, ge=2)
    """One in so many of the trials that reach an evaluation where they are compared goes on."""
    first_evaluation: Int = Field(default=1, ge=1)
    """Where they are compared first, counted behind the start; then this times the factor, and so on."""


class SearchConfig(VariedRecipe):
    """A search, as its file says it."""

    space: dict[str, Any] = Field(min_length=1)
    """Setting -> a list of choices, or {low, high, log, step}; or a name -> {label: {setting: value, ...}}."""
    trials: Int | None = Field(default=None, ge=1)
    """How many."""
    budget_minutes: Float | None = Field(default=None, gt=0)
    """Of training, over all trials and restarts. What is under way then is left as it is, to go on with more."""
    seed: Int = Field(default=7, ge=0)
    """Of the suggestions."""
    startup_trials: Int = Field(default=10, ge=1)
    """So many are drawn at random, before suggestions learn from what was found (TPE)."""
    halving: Halving | None = Halving()
    """none: every trial runs to its end."""
    finalists: Int = Field(default=3, ge=1)
    """So many of the best trials are run with the final seeds."""
    final_seeds: list[Int] = Field(default=[])
    """The winner has the best mean over them. They come on top of the budget."""

    @model_validator(mode="after")
    def _check(self) -> "SearchConfig":
        if self.trials is None and self.budget_minutes is None:
            raise ValueError("a search has no end: give trials or budget_minutes, or both")
        if not self.final_seeds and "finalists" in self.changed():
            raise ValueError("finalists does nothing without final_seeds")
        if len(set(self.final_seeds)) < len(self.final_seeds):
            raise ValueError("final_seeds names a seed twice")
        return self

    @property
    def runs_folder(self) -> Path:
        """Where the runs lie."""
        return Path(self.output_dir) / "runs"


@dataclass(frozen=True)
class Choices:
    """A name of the space with a list of values.

    Attributes:
        name: as in the file.
        changes: label -> the settings it stands for.
    """

    name: str
    changes: Mapping[str, dict[str, Any]]

    @property
    def ends(self) -> list[Any]:
        """Every label."""
        return list(self.changes)

    @property
    def keys(self) -> set[str]:
        """Full names of the settings that it changes."""
        return {key for changes in self.changes.values() for key in by_full_key(changes, faults=[])}

    def settings(self, value: Any) -> dict[str, Any]:
        """Those that a label stands for."""
        return self.changes[value]


@dataclass(frozen=True)
class Range:
    """A setting with a range of numbers.

    Attributes:
        name: as in the file.
        low, high: both may be chosen.
        is_integer: whether the setting takes whole numbers.
        log: whether ratios count, not differences.
        step: of a grid from `low`; None: any number, or any whole one.
    """

    name: str
    low: float
    high: float
    is_integer: bool
    log: bool
    step: float | None

    @property
    def ends(self) -> list[Any]:
        """Both."""
        return [int(self.low), int(self.high)] if self.is_integer else [self.low, self.high]

    @property
    def keys(self) -> set[str]:
        """Full name of the setting."""
        return set(by_full_key({self.name: None}, faults=[]))

    def settings(self, value: Any) -> dict[str, Any]:
        """The setting with this number."""
        return {self.name: value}


@dataclass(frozen=True)
class Search:
    """What is searched, checked.

    Attributes:
        plan: as in the file.
        base: the recipe.
        space: its dimensions.
    """

    plan: SearchConfig
    base: RunConfig
    space: tuple[Choices | Range, ...]

    def config_of(self, point: Point, *, seed: int | None = None) -> RunConfig:
        """The run of a trial, or the same with another seed; raises ConfigError where settings do not fit together."""
        changes = {key: value for one in self.space for key, value in one.settings(point[one.name]).items()}
        if seed is not None:
            changes["training.seed"] = seed
        return parse_config(self.base.model_dump(mode="json"), overrides=changes)


def read_search(path: Path, *, overrides: Mapping[str, Any]) -> SearchConfig:
    """Read a search file, the command line's values over it.

    Raises:
        ConfigError: no such file, no YAML mapping, unknown keys or wrong types, all of them together.
    """
    values = {**read_plan_file(path, what="search"), **overrides}
    options = {"output_dir": "--output-dir DIR"}
    return check_plan(SearchConfig, values, what="search", path=path, options=options)


def make_search(plan: SearchConfig, *, settings: Mapping[str, Any] | None = None) -> Search:
    """The search with its recipe and space, checked: every value of the space, and every two of them together.

    Args:
        plan: of its file.
        settings: of the recipe, as on the command line.

    Raises:
        ConfigError: naming all that is wrong.
    """
    base = resolve_base(plan, settings, what="search")
    faults: list[str] = []
    space = tuple(one for name, value in plan.space.items() if (one := _read_dimension(name, value, faults)))
    for one, other in combinations(space, 2):
        faults += [f"{key} is changed by {one.name} and by {other.name}" for key in sorted(one.keys & other.keys)]
    if base.training.seed in plan.final_seeds:
        faults.append(f"final_seeds holds {base.training.seed}, the seed of the trials themselves; name others")
    raise_faults(faults, what="search")
    search = Search(plan, base, space)
    raise_faults(_faults_of_points(search), what="search")
    return search


def _read_dimension(name: str, value: Any, faults: list[str]) -> Choices | Range | None:
    if not isinstance(value, list | dict):
        faults.append(
            f"{name}: should be a list of choices, {{low, high}}, or {{label: {{setting: value}}}}; it is {value!r}"
        )
        return None
    if isinstance(value, dict) and value.keys() & {"low", "high"}:
        return _read_range(name, value, faults)
    pairs = [*map(labelled, value)] if isinstance(value, list) else [(str(key), one) for key, one in value.items()]
    changes = {label: changes_of(name, label, one, no_seed=_NO_SEED, faults=faults) for label, one in pairs}
    if len(changes) < len(pairs):
        faults.append(f"{name}: a choice stands there twice")
    elif len(changes) < 2:
        faults.append(f"{name}: there is nothing to choose; put its one value under settings")
    return Choices(name, changes)


class _RangeValues(Section):
    low: Float
    high: Float
    log: bool = False
    step: Float | None = Field(default=None, gt=0)


def _read_range(name: str, value: dict[str, Any], faults: list[str]) -> Range | None:
    kind = number_kind(name)
    if kind is None:
        faults.append(f"{name}: a range needs a setting that takes a number")
        return None
    try:
        given = _RangeValues.model_validate(value)
    except ValidationError as error:
        faults += [
            f"{name}.{'.'.join(map(str, one['loc']))}: {one['msg'].lower().removeprefix('input ')}"
            for one in error.errors()
        ]
        return None
    numbers = [given.low, given.high, *([given.step] if given.step else [])]
    wrong = [
        "low must be below high" if given.low >= given.high else "",
        "low must be above 0 where log is true" if given.log and given.low <= 0 else "",
        "log and step exclude each other" if given.log and given.step else "",
        "the setting takes whole numbers" if kind is int and any(number % 1 for number in numbers) else "",
        "high is no whole number of steps above low" if given.step and not _divides(given.step, given) else "",
    ]
    faults += [f"{name}: {fault}" for fault in wrong if fault]
    return None if any(wrong) else Range(name, given.low, given.high, kind is int, given.log, given.step)


def _divides(step: float, given: _RangeValues) -> bool:
    count = (given.high - given.low) / step
    return abs(count - round(count)) < 1e-6


def _points(search: Search) -> Iterator[dict[str, Any]]:
    """Points that together hold every two values of the space, of ranges both ends."""
    first = {one.name: one.ends[0] for one in search.space}
    yield first
    for one in search.space:
        for value in one.ends:
            yield {**first, one.name: value}
    for one, other in combinations(search.space, 2):
        for value, further in product(one.ends, other.ends):
            yield {**first, one.name: value, other.name: further}


def _faults_of_points(search: Search) -> list[str]:
    """What is wrong with them, each fault once, with the values that it comes from."""
    met: dict[str, Point] = {}
    num_evaluations = 0
    for point in _points(search):
        try:
            num_evaluations = max(num_evaluations, _count_evaluations(search.config_of(point)))
        except ConfigError as error:
            for fault in faults_of(error):
                met.setdefault(fault, point)
    found = [f"{_causes(search, fault, point) or 'every trial'}: {fault}" for fault, point in met.items()]
    halving = search.plan.halving
    if not found and halving and halving.first_evaluation >= num_evaluations:
        found.append(
            f"halving.first_evaluation is {halving.first_evaluation}, but the runs have {num_evaluations} evaluations "
            "behind their start, and the last stops nothing; lower it or evaluation.eval_steps, or set halving to none"
        )
    return found


def _causes(search: Search, fault: str, point: Point) -> str:
    """The values of a point without which it would have a fault less, and no other."""
    faults = set(_faults_at(search, point))
    causes = [
        f"{one.name} = {point[one.name]}"
        for one in search.space
        if any(set(_faults_at(search, {**point, one.name: value})) <= faults - {fault} for value in one.ends)
    ]
    return ", ".join(causes)


def _faults_at(search: Search, point: Point) -> list[str]:
    try:
        _count_evaluations(search.config_of(point))
    except ConfigError as error:
        return faults_of(error)
    return []


def _count_evaluations(config: RunConfig) -> int:
    """Of a run, behind its start; raises ConfigError where it is none that a search can compare."""
    if config.evaluation.dev is None:
        raise ConfigError("evaluation.dev is none, but a search goes by the development set")
    if config.training.max_steps is None:
        raise ConfigError("training.max_steps is none, but a search needs runs of a known length")
    return len(make_schedule(config, num_triplets=1).evaluated_at - {0})
