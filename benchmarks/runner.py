"""Plans -> rows: members into groups that fit the memory, groups through `pool.measure`, series into rows."""

import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import available_bytes
from benchmarks.plans import ONE_TEXT_REPEATS, Plan
from benchmarks.pool import BASE_BYTES, Member, Results, Say, Series, Worker, WorkerDiedError, measure
from benchmarks.rows import ENCODING_FACTOR, TRAINING_FACTOR, Row, cosines_to, summarize
from benchmarks.variants import UNBOUNDED_TOKENS, Tool, Variant

RESERVE_BYTES = 1_000_000_000
USUAL_TOKENS = 1_500
"""Real tokens of 32 triplets, which `Variant.memory_gb` is for."""
BOUND_TOKENS = 2_048
"""embedsmith's default bound on one forward."""
USUAL_PARAMETERS = 106e6
ENCODING_BYTES = 2_000_000_000
EXACT = "embedsmith-plain-fp32"
"""The variant that the others' embeddings are compared with."""
START_S = 8.0
# Real tokens a second of a training step where the peak is 430 GFLOPS: only to tell how long a run will take.
_RATES_GFLOPS = 430
_RATES = {
    "embedsmith": 1000,
    "embedsmith-default": 850,
    "embedsmith-plain": 600,
    "embedsmith-prompt": 750,
    "embedsmith-prompt-apart": 500,
    "st-bf16": 230,
    "st-fp32": 130,
    "st-as-it-comes": 45,
    "published": 42,
}
_OTHER_RATE = 150


class Clock:
    """How long the whole run will take, put right by how long its first plans took.

    Args:
        plans: all of them.
        peak_gflops: of the machine, in its fast precision.
    """

    def __init__(self, plans: Sequence[Plan], *, peak_gflops: float) -> None:
        self._expected_s = {id(plan): expected_seconds(plan, peak_gflops=peak_gflops) for plan in plans}
        self.total_s = sum(self._expected_s.values())
        self._done_s = self._spent_s = 0.0

    def tick(self, plan: Plan, *, spent_s: float) -> str:
        """A plan has finished; returns how things stand."""
        self._done_s += self._expected_s[id(plan)]
        self._spent_s += spent_s
        left_s = (self.total_s - self._done_s) * self._spent_s / self._done_s
        return f"{self._spent_s / 60:.0f} min spent, about {max(0.0, left_s) / 60:.0f} min left"


def expected_seconds(plan: Plan, *, peak_gflops: float) -> float:
    """A guess at the time a plan takes on a machine of that peak."""
    speed = (TRAINING_FACTOR / plan.factor) * (USUAL_PARAMETERS / plan.parameters) * (peak_gflops / _RATES_GFLOPS)
    total = 0.0
    for member in plan.members:
        rate = speed * _RATES.get(member.variant.name, _OTHER_RATE)
        starts = len(plan.works[0].requests) if plan.fresh_process else 1
        total += START_S * starts
        for work in plan.works:
            if member.variant.name not in work.skip:
                repeat = ONE_TEXT_REPEATS if "one" in work.requests[0].values() else 1
                total += repeat * sum(work.tokens) / rate
    return total


def run_plan(plan: Plan, *, folder: Path, say: Say) -> list[Row]:
    """Measure a plan; returns rows whose `fraction` is still in operations per second.

    Args:
        plan: who does what.
        folder: for log files.
        say: takes lines of progress.
    """
    if plan.fresh_process:
        results = _measure_starts(plan, folder=folder, say=say)
        return _rows(plan, results, variants=[member.variant for member in plan.members])
    if plan.in_one_go:
        return _measure_in_one_go(plan, folder=folder, say=say)
    rows: list[Row] = []
    budget = available_bytes() - RESERVE_BYTES
    for group in group_members(plan, budget_bytes=budget):
        results = measure(group, plan.works, folder=folder, say=say)
        # The reference runs in every group, for the ratios; its own row comes from the first.
        shown = [m.variant for m in group if not rows or m.variant.name != plan.reference]
        rows += _rows(plan, results, variants=shown)
    return rows


def group_members(plan: Plan, *, budget_bytes: int) -> list[list[Member]]:
    """First-fit: groups whose needs together stay within the budget, the reference in each of them.

    Every other member gets a limit: what the rest of its group leaves of the budget.
    """
    reference, *others = plan.members
    need = {member.variant.name: _need(member.variant, plan, budget_bytes) for member in plan.members}
    groups: list[list[Member]] = []
    for member in others:
        for group in groups:
            if sum(need[m.variant.name] for m in (*group, member)) <= budget_bytes:
                group.append(member)
                break
        else:
            groups.append([reference, member])
    return [
        [reference, *(_limited(member, group, need=need, budget_bytes=budget_bytes) for member in group[1:])]
        for group in groups or [[reference]]
    ]


def _limited(member: Member, group: Sequence[Member], *, need: dict[str, int], budget_bytes: int) -> Member:
    rest = sum(need[other.variant.name] for other in group) - need[member.variant.name]
    # A little more than there is: the limit counts what is reserved, and not all of that is ever touched.
    limit = int(1.1 * max(budget_bytes - rest, need[member.variant.name]))
    return replace(member, spec=replace(member.spec, memory_limit_bytes=limit))


def _need(variant: Variant, plan: Plan, budget_bytes: int) -> int:
    """Estimated peak at the largest work that can fit at all."""
    scale = plan.parameters / USUAL_PARAMETERS
    if plan.factor == ENCODING_FACTOR:
        return int(ENCODING_BYTES * scale)
    at_usual = variant.memory_gb * 1e9 - BASE_BYTES
    needs = []
    for work in plan.works:
        tokens = max(work.tokens)
        if variant.max_tokens != UNBOUNDED_TOKENS:
            tokens = min(tokens, BOUND_TOKENS)
        if variant.tool is Tool.PUBLISHED:  # pads every text to the same length
            tokens = USUAL_TOKENS * work.items // 32
        if variant.name not in work.skip:
            needs.append(int(BASE_BYTES + at_usual * scale * tokens / USUAL_TOKENS))
    fitting = [need for need in needs if need <= 0.9 * budget_bytes]
    return max(fitting, default=min(needs))


def _measure_starts(plan: Plan, *, folder: Path, say: Say) -> Results:
    """New processes for every round; seconds go from the start of the process to the end of its first step."""
    work = plan.works[0]
    results: Results = {(work.name, member.variant.name): Series() for member in plan.members}
    for number, request in enumerate(work.requests):
        heard = []
        for member in plan.members:
            name = member.variant.name
            series = results[work.name, name]
            if series.failure:
                continue
            for cache in member.environment.values():
                shutil.rmtree(cache, ignore_errors=True)
            try:
                seconds = _first_step(member, request=request, series=series, log=folder / f"{name}.log")
            except WorkerDiedError as error:
                series.failure = str(error)
                say(f"  {name} failed: {error}")
                continue
            heard.append(f"{name} {seconds:.3g} s")
            if number > 0:
                series.seconds.append(seconds)
        kind = "warm-up" if number == 0 else f"round {number}/{len(work.requests) - 1}"
        say(f"  {work.name}, {kind}: {', '.join(heard) or 'nobody left'}")
    return results


def _first_step(member: Member, *, request: dict[str, object], series: Series, log: Path) -> float:
    started = time.perf_counter()
    worker = Worker(member, log=log)
    try:
        reply = worker.ask(request)
        seconds = time.perf_counter() - started
    finally:
        worker.kill()
    series.replies.append(reply)
    series.peak_bytes = max(series.peak_bytes or 0, reply["peak_bytes"])
    return seconds


def _measure_in_one_go(plan: Plan, *, folder: Path, say: Say) -> list[Row]:
    """One process, a row for every work: median seconds of its steps, and the memory it holds when they are done."""
    (member,) = plan.members
    worker = Worker(member, log=folder / f"{member.variant.name}.log")
    rows: list[Row] = []
    try:
        for work in plan.works:
            reply = worker.ask(work.requests[0])
            low, middle, high = statistics.quantiles(reply["each_s"], n=4)
            say(f"  {work.name}: {middle:.3g} s a step, {reply['resident_bytes'] / 1e9:.2f} GB")
            rows.append(
                Row(
                    part=plan.part,
                    work=work.name,
                    variant=member.variant.name,
                    label=member.variant.label,
                    items=work.items,
                    x=work.x,
                    tokens=statistics.median(work.tokens),
                    repetitions=len(reply["each_s"]),
                    seconds=middle,
                    spread=high - low,
                    fraction=plan.factor * plan.parameters * sum(work.tokens) / sum(reply["each_s"]),
                    peak_bytes=reply["resident_bytes"],
                )
            )
    finally:
        worker.kill()
    return rows


def _rows(plan: Plan, results: Results, *, variants: Sequence[Variant]) -> list[Row]:
    files = {
        member.variant.name: Path(member.spec.embeddings)
        for member in plan.members
        if member.spec.embeddings and Path(member.spec.embeddings).exists()
    }
    return summarize(
        results,
        part=plan.part,
        works=plan.works,
        variants=variants,
        reference=plan.reference,
        operations_per_token=plan.factor * plan.parameters,
        cosines=cosines_to(EXACT, files),
    )
