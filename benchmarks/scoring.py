"""What scoring costs besides encoding: intervals of some tasks, and the comparison of two models on them.

python -m benchmarks.scoring --sts sts --tasks STS12 STS14 STS15 STSBenchmark-test SICK-R
"""

import argparse
import time
from pathlib import Path
from statistics import median

import numpy as np

from embedsmith.evaluation.correlation import NUM_DRAWS
from embedsmith.evaluation.significance import SeedScores, TaskScores, compare
from embedsmith.evaluation.sts import load_local_tasks, score_task

_NUM_ROUNDS = 3


def main() -> None:
    """Measure and print; similarities are the gold scores with noise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sts", type=Path, required=True, help="folder of scored pairs")
    parser.add_argument("--tasks", nargs="+", help="default: all")
    options = parser.parse_args()
    tasks = load_local_tasks(options.sts, options.tasks)
    random = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {"intervals": [], "comparison": []}
    for _ in range(_NUM_ROUNDS):
        noisy = {
            name: [pairs.scores + random.standard_normal(len(pairs)) for _ in range(2)] for name, pairs in tasks.items()
        }
        started = time.perf_counter()
        for name, pairs in tasks.items():
            score_task(noisy[name][0], pairs.scores, num_draws=NUM_DRAWS)
        seconds["intervals"].append(time.perf_counter() - started)
        started = time.perf_counter()
        compare(
            {
                name: TaskScores(
                    pairs.scores, {label: SeedScores([values]) for label, values in zip("ab", noisy[name], strict=True)}
                )
                for name, pairs in tasks.items()
            }
        )
        seconds["comparison"].append(time.perf_counter() - started)
    print(f"{sum(map(len, tasks.values()))} pairs, {NUM_DRAWS} draws")
    for name, values in seconds.items():
        print(f"{name}: {median(values):.1f} s")


if __name__ == "__main__":
    main()
