"""A worker process: loads one variant and performs what it is asked, one JSON line at a time (see `protocol`).

Time is taken here, around the tool's own call, from texts to the optimizer's last write (or to the embeddings), so
tokenizing counts and the pipe does not.
"""

import json
import os
import resource
import sys
import time
from typing import Protocol, TextIO

import numpy as np

from benchmarks.protocol import (
    Batch,
    Message,
    WorkerSpec,
    peak_bytes,
    read_batches,
    read_sentences,
    resident_bytes,
)
from benchmarks.variants import VARIANTS, Tool


class Subject(Protocol):
    """One tool, loaded."""

    def step(self, batch: Batch) -> tuple[float, int]:
        """Train one step; returns its loss and the real tokens it computed."""

    def encode(self, texts: list[str]) -> np.ndarray:
        """Embed texts; returns (K, D) float32."""


def main() -> None:
    """Load, say so, and answer until told to quit."""
    started = time.perf_counter()
    spec = WorkerSpec.from_json(sys.argv[1])
    # Whatever libraries print must not come between the answers: file descriptor 1 becomes stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if spec.memory_limit_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (spec.memory_limit_bytes, spec.memory_limit_bytes))
    try:
        # As embedsmith's command line does for itself, and, in fairness, the allocator's part for the others too.
        if VARIANTS[spec.variant].tool is Tool.EMBEDSMITH:
            from embedsmith.support.processor import share_processor

            share_processor()
        if spec.keep_freed_memory:
            from embedsmith.support.allocator import keep_freed_memory

            keep_freed_memory()
        subject = load_subject(spec)
        _say(answers, {"ready": True, "load_s": time.perf_counter() - started})
        _serve(subject, spec=spec, answers=answers)
    except (MemoryError, RuntimeError) as error:
        _say(answers, {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"})
        raise


def load_subject(spec: WorkerSpec) -> Subject:
    """The tool that `spec.variant` names; each imports its own libraries only."""
    variant = VARIANTS[spec.variant]
    if variant.tool is Tool.EMBEDSMITH:
        from benchmarks.workers.embedsmith_worker import EmbedsmithSubject

        return EmbedsmithSubject(spec, variant=variant)
    if variant.tool is Tool.SENTENCE_TRANSFORMERS:
        from benchmarks.workers.sentence_transformers_worker import SentenceTransformersSubject

        return SentenceTransformersSubject(spec, chat_template=variant.chat_template)
    if variant.tool is Tool.PUBLISHED:
        from benchmarks.workers.published_worker import PublishedSubject

        return PublishedSubject(spec)
    from benchmarks.workers.bare_worker import BareSubject

    return BareSubject(spec)


def _serve(subject: Subject, *, spec: WorkerSpec, answers: TextIO) -> None:
    batches = read_batches(spec.triplets) if spec.triplets else []
    sentences = read_sentences(spec.sentences) if spec.sentences else {}
    for line in sys.stdin:
        request = json.loads(line)
        if "step" in request:
            batch = batches[request["step"]]
            started = time.perf_counter()
            loss, num_tokens = subject.step(batch)
            seconds = time.perf_counter() - started
            _say(answers, {"seconds": seconds, "tokens": num_tokens, "loss": loss, "peak_bytes": peak_bytes()})
        elif "steps" in request:
            seconds = []
            for index in range(*request["steps"]):
                started = time.perf_counter()
                subject.step(batches[index])
                seconds.append(time.perf_counter() - started)
            _say(answers, {"each_s": seconds, "resident_bytes": resident_bytes()})
        elif "encode" in request:
            texts, repeat = sentences[request["encode"]], request.get("repeat", 1)
            started = time.perf_counter()
            for _ in range(repeat):
                vectors = subject.encode(texts)
            seconds = (time.perf_counter() - started) / repeat
            if request.get("save"):
                assert spec.embeddings is not None
                np.save(spec.embeddings, vectors, allow_pickle=False)
            _say(answers, {"seconds": seconds, "peak_bytes": peak_bytes()})
        else:
            assert request == {"quit": True}, f"unknown request {request}"
            break
    _say(answers, {"peak_bytes": peak_bytes()})


def _say(answers: TextIO, message: Message) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
