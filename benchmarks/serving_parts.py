"""What answering a request is made of: parsing, tokenizing, embedding and writing, each as the server calls it.

python -m benchmarks.serving_parts [--model smollm2-135m] [--precision bf16]     prints a Markdown table

Medians of calls one after the other, on real sentences. What a client waits for besides is HTTP and the way from thread
to thread; `benchmarks.serving` measures all of it.
"""

# ruff: noqa: E402 (OpenMP reads its environment when torch loads it)
from embedsmith.support.processor import share_processor

share_processor()

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

from benchmarks.tables import table
from embedsmith.data.pairs import load_pairs
from embedsmith.data.sample import SAMPLE
from embedsmith.model.embedder import Embedder
from embedsmith.serving.answers import answer_rows, to_base64
from embedsmith.serving.requests import EmbeddingsRequest, parse_body
from embedsmith.serving.served_model import serve_model
from embedsmith.serving.service import Embedded
from embedsmith.support.allocator import keep_freed_memory

NUM_TEXTS = (1, 16, 64)
PARTS = ("parse", "tokenize", "embed", "write floats", "write base64")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_parts", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m", help="a built-in name, a folder, or a finished run")
    parser.add_argument("--precision", default="auto", help="auto, bf16 or fp32")
    parser.add_argument("--times", type=int, default=30, help="calls of each part")
    options = parser.parse_args()
    keep_freed_memory()
    embedder = Embedder.load(options.model, precision=options.precision)
    texts = list(dict.fromkeys(load_pairs(SAMPLE).sentence1))
    print(parts_table({number: time_parts(embedder, texts[:number], times=options.times) for number in NUM_TEXTS}))


def time_parts(embedder: Embedder, texts: Sequence[str], *, times: int) -> dict[str, float]:
    """Median seconds of each part of a request for these texts."""
    model = serve_model(embedder, name="m")
    body = json.dumps({"model": "m", "input": texts}).encode()
    question = parse_body(EmbeddingsRequest, body).question()
    tokens = model.tokenize(question)
    items = [(tokens, place) for place in range(len(texts))]
    rows = model.embed(items)
    embedded = Embedded(rows, sum(tokens.lengths), 0)
    calls: dict[str, Callable[[], object]] = {
        "parse": lambda: parse_body(EmbeddingsRequest, body),
        "tokenize": lambda: model.tokenize(question),
        "embed": lambda: model.embed(items),
        "write floats": lambda: answer_rows(embedded, row=lambda index, row: {"index": index, "embedding": row}),
        "write base64": lambda: answer_rows(
            embedded, row=lambda index, row: {"index": index, "embedding": to_base64(row)}
        ),
    }
    return {name: _median(call, times=times) for name, call in calls.items()}


def _median(call: Callable[[], object], *, times: int) -> float:
    call()
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def parts_table(measured: dict[int, dict[str, float]]) -> str:
    """A line for each number of texts; shares are of an answer in floats."""
    header = ["texts of a request", *(f"{name}, ms" for name in PARTS), "all but embed, of an answer in floats"]
    lines = []
    for number, parts in measured.items():
        beside = parts["parse"] + parts["tokenize"] + parts["write floats"]
        share = beside / (beside + parts["embed"])
        lines.append([f"{number}", *(f"{1000 * parts[name]:.3f}" for name in PARTS), f"{100 * share:.1f} %"])
    return table(header, lines)


if __name__ == "__main__":
    main()
