"""What the parent and its worker processes say to each other: JSON lines.

    parent: starts `python -m benchmarks.worker SPEC` (or a peer's own python and script), SPEC a WorkerSpec as JSON
    worker: {"ready": true, "load_s": 3.1}
    parent: {"step": 4}                       worker: {"seconds": 1.5, "tokens": 1240, "loss": 2.1, "peak_bytes": ...}
    parent: {"steps": [50, 100]}              worker: {"each_s": [1.5, ...], "resident_bytes": 1700000000}
    parent: {"encode": "sts", "repeat": 1}    worker: {"seconds": 4.8, "peak_bytes": ...}
    parent: {"quit": true}                    worker: {"peak_bytes": 1800000000}, and exits

Step i takes the i-th entry of the file `spec.triplets`, a JSON list of {"anchors": [...], "positives": [...],
"negatives": [...]}: forward, backward, clipping, optimizer. `tokens` are the real ones (no padding) the worker
computed. `spec.sentences` is a JSON object name -> texts; "seconds" of an encoding is the mean over its repeats.
{"save": true} besides keeps the embeddings as `spec.embeddings` (.npy). A worker that cannot go on says
{"error": "why"} and exits. Chatter of libraries goes to stderr. Standard library only, so that any tool can use it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Message = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """All a worker needs to know.

    Attributes:
        variant: key in `variants.VARIANTS`, or a peer's name.
        model: folder with config.json, model.safetensors and tokenizer files.
        triplets: file with the texts of each step, or None where only sentences are encoded.
        batch_size: triplets of the largest step.
        sentences: file with named lists of texts to encode, or None.
        embeddings: file for {"save": true}.
        precision: of the frozen weights, bf16 or fp32.
        max_length: most tokens of a text, end token included.
        max_tokens: embedsmith's bound on one forward; None: its default.
        keep_freed_memory: whether to call `embedsmith.support.allocator.keep_freed_memory` first.
        memory_limit_bytes: more than this fails inside the worker instead of endangering the others.
        seed: of adapter and dropout.
        device: a torch device.
        lora_r, lora_alpha, lora_dropout, target_modules: the adapter.
        learning_rate, weight_decay, max_grad_norm, temperature: the step.
    """

    variant: str
    model: str
    batch_size: int
    triplets: str | None = None
    sentences: str | None = None
    embeddings: str | None = None
    precision: str = "bf16"
    max_length: int = 150
    max_tokens: int | None = None
    keep_freed_memory: bool = True
    memory_limit_bytes: int | None = None
    seed: int = 7
    device: str = "cpu"
    lora_r: int = 8
    lora_alpha: int = 32
    lora_dropout: float = 0.1
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    learning_rate: float = 5e-5
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    temperature: float = 0.05

    def to_json(self) -> str:
        """One line, as the worker's only argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "WorkerSpec":
        """The inverse of `to_json`."""
        values = json.loads(text)
        return cls(**{**values, "target_modules": tuple(values["target_modules"])})


@dataclass(frozen=True)
class Batch:
    """Texts of one step, three lists of one length."""

    anchors: list[str]
    positives: list[str]
    negatives: list[str]

    @property
    def texts(self) -> list[str]:
        """All of them."""
        return [*self.anchors, *self.positives, *self.negatives]


def read_batches(path: str | Path) -> list[Batch]:
    """The steps of `spec.triplets`."""
    return [Batch(**entry) for entry in json.loads(Path(path).read_text(encoding="utf-8"))]


def write_batches(path: Path, batches: list[Batch]) -> None:
    """The inverse of `read_batches`."""
    path.write_text(json.dumps([asdict(batch) for batch in batches]), encoding="utf-8")


def read_sentences(path: str | Path) -> dict[str, list[str]]:
    """The lists of `spec.sentences`."""
    return {name: list(texts) for name, texts in json.loads(Path(path).read_text(encoding="utf-8")).items()}


def write_sentences(path: Path, lists: dict[str, list[str]]) -> None:
    """The inverse of `read_sentences`."""
    path.write_text(json.dumps(lists), encoding="utf-8")


def peak_bytes() -> int:
    """Most memory this process ever had resident."""
    return _status_bytes("VmHWM")


def resident_bytes() -> int:
    """Memory this process has resident now."""
    return _status_bytes("VmRSS")


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}: memory can be measured on Linux only")
