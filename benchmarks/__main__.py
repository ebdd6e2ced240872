"""The command line: measure, keep `performance/<machine>.json`, write `performance.md`, which shows every machine.

python -m benchmarks                                   everything, on the sample in the package (about an hour)
python -m benchmarks --triplets 'nli/*_triplets.tsv.gz' --sts sts/STSBenchmark-test.tsv.gz
python -m benchmarks --parts step encode               some parts; the others stay as they are in the file
python -m benchmarks --quick                           everything, tiny: does it run, not how fast
python -m benchmarks --render                          the page again, from the results kept
"""

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import (
    describe_machine,
    fast_precision,
    machine_slug,
    measure_limits_apart,
    peak_precision,
    peaks,
)
from benchmarks.plans import Plan, Planner
from benchmarks.render import RESULTS_FOLDER, render
from benchmarks.rows import Row, read_results, with_fractions, write_results
from benchmarks.runner import Clock, run_plan
from benchmarks.scale import FULL, QUICK
from benchmarks.texts import TextSource
from benchmarks.variants import load_peers
from embedsmith.data.sample import SAMPLE
from embedsmith.model.loading.sources import source_of

PARTS = ("step", "gradcache", "encode", "prompt", "adapter", "growth", "families", "busy", "long", "start")
MODEL = "smollm2-135m"
DOCS = Path(__file__).parent.parent / "docs"
console = Console(highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure or render."""
    options = _parse(arguments)
    folder: Path = options.output or (Path("results/bench-quick") if options.quick else DOCS)
    folder.mkdir(parents=True, exist_ok=True)
    if not options.render:
        console.print(f"wrote {_measure(options, folder=folder)}")
    render(folder)
    console.print(f"wrote {folder / 'performance.md'}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--triplets", nargs="+", default=[SAMPLE], help="files or globs of triplets, or 'sample'")
    parser.add_argument("--sts", default=SAMPLE, help="file of scored sentence pairs, or 'sample'")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="only these")
    parser.add_argument("--repetitions", type=int, help="counted rounds; default 5, with --quick 2")
    parser.add_argument("--step-batches", nargs="+", type=int, help="triplets of a step; default 32 and 64")
    parser.add_argument("--quick", action="store_true", help="tiny works, to see that everything runs")
    parser.add_argument(
        "--output", type=Path, help="folder of the results; default docs, with --quick results/bench-quick"
    )
    parser.add_argument("--render", action="store_true", help="measure nothing, write the pages from the results")
    options = parser.parse_args(arguments)
    threads = os.environ.get("OMP_NUM_THREADS")
    set_threads = [f"OMP_NUM_THREADS={threads}"] if threads else []
    given = sys.argv[1:] if arguments is None else arguments
    options.command = shlex.join([*set_threads, "python", "-m", "benchmarks", *given])
    return options


def _measure(options: argparse.Namespace, *, folder: Path) -> Path:
    machine = describe_machine()
    path = folder / RESULTS_FOLDER / f"{machine_slug(machine)}.json"
    results = read_results(path)
    if results["machine"] not in (None, machine):
        # Figures of two versions do not belong into one table.
        console.print(f"the results in {path} are of other versions or another memory: all of them are replaced")
        results = {"parts": {}}
    results["machine"] = machine
    scale = QUICK if options.quick else FULL
    if options.repetitions:
        scale = replace(scale, repetitions=options.repetitions)
    if options.step_batches:
        scale = replace(scale, step_batches=tuple(options.step_batches))
    precision = fast_precision()
    peers = load_peers(precision=precision) if "step" in options.parts else []  # they take no other part
    for peer in peers:
        if peer.missing:
            console.print(f"skipped: {peer.label}, {peer.missing}")
    with tempfile.TemporaryDirectory() as name:
        model = Path(source_of(MODEL))
        source = TextSource(triplets=options.triplets, sts=options.sts, model=model)
        planner = Planner(folder=Path(name), source=source, model=model, scale=scale, precision=precision, peers=peers)
        console.print("preparing texts and models ...")
        plans = {part: planner.plans(part) for part in options.parts}
        settings = {
            "command": options.command,
            "scale": asdict(scale),
            "texts": f"{len(source.table)} triplets",
        }
        missing = [f"{peer.label}: {peer.missing}" for peer in peers if peer.missing]

        def keep(measured: dict[str, Any]) -> None:
            results["parts"] |= {
                part: {**settings, "missing": missing if part == "step" else [], **values}
                for part, values in measured.items()
            }
            write_results(path, results)

        _run_all(plans, folder=Path(name), keep=keep)
    return path


def _run_all(plans: dict[str, list[Plan]], *, folder: Path, keep: Callable[[dict[str, Any]], None]) -> None:
    """Measure every part and keep what is there after each, so that a run cut short is not lost.

    Fractions are of the mean of the peaks measured before and after the part.
    """
    before = measure_limits_apart()
    console.print(_limits_line("the machine before", before))
    clock = Clock([plan for group in plans.values() for plan in group], peak_gflops=peaks(before)[0])
    console.print(f"this will take about {clock.total_s / 60:.0f} minutes")
    for part, group in plans.items():
        rows: list[Row] = []
        for plan in group:
            console.print(f"{plan.part}: {', '.join(work.name for work in plan.works)}")
            started = time.perf_counter()
            rows += run_plan(plan, folder=folder, say=console.print)
            console.print(f"  {clock.tick(plan, spent_s=time.perf_counter() - started)}")
        after = measure_limits_apart()
        console.print(_limits_line("the machine after", after))
        keep({part: _with_limits(rows, before=before, after=after)})
        before = after


def _with_limits(rows: Sequence[Row], *, before: dict[str, float], after: dict[str, float]) -> dict[str, Any]:
    used = {key: (before[key] + after[key]) / 2 for key in before}
    peak, of_mm = peaks(used)
    own = with_fractions(rows, peak_flops=peak * 1e9, mm_flops=of_mm * 1e9)
    return {"limits": {"before": before, "after": after, "used": used}, "rows": [asdict(row) for row in own]}


def _limits_line(title: str, limits: dict[str, float]) -> str:
    peak, of_mm = peaks(limits)
    return (
        f"{title}: {peak:.0f} GFLOPS in {peak_precision(limits)} (torch.mm {of_mm:.0f}), "
        f"{limits['fp32_gflops']:.0f} in fp32, {limits['copy_gb_s']:.0f} GB/s copying"
    )


if __name__ == "__main__":
    main()
