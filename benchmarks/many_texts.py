"""Memory of a process while it encodes very many texts: nothing may grow with their number but the vectors.

python -m benchmarks.many_texts --triplets 'nli/*_triplets.tsv.gz' [--num-texts 1000000]     prints a Markdown table

The texts are those of the triplets and, until there are enough, pieces of four to eight words of them, all distinct, in
a random order. What is shown is the process's resident memory beside the vectors that it has made so far.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np
import psutil

from benchmarks.tables import table
from embedsmith.data.triplets import load_triplets
from embedsmith.model.embedder import Embedder

_SHORTEST, _LONGEST = 4, 8  # words of a piece
_SHOWN = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def many_texts(sources: Sequence[str], *, num_texts: int, seed: int = 7) -> list[str]:
    """Distinct texts of triplets, and pieces of them."""
    rows = load_triplets(sources).texts_by_side(with_negatives=True)
    whole = sorted({text for texts in rows.values() for text in texts})
    rng = np.random.default_rng(seed)
    found = dict.fromkeys(whole[:num_texts])
    long = [words for text in whole if len(words := text.split()) > _LONGEST]
    while len(found) < num_texts:
        words, count = long[rng.integers(len(long))], int(rng.integers(_SHORTEST, _LONGEST + 1))
        first = int(rng.integers(len(words) - count + 1))
        found[" ".join(words[first : first + count])] = None
    texts = list(found)
    return [texts[place] for place in rng.permutation(len(texts))]


def measure(texts: Sequence[str], *, model: str) -> list[tuple[int, float, float]]:
    """(texts done, seconds, bytes beside their vectors), at some points of one call of `encode`."""
    embedder, process = Embedder.load(model), psutil.Process()
    vector_bytes = 4 * embedder.dim
    points = [round(share * len(texts)) for share in _SHOWN]
    found: list[tuple[int, float, float]] = []
    num_done, started = 0, time.perf_counter()

    def count(num_texts: int) -> None:
        nonlocal num_done
        num_done += num_texts
        if len(found) < len(points) and num_done >= points[len(found)]:
            beside = process.memory_info().rss - num_done * vector_bytes
            found.append((num_done, time.perf_counter() - started, beside))

    embedder.encode(texts, on_progress=count)
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triplets", nargs="+", required=True, help="files of triplets")
    parser.add_argument("--num-texts", type=int, default=1_000_000)
    parser.add_argument("--model", default="smollm2-135m")
    arguments = parser.parse_args()
    texts = many_texts(arguments.triplets, num_texts=arguments.num_texts)
    found = measure(texts, model=arguments.model)
    rows = [[f"{done:,}", f"{seconds:,.0f}", f"{beside / 1e9:.2f}"] for done, seconds, beside in found]
    print(table(["texts", "seconds", "GB beside the vectors"], rows))


if __name__ == "__main__":
    main()
