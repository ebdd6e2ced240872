"""FlagEmbedding as a benchmark worker: one training step of its decoder-only embedder per request.

    .venv-peer/bin/python benchmarks/peers/flagembedding.py '{"variant": "flagembedding", "model": ..., ...}'

Input: a spec as JSON (see `Spec`), then one JSON request a line: {"step": 3}, {"quit": true}. Output: one JSON line a
request; what libraries print goes to stderr. Runs in an environment of its own (see README.md beside this file) and
imports nothing of this repository.

What runs is FlagEmbedding's: `DecoderOnlyEmbedderRunner` builds tokenizer, LoRA model, dataset, collator and trainer
from its own arguments; the dataset's items, the collator, the model's two forwards (anchors; positives and negatives),
its loss and `training_step` are used as they are. Only the loop around `training_step` is here, because a step must
wait until it is asked for; it does what the Trainer's loop does between two batches. Seconds go from reading the
texts of a step to the optimizer's and the schedule's last write.
"""

import ctypes
import json
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any, TextIO

Message = dict[str, Any]
Triplet = tuple[str, str, str]

SCHEDULE_STEPS = 1000
# glibc's mallopt parameters, from malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What to load and how to train; other keys of the JSON are ignored.

    Attributes:
        variant: name under which the parent files the results.
        model: folder with config.json, model.safetensors and tokenizer files.
        triplets: JSON file, a list of steps; a step is a list of [anchor, positive, negative] or an object with the
            lists "anchors", "positives" and "negatives".
        batch_size: triplets of the largest step.
        precision: bf16 (frozen weights and autocast) or fp32.
        max_length: most tokens of a text, end token included.
        seed: of adapter and dropout.
        lora_r, lora_alpha, lora_dropout, target_modules: the adapter.
        learning_rate, weight_decay, max_grad_norm, temperature: the step.
        keep_freed_memory: whether glibc is told to keep freed memory instead of returning it to the system.
        memory_limit_bytes: more than this fails in this process, or None.
    """

    variant: str
    model: str
    triplets: str
    batch_size: int
    precision: str = "bf16"
    max_length: int = 150
    seed: int = 7
    lora_r: int = 8
    lora_alpha: float = 32
    lora_dropout: float = 0.1
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    learning_rate: float = 5e-5
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    temperature: float = 0.05
    keep_freed_memory: bool = False
    memory_limit_bytes: int | None = None

    @classmethod
    def from_json(cls, text: str) -> "Spec":
        """Read the worker's argument.

        Raises:
            ValueError: the precision is neither bf16 nor fp32.
        """
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in json.loads(text).items() if name in known}
        spec = cls(**values)
        if spec.precision not in ("bf16", "fp32"):
            raise ValueError(f"precision must be bf16 or fp32, not {spec.precision!r}")
        return spec


class FlagEmbeddingSubject:
    """FlagEmbedding's runner for decoder-only embedders, ready to take steps in any order."""

    def __init__(self, spec: Spec) -> None:
        # Imported here so that what the libraries print while importing finds stdout redirected.
        from FlagEmbedding.finetune.embedder.decoder_only.base import (
            DecoderOnlyEmbedderDataArguments,
            DecoderOnlyEmbedderModelArguments,
            DecoderOnlyEmbedderRunner,
            DecoderOnlyEmbedderTrainingArguments,
        )

        steps = read_steps(spec.triplets)
        ends = list(accumulate(len(step) for step in steps))
        self.rows = [range(end - len(step), end) for step, end in zip(steps, ends, strict=True)]
        self.folder = tempfile.TemporaryDirectory()
        folder = Path(self.folder.name)
        runner = DecoderOnlyEmbedderRunner(
            DecoderOnlyEmbedderModelArguments(
                model_name_or_path=spec.model,
                config_name=_write_config(spec, folder / "config"),
                tokenizer_name=spec.model,
                use_lora=True,
                lora_rank=spec.lora_r,
                lora_alpha=spec.lora_alpha,
                lora_dropout=spec.lora_dropout,
                target_modules=list(spec.target_modules),
            ),
            DecoderOnlyEmbedderDataArguments(
                train_data=[_write_dataset(steps, folder / "triplets.jsonl")],
                cache_path=str(folder / "cache"),
                train_group_size=2,  # a positive and a hard negative for each anchor
                query_max_len=spec.max_length,
                passage_max_len=spec.max_length,
            ),
            DecoderOnlyEmbedderTrainingArguments(
                output_dir=str(folder / "output"),
                per_device_train_batch_size=spec.batch_size,
                max_steps=SCHEDULE_STEPS,
                learning_rate=spec.learning_rate,
                weight_decay=spec.weight_decay,
                max_grad_norm=spec.max_grad_norm,
                lr_scheduler_type="cosine",
                seed=spec.seed,
                temperature=spec.temperature,
                sentence_pooling_method="last_token",
                normalize_embeddings=True,
                bf16=spec.precision == "bf16",
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
            ),
        )
        ids = runner.tokenizer("a text")["input_ids"]
        if ids[-1] != runner.tokenizer.eos_token_id:
            raise RuntimeError("the tokenizer does not append the end token, so the tokens would not be comparable")
        self.dataset = runner.train_dataset
        self.trainer = runner.trainer
        self.trainer.create_optimizer_and_scheduler(num_training_steps=SCHEDULE_STEPS)
        self.trainer.current_gradient_accumulation_steps = 1
        self.model, self.trainer.optimizer = self.trainer.accelerator.prepare(runner.model, self.trainer.optimizer)

    def step(self, index: int) -> tuple[float, int]:
        """Read, collate, `training_step`, clip, optimizer, schedule; returns the loss and the real tokens."""
        trainer = self.trainer
        inputs = trainer.data_collator([self.dataset[row] for row in self.rows[index]])
        num_tokens = sum(int(inputs[name]["attention_mask"].sum()) for name in ("queries", "passages"))
        loss = trainer.training_step(self.model, inputs)
        trainer.accelerator.clip_grad_norm_(self.model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        self.model.zero_grad()
        return loss.item(), num_tokens


def main() -> None:
    """Load, say so, and answer until told to quit."""
    started = time.perf_counter()
    spec = Spec.from_json(sys.argv[1])
    # Whatever libraries print must not come between the answers: file descriptor 1 becomes stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if spec.memory_limit_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (spec.memory_limit_bytes, spec.memory_limit_bytes))
    if spec.keep_freed_memory:
        keep_freed_memory()
    try:
        subject = FlagEmbeddingSubject(spec)
        _say(answers, {"ready": True, "load_s": time.perf_counter() - started})
        _serve(subject, answers=answers)
    except (MemoryError, RuntimeError) as error:
        _say(answers, {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"})
        raise


def read_steps(path: str | Path) -> list[list[Triplet]]:
    """The triplets of each step, from either form that `Spec.triplets` may have."""
    steps = json.loads(Path(path).read_text(encoding="utf-8"))
    return [
        list(zip(step["anchors"], step["positives"], step["negatives"], strict=True))
        if isinstance(step, dict)
        else [(anchor, positive, negative) for anchor, positive, negative in step]
        for step in steps
    ]


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks: without it every step maps and faults its memory again. Linux with glibc only."""
    libc = ctypes.CDLL("libc.so.6")
    for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 256 * 2**20)):
        if not libc.mallopt(parameter, value):
            raise RuntimeError(f"mallopt({parameter}, {value}) was refused")


def peak_bytes() -> int:
    """Most memory this process ever had resident (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM: peak memory can be measured on Linux only")


def _write_config(spec: Spec, folder: Path) -> str:
    """A copy of the model's config with the wanted dtype: the only way FlagEmbedding offers to choose it."""
    config = json.loads((Path(spec.model) / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    config["dtype"] = "bfloat16" if spec.precision == "bf16" else "float32"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def _write_dataset(steps: list[list[Triplet]], path: Path) -> str:
    """All triplets in FlagEmbedding's own format, in order."""
    rows = ({"query": a, "pos": [p], "neg": [n]} for step in steps for a, p, n in step)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _serve(subject: FlagEmbeddingSubject, *, answers: TextIO) -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if request == {"quit": True}:
            break
        started = time.perf_counter()
        loss, num_tokens = subject.step(request["step"])
        seconds = time.perf_counter() - started
        _say(answers, {"seconds": seconds, "tokens": num_tokens, "loss": loss, "peak_bytes": peak_bytes()})
    _say(answers, {"peak_bytes": peak_bytes()})


def _say(answers: TextIO, message: Message) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
