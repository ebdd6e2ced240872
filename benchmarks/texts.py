"""Real texts -> the batches, long texts and sentences of the measurements, the same for every variant."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from benchmarks.models import plain_tokenizer
from benchmarks.protocol import Batch
from embedsmith.data.pairs import load_pairs
from embedsmith.data.sample import SAMPLE
from embedsmith.data.triplets import load_triplets
from embedsmith.model.tokens import TextTokenizer
from embedsmith.training.batching import contrastive_batches

SEED = 7


class TextSource:
    """Triplets and sentences, read by embedsmith's own readers.

    Args:
        triplets: files, globs or `sample`.
        sts: file of scored pairs, or `sample`.
        model: folder whose tokenizer counts.
    """

    def __init__(self, *, triplets: Sequence[str], sts: str, model: Path) -> None:
        self.table = load_triplets(triplets)
        if self.table.negatives_per_row != (1, 1):
            raise SystemExit("The benchmarks need triplets with one negative each.")
        pairs = load_pairs(sts)
        distinct = list(dict.fromkeys([*pairs.sentence1, *pairs.sentence2]))
        order = np.random.default_rng(SEED).permutation(len(distinct))
        self._sentences = [distinct[index] for index in order]
        self._original = AutoTokenizer.from_pretrained(model)
        self._plain = plain_tokenizer(model)

    def batches(self, batch_size: int, num_batches: int) -> list[Batch]:
        """Batches in which no text occurs in two triplets, as training draws them."""
        rows = contrastive_batches(self.table.text_ids, batch_size=batch_size, seed=SEED)
        triplets = [self.table.rows(indices) for indices in islice(rows, num_batches)]
        return [Batch(*t.groups()) for t in triplets]

    def long_batches(self, num_tokens: int, *, batch_size: int, num_batches: int) -> list[Batch]:
        """Batches whose every text has exactly `num_tokens` tokens, end token included."""
        rng = np.random.default_rng([SEED, num_tokens])
        return [
            Batch(*([self._text_of(num_tokens, rng=rng) for _ in range(batch_size)] for _ in range(3)))
            for _ in range(num_batches)
        ]

    def sentences(self, num_sentences: int) -> list[str]:
        """Distinct sentences of the scored pairs."""
        return self._sentences[:num_sentences]

    def count_tokens(self, texts: Sequence[str], *, max_length: int = 150) -> int:
        """Real tokens of texts as embedsmith counts them, end tokens included, equal texts every time.

        The plain tokenizer that the other tools get is checked against embedsmith's here, text by text.
        """
        ours = TextTokenizer(self._original, max_length=max_length)(texts)
        theirs = self._plain(list(texts), truncation=True, max_length=max_length)["input_ids"]
        for text, own, other in zip(texts, ours, theirs, strict=True):
            assert own.tolist() == other, f"the tokens differ for {text!r}"
        return sum(len(tokens) for tokens in ours)

    def _text_of(self, num_tokens: int, *, rng: np.random.Generator) -> str:
        """Sentences joined and cut; tried again until the cut text has that many tokens when tokenized anew."""
        for _ in range(1000):
            # Every sentence has a token or more, so that many are long enough.
            picked = rng.integers(len(self._sentences), size=num_tokens)
            joined = " ".join(self._sentences[index] for index in picked)
            offsets = self._plain(joined, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            text = joined[: offsets[num_tokens - 2][1]]
            if self.count_tokens([text], max_length=2 * num_tokens) == num_tokens:
                return text
        raise RuntimeError(f"no text of {num_tokens} tokens could be made")


def default_sources() -> tuple[list[str], str]:
    """The sample in the package, for triplets and pairs."""
    return [SAMPLE], SAMPLE
