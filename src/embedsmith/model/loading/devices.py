"""Where a model runs and in which number format: what the user asked for, or what the machine has."""

import logging
from functools import cache
from pathlib import Path
from shutil import which
from textwrap import shorten

import torch

from embedsmith.settings.choices import Precision
from embedsmith.support.errors import ConfigError

log = logging.getLogger(__name__)


def choose_device(device: str | None = None) -> torch.device:
    """The device asked for, else CUDA where there is one, else the CPU.

    Raises:
        ConfigError: torch knows no such device, or this machine has none.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        _say_unused_gpu()
        return torch.device("cpu")
    try:
        chosen = torch.device(device)
        # What cannot be had shows when something is put there and read back, in as many ways as there are kinds.
        torch.ones(1, device=chosen).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"device is {device!r}, which cannot be had here: {shorten(str(error), 100)}\n"
            f"This machine has: {', '.join(_available())}. Without a device the best of them is taken."
        ) from error
    return chosen


@cache
def _say_unused_gpu() -> None:
    """A torch made for CUDA finds none where NVIDIA's driver is: mostly the driver is too old for it."""
    if torch.version.cuda and (which("nvidia-smi") or Path("/dev/nvidiactl").exists()):
        log.warning(
            "NVIDIA's driver is here, but torch %s finds no GPU that it can use: all is computed on the CPU. Look at "
            "nvidia-smi: is there a GPU, and is the driver new enough for CUDA %s? --device cpu says that it is meant.",
            torch.__version__,
            torch.version.cuda,
        )


def _available() -> list[str]:
    best = torch.accelerator.current_accelerator(check_available=True)
    count = torch.accelerator.device_count() if best else 0
    return ["cpu", *(f"{best.type}:{index}" for index in range(count) if best)]


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The number format that `precision` means on `device`."""
    if precision is Precision.AUTO:
        # A GPU that only emulates it (T4, V100) is slow in it, and flash attention refuses it.
        is_fast = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else _cpu_multiplies_bfloat16()
        )
        return torch.bfloat16 if is_fast else torch.float32
    return torch.bfloat16 if precision is Precision.BF16 else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has the instructions, and torch's products may use them ($ONEDNN_MAX_CPU_ISA forbids)."""
    has_instructions = bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    return has_instructions and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def choose_precision(precision: Precision | str) -> Precision:
    """The precision of that name.

    Raises:
        ConfigError: there is none.
    """
    if precision not in list(Precision):
        raise ConfigError(f"precision is {precision!r}; it must be one of {', '.join(Precision)}.")
    return Precision(precision)
