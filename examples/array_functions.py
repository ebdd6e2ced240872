"""NumPy's and torch's help -> functions of both that do the same, beside near ones that do not.

Both come with embedsmith, so the set can be made wherever it runs. Functions of one name are taken for the same; the
first sentence of a function's help is its text. Cost: seconds.
"""

import inspect
from types import ModuleType

import numpy as np
import torch

from examples.documentation import Entry, read_entry

NUMPY = (np, np.linalg)
TORCH = (torch, torch.linalg)
"""Without their parts for Fourier transforms, of which each is near all others."""


def read_functions(*modules: ModuleType) -> list[Entry]:
    """What the first sentence of each public function's help says; those with formulas in it are left out."""
    found = []
    for module in modules:
        for name in (name for name in dir(module) if not name.startswith("_")):
            function = getattr(module, name)
            if callable(function) and not inspect.isclass(function):
                entry = read_entry(f"{module.__name__}.{name}", _without_signature(inspect.getdoc(function) or ""))
                if entry and "\\" not in entry.query:
                    found.append(entry)
    return found


def _without_signature(text: str) -> str:
    """Help of functions that are not written in Python begins with how they are called."""
    first, _, rest = text.partition("\n\n")
    return rest if "(" in first.split(" ")[0] else text
