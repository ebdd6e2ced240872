"""A search: settings of a recipe chosen jointly by an optimiser, trials that lag stopped early -> the best recipe.

    search file + command line -> space -> trials, one after the other -> the best again with other seeds
    -> study.jsonl, search.json, search.md, search.html, best.yaml

Invariants: every value of the space is checked before the first trial; a search that was killed goes on where it was,
with the suggestions it would have made; only the development set is looked at. Cost: the runs.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console

from embedsmith.model.loading.devices import choose_device
from embedsmith.records.optimized import Finalist, SearchFindings, Trial
from embedsmith.reporting.optimize_report import best_line, final_line, search_markdown, trial_line, write_search_page
from embedsmith.settings.config import RunConfig
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, RunError
from embedsmith.support.free_memory import let_go
from embedsmith.support.lock import only_one
from embedsmith.training.checkpoint import newest_progress, remove_checkpoints
from embedsmith.training.metrics import METRICS_FILE, metrics_until
from embedsmith.verbs.optimize_space import Search, SearchConfig
from embedsmith.verbs.optimize_study import STUDY_FILE, RunningTrial, Study
from embedsmith.verbs.optimize_watcher import Watcher, evaluations_of
from embedsmith.verbs.run_set import (
    RESULT_FILE,
    check_runs_unchanged,
    find_run,
    identity_of,
    read_result,
    start_or_resume,
)
from embedsmith.verbs.train import DEV_TASK

log = logging.getLogger(__name__)

BEST_FILE = "best.yaml"
_WRITTEN = ("search.json", "search.md", "search.html", BEST_FILE)
_NOTHING_NEW = 20
"""So many suggestions in a row that need no run end a search, whose budget they would not use up."""
_CHANGED = "Put back what was there, or search into another folder."
_WEIGHTS = ("adapter", "model", "late")


def run_search(
    search: Search, *, retry_failed: bool = False, device: str | None = None, console: Console
) -> SearchFindings:
    """Run the trials that are left, then the finalists; tables and page are brought up to date after each run.

    A trial that fails is recorded, and the next one starts.

    Args:
        search: what is searched.
        retry_failed: run the settings of failed trials again, as further trials, before new ones.
        device: of the runs.
        console: gets a line for each run.

    Raises:
        ConfigError: the device is not there; or what the first trial says, as long as none has a score.
        RunError: another search works in this folder, or it was begun as another one, or runs in it were made from data
            or models that have changed.
        DataError, ModelError, MissingExtraError: from a run's preparation; they concern all runs alike.
    """
    folder = search.plan.runs_folder
    for name in _WRITTEN:
        files.check_output(Path(search.plan.output_dir) / name, option="output_dir")
    files.check_output_folder(folder, option="output_dir")
    choose_device(device)
    with only_one(folder, what="search"):
        runs = _Runs(search, device=device, console=console)
        check_runs_unchanged(folder, runs.known_configs(), what="search", advice=_CHANGED)
        runs.run_trials(retry_failed=retry_failed)
        runs.run_finals(retry_failed=retry_failed)
        return report_search(search, runs.study)


def read_findings(search: Search) -> SearchFindings:
    """Write tables and page of what there is; raises RunError when nothing has been searched in the folder."""
    path = Path(search.plan.output_dir) / STUDY_FILE
    if not path.exists():
        raise RunError(f"Nothing has been searched in {search.plan.output_dir}: it has no {STUDY_FILE}.")
    with only_one(search.plan.runs_folder, what="search"):
        return report_search(search, Study(path, search=search))


def report_search(search: Search, study: Study) -> SearchFindings:
    """Write `search.json`, `search.md`, `search.html` and `best.yaml` of what is known.

    Raises:
        MissingExtraError: the page's packages are not installed.
    """
    folder = Path(search.plan.output_dir)
    findings = _findings(search, study)
    winner = findings.winner
    result = {
        **asdict(findings),
        "elapsed_s": findings.elapsed_s,
        "winner": winner.number if winner else None,
        "search": search.plan.model_dump(mode="json"),
    }
    files.write_json(folder / "search.json", result)
    files.write_text(folder / "search.md", search_markdown(findings))
    if winner:
        best = search.config_of(winner.point).model_copy(update={"output_dir": str(folder / "best")})
        files.write_text(folder / BEST_FILE, f"# {best_line(findings)}\n{best.to_yaml()}")
    write_search_page(folder / "search.html", findings, title=folder.name, recipe_yaml=search.base.to_yaml())
    return findings


def _findings(search: Search, study: Study) -> SearchFindings:
    seeds = tuple(search.plan.final_seeds)
    found = SearchFindings(study.trials, seeds, importances=study.importances())
    finalists = []
    for trial in found.ranked[: search.plan.finalists if seeds else 0]:
        results = [
            read_result(find_run(search.plan.runs_folder, identity_of(search.config_of(trial.point, seed=seed))))
            for seed in seeds
        ]
        scores = tuple(result.get("score") for result in results)
        failures = tuple(result["failed"] for result in results if result.get("failed"))
        finalists.append(Finalist(trial.number, scores, failures))
    finalists.sort(key=lambda one: -(one.mean or 0.0))
    return SearchFindings(found.trials, seeds, tuple(finalists), found.importances)


class _Runs:
    """The runs of a search, made one after the other."""

    def __init__(self, search: Search, *, device: str | None, console: Console) -> None:
        self.search = search
        self.plan = search.plan
        self.folder = search.plan.runs_folder
        self.study = Study(Path(self.plan.output_dir) / STUDY_FILE, search=search)
        self.device = device
        self.console = console
        # A run's own lines and progress are for somebody who watches.
        self.of_runs = console if console.is_terminal else Console(quiet=True)

    def say(self, line: str) -> None:
        """A line as it is."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def known_configs(self) -> dict[str, RunConfig]:
        """Identity -> run, of all that have begun and did not fail."""
        seeds = [None, *self.plan.final_seeds]
        configs = [
            self.search.config_of(trial.point, seed=seed)
            for trial in self.study.trials
            if trial.state != "failed"
            for seed in seeds
        ]
        return {identity_of(config): config for config in configs}

    def run_trials(self, *, retry_failed: bool) -> None:
        """Until there are as many as asked for, or the time is over."""
        self.say(_plan_line(self.plan, num_done=len(self.study.trials)))
        for point, repeats in self._asked_for(retry_failed=retry_failed):
            running = self.study.ask(point)
            trial = self._run_trial(running, repeats=repeats)
            if trial is None:
                self.say(
                    f"The budget of {self.plan.budget_minutes:g} minutes is used up before trial {running.number} is "
                    "finished; with more, the search goes on there."
                )
                return
            running.finish(trial)
            findings = report_search(self.search, self.study)
            self.say(trial_line(trial, findings))

    def _asked_for(self, *, retry_failed: bool) -> Iterator[tuple[dict[str, Any] | None, int | None]]:
        """(point, trial it repeats) of each trial that is left; None: whatever is suggested."""
        if retry_failed:
            for trial in self.study.trials:
                repeated = {other.repeats for other in self.study.trials}
                if trial.state == "failed" and trial.number not in repeated:
                    yield dict(trial.point), trial.number
        while self.plan.trials is None or self._num_suggested() < self.plan.trials:
            last = self.study.trials[-_NOTHING_NEW:]
            if len(last) == _NOTHING_NEW and not any(trial.elapsed_s for trial in last):
                self.say(f"The last {_NOTHING_NEW} suggestions had all been run before: the search ends here.")
                return
            yield None, None

    def _num_suggested(self) -> int:
        return sum(trial.repeats is None for trial in self.study.trials)

    def _seconds_left(self) -> float:
        if self.plan.budget_minutes is None:
            return float("inf")
        return 60 * self.plan.budget_minutes - sum(trial.elapsed_s for trial in self.study.trials)

    def _run_trial(self, running: RunningTrial, *, repeats: int | None) -> Trial | None:
        """What became of it; None where the time was over before its end, and it can go on."""
        name = f"trial-{running.number:03d}"
        try:
            config = self.search.config_of(running.point)
        except ConfigError as error:  # of three settings or more that do not fit together
            return _trial(running, {"state": "failed", "failed": str(error)}, run=name, repeats=repeats)
        run = find_run(self.folder, identity_of(config))
        if run is not None and repeats is not None and "failed" in read_result(run):
            shutil.rmtree(run)
            run = None
        run = run or self.folder / f"{name}-{identity_of(config)}"
        watcher = Watcher(running, config, seconds_left=self._seconds_left())
        result = read_result(run) or self._go_on(run, config, watcher)
        if not result:
            return None
        is_told = bool(watcher.evaluations) or result["state"] == "failed"
        if not is_told and watcher.replay(result["evaluations"]):
            result |= {"state": "stopped", "score": watcher.value, "evaluations": watcher.evaluations}
        if not run.name.startswith(f"{name}-"):
            result["elapsed_s"] = 0.0  # an earlier trial had the same settings
        return _trial(running, result, run=run.name, repeats=repeats)

    def _go_on(self, run: Path, config: RunConfig, watcher: Watcher) -> dict[str, Any]:
        """Begin a trial's run, or go on with it; empty where the time is over."""
        if (progress := newest_progress(run)) is not None:
            check_runs_unchanged(self.folder, {identity_of(config): config}, what="search", advice=_CHANGED)
            records = [one for one in metrics_until(progress, path=run / METRICS_FILE) if one["step"] > 0]
            if watcher.replay(evaluations_of(records)):  # killed between its being stopped and its record
                return self._record(run, {"state": "stopped", "score": watcher.value}, watcher)
        if watcher.elapsed_s >= watcher.seconds_left:
            return {}
        return self._make(run, config, watcher)

    def _make(self, run: Path, config: RunConfig, watcher: Watcher | None) -> dict[str, Any]:
        let_go()  # of the run before
        started = time.perf_counter()
        try:
            done = start_or_resume(run, config, watch=watcher, device=self.device, console=self.of_runs)
        except (ConfigError, RunError) as error:
            if isinstance(error, ConfigError) and not any(trial.evaluations for trial in self.study.trials):
                raise  # until a trial has a score, it may be what all have in common
            reason = str(error)  # the error itself holds the run's model
            log.warning("%s failed: %s", run.name, reason)
            return self._record(run, {"failed": reason, "elapsed_s": time.perf_counter() - started}, watcher)
        if watcher and watcher.is_late and done.outcome.is_stopped:
            return {}
        assert done.dev is not None  # of a run with a development set
        dev = done.dev.tasks[DEV_TASK]
        result = {
            "state": "stopped" if done.outcome.is_stopped else "complete",
            "score": dev.cosine_spearman,
            "dev": dev.to_json(),
            "num_tokens": done.outcome.num_tokens,
            "elapsed_s": done.outcome.elapsed_s,
        }
        return self._record(run, result, watcher)

    def _record(self, run: Path, result: dict[str, Any], watcher: Watcher | None) -> dict[str, Any]:
        """Write what became of a run, then remove what is large and not asked for again."""
        record: dict[str, Any] = {"state": "failed", "score": None, "elapsed_s": watcher.elapsed_s if watcher else 0.0}
        record |= {"evaluations": watcher.evaluations if watcher else []} | result
        run.mkdir(parents=True, exist_ok=True)
        files.write_json(run / RESULT_FILE, record)
        remove_checkpoints(run)
        if record["state"] == "stopped":
            for name in _WEIGHTS:
                shutil.rmtree(run / name, ignore_errors=True)
        return record

    def run_finals(self, *, retry_failed: bool) -> None:
        """The best trials again, with each of the final seeds."""
        seeds = self.plan.final_seeds
        best = _findings(self.search, self.study).ranked[: self.plan.finalists] if seeds else []
        for trial, seed in product(best, seeds):
            config = self.search.config_of(trial.point, seed=seed)
            identity = identity_of(config)
            run = find_run(self.folder, identity) or self.folder / f"final-{trial.number:03d}-seed{seed}-{identity}"
            known = read_result(run)
            if not known or (retry_failed and "failed" in known):
                (run / RESULT_FILE).unlink(missing_ok=True)
                result = self._make(run, config, None)
                report_search(self.search, self.study)
                self.say(final_line(trial, seed=seed, score=result["score"]))


def _plan_line(plan: SearchConfig, *, num_done: int) -> str:
    limits = [f"{plan.trials} trials"] if plan.trials else []
    limits += [f"{plan.budget_minutes:g} minutes of training"] if plan.budget_minutes else []
    finals = f", then {plan.finalists} x {len(plan.final_seeds)} final runs" if plan.final_seeds else ""
    done = f"; {num_done} trials are there already" if num_done else ""
    return f"{', '.join(plan.space)}: at most {' or '.join(limits)}{finals}{done}"


def _trial(running: RunningTrial, result: dict[str, Any], *, run: str, repeats: int | None) -> Trial:
    return Trial(
        number=running.number,
        point=running.point,
        state=result["state"],
        score=result.get("score"),
        evaluations=tuple((step, score) for step, score, _ in result.get("evaluations", [])),
        elapsed_s=result.get("elapsed_s", 0.0),
        run=run,
        failed=result.get("failed"),
        repeats=repeats,
    )
