"""A sweep: one recipe, some settings varied, several seeds -> a run for each, and what they say together.

    sweep file + command line -> cells (settings that differ) -> runs (a cell and a seed), one after the other
    -> sweep.json, sweep.md, sweep.html

Invariants: every cell is checked before the first run starts; two cells that mean the same run share it; a sweep that
was killed goes on where it was, as its runs do. Cost: the runs.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from rich.console import Console

from embedsmith.records.results import SweepPoint
from embedsmith.settings.config import RunConfig
from embedsmith.settings.recipe import parse_config
from embedsmith.settings.section import Int, Place
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, RunError
from embedsmith.support.free_memory import let_go
from embedsmith.support.lock import only_one
from embedsmith.verbs.run_set import (
    RESULT_FILE,
    check_runs_unchanged,
    find_run,
    identity_of,
    read_result,
    start_or_resume,
)
from embedsmith.verbs.train import DEV_TASK
from embedsmith.verbs.varied_recipe import (
    VariedRecipe,
    as_number,
    changes_of,
    check_plan,
    faults_of,
    labelled,
    raise_faults,
    read_plan_file,
    resolve_base,
)

log = logging.getLogger(__name__)

_MAX_NAME = 40
_CHANGED = "Put back what was there, or remove these runs, or sweep into another folder."
_NO_SEED = "seeds are no axis and no setting of a sweep: name them all with `seeds`, or --seeds 7,8"


class SweepConfig(VariedRecipe):
    """A sweep, as its file says it."""

    runs_dir: Place | None = None
    """Folder of the runs, which several sweeps may share; none: `runs` in output_dir."""
    axes: dict[str, list[Any]] = Field(min_length=1)
    """Setting -> its values, {label: value} where a value is long; or a name -> {label: {setting: value, ...}}."""
    design: Literal["one_at_a_time", "grid"] = "one_at_a_time"
    """Each axis alone around the recipe's own values, or every combination."""
    seeds: list[Int] = Field(default=[7], min_length=1)
    """One run for each."""

    @property
    def runs_folder(self) -> Path:
        """Where the runs lie."""
        return Path(self.runs_dir or Path(self.output_dir) / "runs")


@dataclass(frozen=True)
class Cell:
    """One point of an axis.

    Attributes:
        axis: the setting, or several with a comma in between.
        label: its value, for people to read.
        value: a number where it is one, for the plot; else None.
        is_base: whether it is what the recipe itself says.
        configs: one for each seed.
    """

    axis: str
    label: str
    value: float | None
    is_base: bool
    configs: tuple[RunConfig, ...]


def read_sweep(path: Path | None, *, overrides: Mapping[str, Any]) -> SweepConfig:
    """Read a sweep file, or a recipe's (it has no `axes`), the command line's values over it.

    Raises:
        ConfigError: no such file, no YAML mapping, unknown keys or wrong types, all of them together.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = read_plan_file(path, what="sweep")
        if "axes" not in values:
            values = {"recipe": str(path)}
    options = {"output_dir": "--output_dir DIR", "axes": "--grid KEY=VALUE,VALUE"}
    return check_plan(SweepConfig, {**values, **overrides}, what="sweep", path=path, options=options)


def make_cells(sweep: SweepConfig, *, settings: Mapping[str, Any] | None = None) -> list[Cell]:
    """All cells, each resolved and checked.

    Args:
        sweep: what is varied.
        settings: of the recipe itself, as on the command line.

    Raises:
        ConfigError: a cell's settings are faulty, or an axis has the same value twice; all are named.
    """
    base = resolve_base(sweep, settings, what="sweep", no_seed=_NO_SEED)
    faults: list[str] = []
    cells = []
    for axis, label, changes in _points(sweep, faults):
        configs = []
        for seed in sweep.seeds:
            try:
                config = parse_config(base.model_dump(mode="json"), overrides={**changes, "training.seed": seed})
            except ConfigError as error:
                faults += [f"{axis} = {label}: {fault}" for fault in faults_of(error)]
                break
            configs.append(config)
        else:
            is_base = identity_of(configs[0], with_seed=False) == identity_of(base, with_seed=False)
            cells.append(Cell(axis, label, as_number(label), is_base, tuple(configs)))
    for first, second in combinations(cells, 2):
        if first.axis == second.axis and first.configs[0] == second.configs[0]:
            faults.append(f"{first.axis}: {first.label} and {second.label} are the same run")
    raise_faults(faults, what="sweep")
    return cells


def run_sweep(sweep: SweepConfig, cells: Sequence[Cell], *, device: str | None = None, console: Console) -> None:
    """Run what has not been run yet, and bring table and page up to date after each run.

    A run that fails is recorded and the next one starts; to try it again, remove its folder.

    Raises:
        RunError: another sweep works in this folder, or runs in it were made from data or models that have changed.
        DataError, ModelError, MissingExtraError: from a run's preparation; they concern all runs alike.
    """
    folder = sweep.runs_folder
    for name in ("sweep.json", "sweep.md", "sweep.html"):
        files.check_output(Path(sweep.output_dir) / name, option="output_dir")
    files.check_output_folder(folder, option="runs_dir")
    with only_one(folder, what="sweep"):
        distinct = {identity_of(config): config for cell in cells for config in cell.configs}
        check_runs_unchanged(folder, distinct, what="sweep", advice=_CHANGED)
        for index, (identity, config) in enumerate(distinct.items(), start=1):
            run = find_run(folder, identity) or folder / _name(cells, identity)
            if (run / RESULT_FILE).exists():
                continue
            console.print(f"run {index} of {len(distinct)}: {run.name}", markup=False, highlight=False)
            let_go()  # of the run before
            _run(run, config, device=device, console=console)
            report_sweep(sweep, cells)


def report_sweep(sweep: SweepConfig, cells: Sequence[Cell]) -> list[SweepPoint]:
    """Write `sweep.json`, `sweep.md` and `sweep.html` of what is known; returns all points.

    Raises:
        MissingExtraError: the page's packages are not installed.
    """
    from embedsmith.reporting.sweep_report import sweep_markdown, write_sweep_page

    folder = Path(sweep.output_dir)
    points = [_point(sweep.runs_folder, cell) for cell in cells]
    files.write_json(folder / "sweep.json", [asdict(point) for point in points])
    files.write_text(folder / "sweep.md", sweep_markdown(points))
    recipe = cells[0].configs[0].to_yaml()
    write_sweep_page(folder / "sweep.html", points, title=folder.name, recipe_yaml=recipe)
    return points


def _run(run: Path, config: RunConfig, *, device: str | None, console: Console) -> None:
    try:
        done = start_or_resume(run, config, device=device, console=console)
    except RunError as error:
        reason = str(error)  # the error itself holds the run's model, and whoever keeps the log's records would too
        log.warning("%s failed: %s", run.name, reason)
        record: dict[str, Any] = {"failed": reason}
    else:
        dev = done.dev.tasks[DEV_TASK] if done.dev else None
        record = {"dev": dev.to_json() if dev else None, "num_tokens": done.outcome.num_tokens}
    run.mkdir(parents=True, exist_ok=True)
    files.write_json(run / RESULT_FILE, record)


def _point(folder: Path, cell: Cell) -> SweepPoint:
    scores: list[float | None] = []
    failures = []
    for config in cell.configs:
        record = read_result(find_run(folder, identity_of(config)))
        failures += [record["failed"]] if "failed" in record else []
        scores.append(record["dev"]["cosine_spearman"] if record.get("dev") else None)
    return SweepPoint(cell.axis, cell.label, cell.value, cell.is_base, tuple(scores), tuple(failures))


def _points(sweep: SweepConfig, faults: list[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(axis, label, changed settings) of every cell."""
    axes = {
        key: [
            (label, changes_of(key, label, value, no_seed=_NO_SEED, faults=faults))
            for label, value in map(labelled, values)
        ]
        for key, values in sweep.axes.items()
    }
    if sweep.design == "one_at_a_time":
        for key, values in axes.items():
            for label, changes in values:
                yield key, label, changes
        return
    for combination in product(*axes.values()):
        changes = {key: value for _, part in combination for key, value in part.items()}
        yield ", ".join(axes), ", ".join(label for label, _ in combination), changes


def _name(cells: Sequence[Cell], identity: str) -> str:
    """Readable, and stable: the last part says what the run is, the first what it was first asked for."""
    cell, config = next((c, f) for c in cells for f in c.configs if identity_of(f) == identity)
    keys = "+".join(key.split(".")[-1] for key in cell.axis.split(", "))
    words = re.sub(r"[^\w.+-]+", "_", f"{keys}={cell.label}")[:_MAX_NAME]
    return f"{words}-seed{config.training.seed}-{identity}"
