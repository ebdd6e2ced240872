"""Seconds per training step and peak memory of a process, on triplets of your own: one batch size, one process.

    python benchmarks/training_step.py 'nli/*_triplets.tsv.gz' --batch-size 32 --steps 12

Prints one JSON line. The first three steps warm up and are left out of the median.
"""

import argparse
import json
import resource
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path

from embedsmith.settings.recipe import load_config
from embedsmith.training.metrics import read_metrics
from embedsmith.verbs.train import train

WARMUP_STEPS = 3


def main() -> None:
    """Measure one setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("triplets")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-tokens", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=12)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        overrides = {
            "output_dir": f"{folder}/run",
            "data.train": arguments.triplets,
            "batch_size": str(arguments.batch_size),
            "max_tokens": str(arguments.max_tokens),
            "max_steps": str(arguments.steps),
            "warmup_steps": "2",
            "dev": "null",
        }
        run = train(load_config(overrides=overrides))
        records = read_metrics(Path(folder) / "run" / "metrics.jsonl")[WARMUP_STEPS - 1 :]
    seconds = [second["elapsed_s"] - first["elapsed_s"] for first, second in pairwise(records)]
    print(
        json.dumps(
            {
                "batch_size": arguments.batch_size,
                "max_tokens": arguments.max_tokens,
                "median_s": round(statistics.median(seconds), 2),
                "min_s": round(min(seconds), 2),
                "max_s": round(max(seconds), 2),
                "tokens_per_step": run.outcome.num_tokens // run.outcome.num_steps,
                "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
