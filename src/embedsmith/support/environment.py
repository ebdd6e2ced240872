"""Where a run happened: versions, system, the memory it took."""

from importlib.metadata import version
from platform import platform, python_version

import accelerate
import peft
import psutil
import torch
import transformers


def describe_environment(device: torch.device) -> dict[str, str]:
    """Software and machine, in words."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"threads: {torch.get_num_threads()}"
    return {
        "software": f"embedsmith {version('embedsmith')}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, peft {peft.__version__}, accelerate {accelerate.__version__}",
        "system": f"{platform()}, Python {python_version()}, {where}",
    }


def peak_bytes(device: torch.device) -> int:
    """Most memory at one time: of tensors on a GPU, else of the whole process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    memory = psutil.Process().memory_info()
    # Windows alone has the peak here.
    return int(getattr(memory, "peak_wset", 0)) or _peak_resident()


def _peak_resident() -> int:
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
