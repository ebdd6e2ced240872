"""A sweep: one recipe, some settings varied, several seeds -> a run for each, and what they say together.

    sweep file + command line -> cells (settings that differ) -> runs (a cell and a seed), one after the other
    -> sweep.json, sweep.md, sweep.html

Invariants: every cell is checked before the first run starts; two cells that mean the same run share it; a sweep that
was killed goes on where it was, as its runs do. Cost: the runs.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError
from rich.console import Console

from embedsmith.model.loading.embedding_files import describe_model
from embedsmith.records.results import SweepPoint
from embedsmith.settings.config import RunConfig
from embedsmith.settings.recipe import by_full_key, is_setting, load_config, parse_config, read_yaml_file
from embedsmith.settings.section import Int, Place, Section
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, RunError, list_faults
from embedsmith.support.free_memory import let_go
from embedsmith.verbs.inputs import INPUTS_FILE, begun_prompt_tokens, check_unchanged, load_inputs
from embedsmith.verbs.train import DEV_TASK, resume_run, train

log = logging.getLogger(__name__)

RESULT_FILE = "result.json"
_MAX_NAME = 40
_SEEDS = "seeds are no axis and no setting of a sweep: name them all with `seeds`, or --seeds 7,8"


class SweepConfig(Section):
    """A sweep, as its file says it."""

    output_dir: Place
    """Folder of table and page."""
    runs_dir: Place | None = None
    """Folder of the runs, which several sweeps may share; none: `runs` in output_dir."""
    recipe: Place | dict[str, Any]
    """What is varied: a recipe's file, or its sections."""
    settings: dict[str, Any] = Field(default={})
    """Settings of the recipe that are changed for every run."""
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
        values = read_yaml_file(path, what="sweep file")
        if not isinstance(values, dict):
            raise ConfigError(f"The sweep file {path} must hold axes, recipe and output_dir.")
        if "axes" not in values:
            values = {"recipe": str(path)}
        elif isinstance(values.get("recipe"), str):
            values["recipe"] = str(path.parent / Path(values["recipe"]).expanduser())
    try:
        return SweepConfig.model_validate({**values, **overrides})
    except ValidationError as error:
        faults = [_describe(detail) for detail in error.errors()]
        raise ConfigError(
            list_faults(f"There are faults in the sweep {path or ''}:", faults, advice="Fix them and start again.")
        ) from None


def _describe(detail: Any) -> str:
    key = ".".join(map(str, detail["loc"]))
    if detail["type"] == "missing":
        option = {"output_dir": ", or as --output_dir DIR", "axes": ", or as --grid KEY=VALUE,VALUE"}.get(key, "")
        return f"{key}: must be given in the file{option}"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower() + message[1:]}"


def make_cells(sweep: SweepConfig, *, settings: Mapping[str, Any] | None = None) -> list[Cell]:
    """All cells, each resolved and checked.

    Args:
        sweep: what is varied.
        settings: of the recipe itself, as on the command line.

    Raises:
        ConfigError: a cell's settings are faulty, or an axis has the same value twice; all are named.
    """
    faults: list[str] = []
    changed = {**by_full_key(sweep.settings, faults=faults), **by_full_key(settings or {}, faults=faults)}
    if "training.seed" in changed:
        faults.append(_SEEDS)
    if faults:
        raise ConfigError(list_faults("There are faults in the sweep:", faults, advice="Fix them and start again."))
    changed["output_dir"] = sweep.output_dir
    if isinstance(sweep.recipe, str):
        base = load_config(sweep.recipe, overrides=changed)
    else:
        base = parse_config(sweep.recipe, overrides=changed)
    cells = []
    for axis, label, changes in _points(sweep, faults):
        configs = []
        for seed in sweep.seeds:
            try:
                config = parse_config(base.model_dump(mode="json"), overrides={**changes, "training.seed": seed})
            except ConfigError as error:
                faults += [f"{axis} = {label}: {line.strip()}" for line in str(error).split("\n")[1:-1]]
                break
            configs.append(config)
        else:
            is_base = _identity(configs[0], with_seed=False) == _identity(base, with_seed=False)
            cells.append(Cell(axis, label, _number(label), is_base, tuple(configs)))
    for first, second in combinations(cells, 2):
        if first.axis == second.axis and first.configs[0] == second.configs[0]:
            faults.append(f"{first.axis}: {first.label} and {second.label} are the same run")
    if faults:
        raise ConfigError(list_faults("There are faults in the sweep:", faults, advice="Fix them and start again."))
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
    with _only_one(folder):
        distinct = {_identity(config): config for cell in cells for config in cell.configs}
        _check_unchanged(folder, distinct)
        for index, (identity, config) in enumerate(distinct.items(), start=1):
            run = _find_run(folder, identity) or folder / _name(cells, identity)
            if (run / RESULT_FILE).exists():
                continue
            console.print(f"run {index} of {len(distinct)}: {run.name}", markup=False, highlight=False)
            let_go()  # of the run before
            _run(run, config, device=device, console=console)
            report_sweep(sweep, cells)


def _check_unchanged(folder: Path, distinct: Mapping[str, RunConfig]) -> None:
    """Runs that are there, finished or stopped, must have been made from what lies there now."""
    known: dict[str, dict[str, Any]] = {}
    faults = []
    for identity, config in distinct.items():
        run = _find_run(folder, identity)
        if run is None or not ((run / RESULT_FILE).exists() or _can_resume(run)):
            continue
        sources = repr((config.data, config.evaluation, config.model.model, config.teacher.teacher))
        known[sources] = known.get(sources) or load_inputs(config)
        try:
            check_unchanged(run, {**known[sources], "settings": {}})  # those are the same, by the run's name
        except RunError as error:
            faults += [f"{run.name}: {line.strip()}" for line in str(error).split("\n")[1:-1]]
        if was := _other_prompt_tokens(run, config):
            faults.append(f"{run.name}: prompts and texts were tokenised {was}, which new runs are not")
    if faults:
        advice = "Put back what was there, or remove these runs, or sweep into another folder."
        headline = "There are runs of this sweep that were made from something else. Since then have changed:"
        raise RunError(list_faults(headline, faults, advice=advice))


def _other_prompt_tokens(run: Path, config: RunConfig) -> str | None:
    """How a run with a prompt was begun to tokenise it, if a new one would do otherwise."""
    if not (run / INPUTS_FILE).exists() or not (config.model.prompt or config.model.query_prompt):
        return None
    begun = begun_prompt_tokens(run)
    return begun if begun != describe_model(config.model.model).settings.prompt_tokens else None


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
    config = config.model_copy(update={"output_dir": str(run)})
    can_resume = _can_resume(run)
    if run.exists() and not can_resume:
        shutil.rmtree(run)
    try:
        if can_resume:
            done = resume_run(run, device=device, console=console)
        else:
            done = train(config, device=device, console=console)
    except RunError as error:
        reason = str(error)  # the error itself holds the run's model, and whoever keeps the log's records would too
        log.warning("%s failed: %s", run.name, reason)
        record: dict[str, Any] = {"failed": reason}
    else:
        dev = done.dev.tasks[DEV_TASK] if done.dev else None
        record = {"dev": dev.to_json() if dev else None, "num_tokens": done.outcome.num_tokens}
    run.mkdir(parents=True, exist_ok=True)
    files.write_json(run / RESULT_FILE, record)


def _can_resume(run: Path) -> bool:
    return any((run / "checkpoints").glob("step-*"))


def _point(folder: Path, cell: Cell) -> SweepPoint:
    scores: list[float | None] = []
    failures = []
    for config in cell.configs:
        run = _find_run(folder, _identity(config))
        path = run / RESULT_FILE if run else None
        record = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
        failures += [record["failed"]] if "failed" in record else []
        scores.append(record["dev"]["cosine_spearman"] if record.get("dev") else None)
    return SweepPoint(cell.axis, cell.label, cell.value, cell.is_base, tuple(scores), tuple(failures))


def _points(sweep: SweepConfig, faults: list[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(axis, label, changed settings) of every cell."""
    axes = {
        key: [(label, _changes(key, label, value, faults)) for label, value in map(_labelled, values)]
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


def _changes(key: str, label: str, value: Any, faults: list[str]) -> dict[str, Any]:
    """An axis is a setting, or a name of the user's own for several that change together."""
    is_several = isinstance(value, dict) and all(map(is_setting, value))
    if is_several or is_setting(key):
        changes = value if is_several else {key: value}
        if "training.seed" in by_full_key(changes, faults=faults):
            faults.append(f"{key}: {_SEEDS}")
        return changes
    faults.append(f"axes: {key} is no setting, and {label} does not say which settings it stands for")
    return {}


def _labelled(value: Any) -> tuple[str, Any]:
    if isinstance(value, dict) and len(value) == 1:
        ((label, value),) = value.items()
        return str(label), value
    return ("none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)), value


def _number(label: str) -> float | None:
    try:
        return float(label)
    except ValueError:
        return None


def _identity(config: RunConfig, *, with_seed: bool = True) -> str:
    """What a run is, wherever it lies."""
    values = config.model_dump(mode="json", exclude={"output_dir"})
    if not with_seed:
        values["training"].pop("seed")
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=4).hexdigest()


def _name(cells: Sequence[Cell], identity: str) -> str:
    """Readable, and stable: the last part says what the run is, the first what it was first asked for."""
    cell, config = next((c, f) for c in cells for f in c.configs if _identity(f) == identity)
    keys = "+".join(key.split(".")[-1] for key in cell.axis.split(", "))
    words = re.sub(r"[^\w.+-]+", "_", f"{keys}={cell.label}")[:_MAX_NAME]
    return f"{words}-seed{config.training.seed}-{identity}"


def _find_run(folder: Path, identity: str) -> Path | None:
    return next(iter(folder.glob(f"*-{identity}")), None)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """A lock of the operating system's: it goes when its process does, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"Another sweep works in {folder}.\nWait for it, or choose another folder.") from None
    try:
        yield
    finally:
        lock.release()
