"""The losses of scored pairs, which rank: maths on embeddings, no model here."""

import math

import torch
from torch.nn.functional import pad

from embedsmith.training.loss import check_shapes, check_temperature
from embedsmith.training.row_blocks import by_rows

ANGLE_TEMPERATURE = 1.0
"""Of AnglE's angle objective; the authors' scripts train with `angle_tau` 1.0."""


def cosent(first: torch.Tensor, second: torch.Tensor, scores: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """CoSENT: log( 1 + sum over pairs i, j with score_i > score_j of exp((cos_j - cos_i) / t) ).

    Only the order of the scores counts, so they may have any range.

    Args:
        first: unit-length embeddings, (B, D), float32.
        second: (B, D), row i is compared with row i of `first`.
        scores: gold similarities, (B,).
        temperature: t > 0; its inverse is CoSENT's lambda, 20.

    Returns:
        Scalar loss; 0 when all scores are equal.

    Raises:
        ValueError: shapes differ, or temperature is not positive.

    Reference: Su 2022, "CoSENT (1)" (kexue.fm/archives/8847); Huang et al. 2024 (doi 10.1109/TASLP.2024.3402087).
    """
    check_shapes(first, second)
    check_temperature(temperature)
    return _ranking_loss((first * second).sum(dim=1) / temperature, scores)


def angle(first: torch.Tensor, second: torch.Tensor, scores: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """AnglE for scored pairs: `cosent` plus the same ranking loss on the angle between complex vectors.

    An embedding's first half is taken as real parts, its second half as imaginary ones. z_k conj(w_k) of two unit
    vectors, summed over k with real and imaginary parts together, gives what is ranked, by its absolute value, at
    temperature `ANGLE_TEMPERATURE`. The weights are the published 1 and 1.

    The third term of the paper, in-batch negatives, needs pairs that are known to be positive. Graded pairs do not say
    which are, so it is left out.

    Args, Returns, Raises: as `cosent`.

    Reference: Li & Li 2023 (arXiv 2309.12871), with the signs and the constants of the authors' code (SeanLee97/AnglE:
        `angle_emb/loss.py`; `examples/NLI/train_nli.py` has w1 = w2 = w3 = 1, cosine_tau 20, angle_tau 1).
    """
    cosine_part = cosent(first, second, scores, temperature=temperature)
    return cosine_part + _ranking_loss(_angle_similarity(first, second) / ANGLE_TEMPERATURE, scores)


def _angle_similarity(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """|sum of real and imaginary parts of z conj(w)|, (B,), for unit-length z = a + bi and w = c + di."""
    is_odd = first.shape[1] % 2
    a, b = pad(first, (0, is_odd)).chunk(2, dim=1)
    c, d = pad(second, (0, is_odd)).chunk(2, dim=1)
    return (a * c + b * d + b * c - a * d).sum(dim=1).abs()


def _ranking_loss(values: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """log( 1 + sum over i, j with score_i > score_j of exp(value_j - value_i) )."""
    num_rows = len(values)

    def log_sum_of(block: slice) -> torch.Tensor:
        differences = values[None, :] - values[block, None]  # (b, B): at i, j value_j - value_i
        is_higher = scores[block, None] > scores[None, :]
        terms = differences.masked_fill(~is_higher, -math.inf).flatten()
        # Every block has its share of the 1: where no score is higher, the logarithm of nothing has no gradient.
        share = terms.new_full((1,), math.log((block.stop - block.start) / num_rows))
        return torch.cat([share, terms]).logsumexp(dim=0)

    return by_rows(log_sum_of, num_rows=num_rows, num_columns=num_rows).logsumexp(dim=0)
