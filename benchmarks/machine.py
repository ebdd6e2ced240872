"""What the machine can do, measured with the very products a step consists of: the limit that every variant has.

python -m benchmarks.machine     prints one JSON line
"""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from embedsmith.model.loading.devices import choose_dtype
from embedsmith.settings.choices import Precision

ROWS = (1240, 1536)
SHAPES = ((576, 960), (576, 3072), (1536, 576), (1536, 1536))
"""(columns in, columns out): QKV, gate and up, down of the built-in model, and a larger square one."""
COPY_BYTES = 1 << 30
PACKAGES = ("torch", "transformers", "sentence-transformers", "peft", "accelerate")


def measure_limits() -> dict[str, float]:
    """Best median over shapes of `torch.mm` and of products with weights packed once, and of a large copy.

    Returns:
        bf16_gflops, fp32_gflops: of any product; bf16_mm_gflops, or fp32_mm_gflops where the processor has no bf16
        products and is not asked for them: of `torch.mm` alone; copy_gb_s: read and written.
    """
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}
    fast = fast_precision()
    with torch.no_grad():
        return {
            **{f"{name}_gflops": _matrix_peak(dtype[name]) / 1e9 for name in dict.fromkeys([fast, "fp32"])},
            f"{fast}_mm_gflops": _matrix_peak(dtype[fast], packed=False) / 1e9,
            "copy_gb_s": _copy_rate() / 1e9,
        }


def fast_precision() -> str:
    """What embedsmith computes in here unless told otherwise, bf16 or fp32."""
    return "bf16" if choose_dtype(Precision.AUTO, torch.device("cpu")) is torch.bfloat16 else "fp32"


def peak_precision(limits: Mapping[str, float]) -> str:
    """Whose peaks the limits of a machine are."""
    return "bf16" if "bf16_mm_gflops" in limits else "fp32"


def peaks(limits: Mapping[str, float]) -> tuple[float, float]:
    """GFLOPS in that precision, of any product and of `torch.mm`."""
    precision = peak_precision(limits)
    return limits[f"{precision}_gflops"], limits[f"{precision}_mm_gflops"]


def measure_limits_apart() -> dict[str, float]:
    """The same in a process of its own."""
    output = subprocess.run(
        [sys.executable, "-m", "benchmarks.machine"],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    limits: dict[str, float] = json.loads(output.stdout.strip().splitlines()[-1])
    return limits


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory and versions; nothing that names the machine."""
    return {
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bf16_in_hardware": bool(torch.cpu.get_capabilities().get("avx512_bf16")),
        "amx_in_hardware": bool(torch.cpu.get_capabilities().get("amx_bf16")),
        "system": platform.system(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }


def machine_title(machine: dict[str, Any]) -> str:
    """Processor and instruction sets, as a heading: what ratios depend on."""
    return f"{machine['processor']}, {', '.join(instruction_sets(machine))}, {machine['cores']} cores"


def instruction_sets(machine: dict[str, Any]) -> list[str]:
    """Those that a step uses."""
    sets = {"bf16 products": machine["bf16_in_hardware"], "AMX": machine["amx_in_hardware"]}
    return [machine["instructions"], *(name for name, is_there in sets.items() if is_there)]


def machine_slug(machine: dict[str, Any]) -> str:
    """The same for the name of a file."""
    return "-".join(re.findall("[a-z0-9]+", machine_title(machine).lower()))


def available_bytes() -> int:
    """Memory that can be had without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no MemAvailable: the benchmarks run on Linux only")


def _matrix_peak(dtype: torch.dtype, *, packed: bool = True) -> float:
    best = 0.0
    for num_rows in ROWS:
        for num_in, num_out in SHAPES:
            x = torch.randn(num_rows, num_in).to(dtype)
            weight = torch.randn(num_out, num_in).to(dtype)
            operations = 2 * num_rows * num_in * num_out
            for product in _products(x, weight, packed=packed):
                best = max(best, operations / _median_seconds(product))
    return best


def _products(x: torch.Tensor, weight: torch.Tensor, *, packed: bool) -> list[Callable[[], torch.Tensor]]:
    transposed = weight.T.contiguous()
    products: list[Callable[[], torch.Tensor]] = [lambda: torch.mm(x, transposed), lambda: torch.mm(x, weight.T)]
    if packed and torch.backends.mkldnn.is_available():
        layout = torch.ops.mkldnn._reorder_linear_weight(weight)
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(x, layout, None, "none", [], ""))
    return products


def _median_seconds(product: Callable[[], object], *, repetitions: int = 15) -> float:
    for _ in range(3):
        product()
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _copy_rate() -> float:
    source = torch.ones(COPY_BYTES, dtype=torch.uint8)
    target = torch.zeros_like(source)
    return 2 * COPY_BYTES / _median_seconds(lambda: target.copy_(source), repetitions=5)


def processor_name() -> str:
    """As the system calls it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    print(json.dumps(measure_limits()))
