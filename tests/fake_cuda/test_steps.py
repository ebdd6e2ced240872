"""Steps on fake CUDA tensors: formats, devices, a backward in another thread, how many kernels it all starts.

No number is computed and no kernel of a GPU runs; what those do is for `tests/cuda`, on a machine that has one.
"""

import json
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).parent
TORCH = Path(torch.__file__).parent
VERSION = "2.13."  # `device.cpp` takes the place of functions of libtorch, which may differ in another one
CASES = [
    *("llama, bf16", "granite, bf16", "phi, bf16", "gemma2, bf16", "gemma3_text, bf16", "qwen3, bf16", "olmo2, bf16"),
    *(f"{family}, fp32, every layer" for family in ("llama", "granite", "phi", "gemma2")),
    *("plain, bf16", "plain, fp32", "prompt, bf16", "prompt, fp32, pieces"),
    *("SmolLM2-135M, step", "SmolLM2-135M, encoding", "SmolLM2-135M, step, fp32"),
]


@cache
def _why_not() -> str:
    if not torch.__version__.startswith(VERSION):
        return f"made for torch {VERSION}x, this is {torch.__version__}"
    if torch.version.cuda or platform.system() != "Linux":
        return "for Linux and torch's build without CUDA"
    try:
        subprocess.run(["g++", "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "no g++ on this machine"
    return ""


@pytest.fixture(scope="module")
def launches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Case -> its kernels, by operation, or its error."""
    if why := _why_not():
        pytest.skip(why)
    library = tmp_path_factory.mktemp("device") / "device.so"
    include, lib = TORCH / "include", TORCH / "lib"
    command = ["g++", "-shared", "-fPIC", "-std=c++20", "-o", str(library), str(HERE / "device.cpp")]
    command += [
        f"-I{include}",
        f"-I{include / 'torch/csrc/api/include'}",
        f"-L{lib}",
        f"-Wl,-rpath,{lib}",
        "-lc10",
        "-ltorch_cpu",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    environment = {**os.environ, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fake_cuda.steps"],
        cwd=HERE.parents[1],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,  # 25 s of a core of its own
    )
    assert done.returncode == 0, done.stderr[-2000:]
    records = [json.loads(line) for line in done.stdout.split("\n") if line.startswith("{")]
    return {record["case"]: record for record in records}


def test_every_case_is_there(launches: dict[str, dict[str, Any]]) -> None:
    assert sorted(launches) == sorted(CASES)


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_where_and_what_they_should_be(case: str, launches: dict[str, dict[str, Any]]) -> None:
    assert "error" not in launches[case], launches[case]["error"]
    has_flash = any("varlen" in name for name in launches[case]["launches"])
    assert has_flash == ("fp32" not in case and "gemma2" not in case)  # soft caps are not for flash attention


@pytest.mark.parametrize(
    ("case", "most"),
    [("SmolLM2-135M, step", 2000), ("SmolLM2-135M, encoding", 650), ("SmolLM2-135M, step, fp32", 5200)],
)
def test_few_kernels_are_started(case: str, most: int, launches: dict[str, dict[str, Any]]) -> None:
    """180 texts of 22 lengths. A kernel takes some five microseconds to start, whatever it does: 2,000 are 10 ms, about
    what a large GPU computes for. With kernels by segment and mask, as it once was, a step had nearly 20,000."""
    counts = launches[case]["launches"]
    assert sum(counts.values()) <= most, sorted(counts.items(), key=lambda item: -item[1])
