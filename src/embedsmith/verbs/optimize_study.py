"""A search's trials and the next suggestion, through Optuna: TPE over all settings jointly, and successive halving.

`study.jsonl` is Optuna's journal: JSON, a line an entry, no pickle; its own tools read it. It holds finished trials
alone: the one that runs lives in memory, so a search that is killed leaves a study from which the next trial follows.
Each trial's sampler starts from (seed, number of the trial). So its suggestion is a function of the seed and of the
trials before it, and a search that was interrupted suggests what an uninterrupted one does, under the same Optuna.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedsmith.records.optimized import Trial
from embedsmith.support.errors import MissingExtraError, RunError, list_faults
from embedsmith.support.files import check_output
from embedsmith.verbs.optimize_space import Choices, Halving, Range, Search

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
    from optuna.trial import FrozenTrial, TrialState
except ImportError:
    raise MissingExtraError("optuna", extra="optimize", needed_for="embedsmith optimize") from None

optuna.logging.set_verbosity(optuna.logging.WARNING)

log = logging.getLogger(__name__)

STUDY_FILE = "study.jsonl"
_NAME = "search"
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped", TrialState.FAIL: "failed"}
_FEWEST_FOR_IMPORTANCE = 20
_BEST_SHARE = 0.25


class Study:
    """The trials of a search, kept in a file.

    Args:
        path: of the file; it is made if it is not there. Only one process may use it at a time.
        search: whose trials they are.

    Raises:
        RunError: the file cannot be written, is damaged, or holds trials of another search.
    """

    def __init__(self, path: Path, *, search: Search) -> None:
        check_output(path, option="output_dir")
        self._distributions = {one.name: _distribution(one) for one in search.space}
        self._seed = search.plan.seed
        self._startup_trials = search.plan.startup_trials
        self._halving = search.plan.halving
        try:
            _drop_torn_line(path)
            storage = JournalStorage(JournalFileBackend(str(path), lock_obj=_HeldElsewhere(str(path))))
            if optuna.get_all_study_names(storage):
                self._study = optuna.load_study(study_name=_NAME, storage=storage)
            else:
                self._study = optuna.create_study(storage=storage, study_name=_NAME, direction="maximize")
            begun = self._study.user_attrs.get("search")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path} is damaged: {error!r}.\nSearch into another folder.") from error
        asked = _describe(search)
        if begun is None:
            self._study.set_user_attr("search", asked)
            self._study.set_user_attr("optuna", optuna.__version__)
        elif changed := _differences(begun, asked):
            headline = f"{path} was begun as another search. Since then have changed:"
            raise RunError(list_faults(headline, changed, advice="Put back what was there, or choose another folder."))
        if (version := self._study.user_attrs.get("optuna", optuna.__version__)) != optuna.__version__:
            log.warning("%s was begun with Optuna %s; what this one suggests may differ.", path, version)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The finished ones, in the order in which they were run."""
        return tuple(map(_as_record, self._study.trials))

    def ask(self, point: Mapping[str, Any] | None = None) -> "RunningTrial":
        """The next trial: a suggestion, or this point."""
        done = self._study.trials
        random = int(np.random.SeedSequence([self._seed, len(done)]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(seed=random, n_startup_trials=self._startup_trials, multivariate=True)
        memory = optuna.create_study(direction="maximize", sampler=sampler, pruner=_pruner(self._halving))
        memory.add_trials(done)
        if point is not None:
            memory.enqueue_trial(dict(point))
        return RunningTrial(memory, memory.ask(self._distributions), kept_in=self._study)

    def importances(self) -> dict[str, float]:
        """Share of each name in whether a trial is among the best quarter; empty for fewer than 20 trials with a score.

        PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255), Optuna's own choice. Trials that were stopped count with the
        score that they came to.
        """
        scored = [trial for trial in self._study.trials if trial.value is not None]
        if len(scored) < _FEWEST_FOR_IMPORTANCE:
            return {}
        memory = optuna.create_study(direction="maximize")
        for trial in scored:
            memory.add_trial(
                optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=trial.value)
            )
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=_BEST_SHARE)
        return optuna.importance.get_param_importances(memory, evaluator=evaluator)


class RunningTrial:
    """A trial that is not finished yet.

    Attributes:
        number: of the trial.
        point: what it has for each name of the space.
    """

    def __init__(self, memory: optuna.Study, trial: optuna.Trial, *, kept_in: optuna.Study) -> None:
        self._memory = memory
        self._trial = trial
        self._kept_in = kept_in
        self.number = trial.number
        self.point: dict[str, Any] = dict(trial.params)

    def report(self, score: float, *, evaluation: int) -> bool:
        """Tell of an evaluation, the first behind the start being 1; returns whether the trial shall stop there."""
        self._trial.report(score, step=evaluation)
        return self._trial.should_prune()

    def finish(self, trial: Trial) -> None:
        """Keep it, with what became of it."""
        state = next(state for state, name in _STATES.items() if name == trial.state)
        kept = {"evaluations": trial.evaluations, "elapsed_s": trial.elapsed_s, "run": trial.run}
        kept |= {"score": trial.score, "failed": trial.failed, "repeats": trial.repeats}
        for name, value in kept.items():
            self._trial.set_user_attr(name, value)
        self._memory.tell(self._trial, trial.score if state == TrialState.COMPLETE else None, state=state)
        self._kept_in.add_trial(self._memory.trials[-1])


class _HeldElsewhere(JournalFileOpenLock):
    """The folder's lock is held by this process already, and goes with it; Optuna's own would outlive a kill."""

    def acquire(self) -> bool:
        """Held."""
        return True

    def release(self) -> None:
        """Later."""


def _drop_torn_line(path: Path) -> None:
    """A last line without its end was being written when the machine went down; its trial is made of its run again."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)


def _distribution(one: Choices | Range) -> BaseDistribution:
    if isinstance(one, Choices):
        return CategoricalDistribution(list(one.changes))
    if one.is_integer:
        return IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    return FloatDistribution(one.low, one.high, log=one.log, step=one.step)


def _pruner(halving: Halving | None) -> optuna.pruners.BasePruner:
    if halving is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.SuccessiveHalvingPruner(
        min_resource=halving.first_evaluation, reduction_factor=halving.reduction_factor
    )


def _describe(search: Search) -> dict[str, Any]:
    """All that a trial follows from, as JSON holds it."""
    plan = search.plan
    asked: dict[str, Any] = {
        "recipe": search.base.model_dump(mode="json", exclude={"output_dir"}),
        "space": plan.model_dump(mode="json")["space"],
        "seed": plan.seed,
        "startup_trials": plan.startup_trials,
        "halving": plan.halving.model_dump(mode="json") if plan.halving else None,
    }
    return json.loads(json.dumps(asked))


def _differences(begun: Mapping[str, Any], asked: Mapping[str, Any], *, within: str = "") -> list[str]:
    """Each value that differs, by its dotted name; lists and choices as a whole."""
    found: list[str] = []
    for key in dict.fromkeys([*begun, *asked]):
        was, now, name = begun.get(key), asked.get(key), f"{within}{key}"
        if isinstance(was, dict) and isinstance(now, dict):
            found += _differences(was, now, within=f"{name}.")
        elif was != now:
            found.append(f"{name}: it was {was!r}, now it is {now!r}")
    if not within and list(begun["space"]) != list(asked["space"]):
        found.append(f"the order of the space: it was {', '.join(begun['space'])}")
    return found


def _as_record(trial: FrozenTrial) -> Trial:
    kept = trial.user_attrs
    evaluations: Sequence[Any] = kept["evaluations"]
    return Trial(
        number=trial.number,
        point=dict(trial.params),
        state=_STATES[trial.state],  # type: ignore[arg-type]
        score=kept["score"],
        evaluations=tuple((step, score) for step, score in evaluations),
        elapsed_s=kept["elapsed_s"],
        run=kept["run"],
        failed=kept["failed"],
        repeats=kept["repeats"],
    )
