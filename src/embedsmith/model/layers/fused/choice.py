"""Which kernels run on a device."""

import logging
from collections.abc import Sequence

import torch

from embedsmith.model.layers.fused.build import KernelBuildError, load_library
from embedsmith.model.layers.fused.c_kernels import CKernels
from embedsmith.model.layers.fused.kernels import Kernels
from embedsmith.model.layers.fused.torch_kernels import TorchKernels
from embedsmith.support.processor import is_shared

log = logging.getLogger(__name__)


def choose_kernels(device: torch.device, *, widths: Sequence[int]) -> Kernels:
    """The fastest kernels that work here: C on a CPU with a compiler at hand, else torch operations.

    Args:
        device: the model's.
        widths: of rows and heads; the C kernels take multiples of 16.
    """
    if device.type != "cpu":
        return TorchKernels(is_compiled=device.type == "cuda")
    try:
        if any(width % 16 for width in widths):
            raise KernelBuildError(f"they need widths that are multiples of 16, not {', '.join(map(str, widths))}")
        kernels = CKernels(load_library())
    except KernelBuildError as error:
        log.warning("No C kernels (%s); torch operations take their place, which is slower.", error)
        return TorchKernels()
    if is_shared():
        kernels.bind_threads()
    return kernels
