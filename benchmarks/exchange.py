"""What processes exchange in a step, as the system counts it, beside what the cost model says; and that model for GPUs.

python -m benchmarks.exchange [--model smollm2-135m] [--processes 1 2 4] [--batch-size 8] [--steps 3]
python -m benchmarks.exchange --gpus

Bytes: those that TCP has delivered on the process's own connections (`tcpi_bytes_acked`), gloo's over this machine's
loopback; the launcher's store is left out. Seconds: of a step, the exchange included, one thread a process; where there
are fewer cores than processes they cannot fall. `--gpus`: computed, nothing is measured.
"""

import argparse
import json
import multiprocessing
import os
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from embedsmith.model.loading.weights import held_parameters
from embedsmith.settings.recipe import load_config
from embedsmith.training.batching import training_batches
from embedsmith.training.budget import TokenBudget
from embedsmith.training.cost import (
    Links,
    Step,
    embedding_bytes,
    gradient_bytes,
    step_seconds,
    weight_bytes,
)
from embedsmith.training.distributed import Processes
from embedsmith.training.loop import trained_parameters
from embedsmith.training.step import take_step
from embedsmith.verbs.prepare import prepare_run

_ACKED = 120
"""Where `tcpi_bytes_acked` lies in Linux's struct tcp_info."""
# Steps of 256 triplets on one H100, as docs/performance.md#on-a-gpu has them; rank 8 on query and value projections.
# The smallest step measured there is one of 64 triplets with SmolLM2-135M, 0.034 s.
_MEASURED = {
    "SmolLM2-135M": Step(256, 768, 512, 576, 460_800, compute_s=0.211, least_s=0.034),
    "Gemma-2B's shape": Step(256, 768, 512, 2048, 921_600, compute_s=0.337, least_s=0.034),
    "MiniCPM-2B's shape": Step(256, 768, 512, 2304, 2_949_120, compute_s=0.680, least_s=0.034),
}
_GPUS = (1, 8, 16, 32, 64, 128, 256, 512)
# Published: NVLink 4 of an H100, 900 GB/s both ways; NDR InfiniBand and EFA of a P5 machine, 400 Gb/s a GPU; and a
# cloud's 100 Gb/s for a machine of eight. Assumed: 10 microseconds a hop, and 3e13 operations a second in float32.
_LINKS = {
    "400 Gb/s a GPU": Links(bytes_per_s=450e9, between_bytes_per_s=50e9),
    "100 Gb/s for 8 GPUs": Links(bytes_per_s=450e9, between_bytes_per_s=100e9 / 8 / 8),
}


def main() -> None:
    """Measure and print, or compute and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--gpus", action="store_true")
    options = parser.parse_args()
    lines = gpu_lines() if options.gpus else measured_lines(options)
    print("\n".join(lines))


def measured_lines(options: argparse.Namespace) -> list[str]:
    """A Markdown table: a row for each number of processes, with a whole base and one held together."""
    head = ["processes", "base", "embeddings", "gradients", "weights", "in all", "sent", "more", "s a step"]
    lines = [_row(head), _row(["---:"] * len(head))]
    for count in options.processes:
        for sharded in (False, True) if count > 1 else (False,):
            found = measure(options, count=count, sharded=sharded)
            parts = [found["embeddings"], found["gradients"], found["weights"]]
            more = f"{found['sent'] / sum(parts) - 1:.2%}" if count > 1 else "-"
            sizes = [f"{size:,.0f}" for size in (*parts, sum(parts), found["sent"])]
            lines.append(_row([count, "shared" if sharded else "whole", *sizes, more, f"{found['step_s']:.2f}"]))
    return lines


def measure(options: argparse.Namespace, *, count: int, sharded: bool) -> dict[str, float]:
    """Bytes a step that the process which sends most has sent, what the model says of it, and the seconds of a step."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        place = {"count": count, "port": free.getsockname()[1], "sharded": sharded, "out": folder}
        free.close()
        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=_work, args=(options, rank), kwargs=place) for rank in range(count)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(folder).glob("*.json"))]
    assert len(found) == count, "a process has failed"
    return {name: max(one[name] for one in found) for name in found[0]}


def _work(options: argparse.Namespace, rank: int, *, count: int, port: int, sharded: bool, out: str) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {**{name: str(value) for name, value in place.items()}, "MASTER_ADDR": "127.0.0.1"}
    settings = {"output_dir": f"{out}/run", "model.model": options.model, "batch_size": str(options.batch_size)}
    run = prepare_run(load_config(overrides={**settings, "max_steps": str(options.steps), "sharded": str(sharded)}))
    processes, adapter = Processes(run.accelerator), trained_parameters(run.embedder)
    base = held_parameters(run.embedder.transformer)
    own_bytes = sum(one.nbytes for name, one in base.items() if "lora_" not in name)
    batches = [
        run.triplets.rows(rows) for rows in islice(training_batches(run.triplets, config=run.config), options.steps)
    ]
    embeddings = 0
    run.accelerator.wait_for_everyone()
    sent, started = _sent_bytes(but=port), time.perf_counter()
    for batch in batches:
        most = max(sum(map(len, run.objective.text_groups(share))) for share in processes.shares(batch))
        embeddings += embedding_bytes(num_texts=most, dim=run.embedder.dim, count=count)
        take_step(run.embedder, batch=batch, objective=run.objective, budget=TokenBudget(1 << 30), processes=processes)
        processes.add_up(adapter)
    step_s = (time.perf_counter() - started) / options.steps
    run.accelerator.wait_for_everyone()  # until what was sent has arrived
    measured: dict[str, Any] = {
        "embeddings": embeddings / options.steps,
        "gradients": gradient_bytes(num_trained=sum(one.numel() for one in adapter), count=count),
        "weights": weight_bytes(shared_bytes=own_bytes * count, num_gathers=2, count=count) if sharded else 0,
        "sent": (_sent_bytes(but=port) - sent) / options.steps,
        "step_s": step_s,
    }
    Path(out, f"{rank}.json").write_text(json.dumps(measured), encoding="utf-8")
    run.accelerator.wait_for_everyone()


def _sent_bytes(*, but: int) -> int:
    """Bytes that have arrived at the other ends of this process's TCP connections, but for those to one port."""
    return sum(struct.unpack_from("Q", information, _ACKED)[0] for information in _connections(but))


def _connections(but: int) -> Iterator[bytes]:
    for link in Path("/proc/self/fd").iterdir():
        try:
            with socket.socket(fileno=os.dup(int(link.name))) as one:
                if one.type == socket.SOCK_STREAM and but not in (one.getpeername()[1], one.getsockname()[1]):
                    yield one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except (OSError, IndexError):
            continue  # no socket, or none that is connected


def gpu_lines() -> list[str]:
    """Markdown: for each model and link, a batch that grows with the GPUs, and one that does not."""
    lines = []
    for link, links in _LINKS.items():
        for grows in (True, False):
            lines += ["", f"{'256 triplets a GPU' if grows else '2,048 triplets in all'}, {link}", ""]
            lines += [_row(["GPUs", "triplets", *_MEASURED]), _row(["---:"] * (len(_MEASURED) + 2))]
            lines += [_gpu_row(count, grows=grows, links=links) for count in _GPUS]
    return lines[1:]


def _gpu_row(count: int, *, grows: bool, links: Links) -> str:
    times = count if grows else 8
    cells = []
    for one in _MEASURED.values():
        step = replace(
            one,
            num_rows=one.num_rows * times,
            num_texts=one.num_texts * times,
            num_compared=one.num_compared * times,
            compute_s=one.compute_s * times,
        )
        parts = step_seconds(step, count=count, links=links)
        share = step.compute_s / count / sum(parts.values())
        cells.append(f"{sum(parts.values()):.3f} s, {share:.0%}")
    return _row([count, f"{256 * times:,}", *cells])


def _row(cells: list[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
