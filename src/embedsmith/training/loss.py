"""The losses: maths on embeddings, no model here. `objective.py` puts them together for a run."""

import math

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, pad

ANGLE_TEMPERATURE = 1.0
"""Of AnglE's angle objective; the authors' scripts train with `angle_tau` 1.0."""


def info_nce(
    anchor: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor | None,
    *,
    temperature: float,
    negative_rows: torch.Tensor | None = None,
    hard_negative_weight: float = 1.0,
    excluded: torch.Tensor | None = None,
) -> torch.Tensor:
    """InfoNCE with in-batch and hard negatives: mean over anchors of -log softmax at the positive.

    Every positive and every hard negative of the batch is a candidate for every anchor; the right one for anchor i is
    positive i:  -log( exp(cos(a_i, p_i) / t) / ( sum_j exp(cos(a_i, p_j) / t) + sum_k w_ik exp(cos(a_i, n_k) / t) ) ),
    where w_ik is `hard_negative_weight` if negative k is one of row i's own, else 1.

    Args:
        anchor: unit-length embeddings, (B, D), float32.
        positive: (B, D), row i belongs to anchor i.
        negative: of all rows, (M, D), or None when the data has none.
        negative_rows: (M,) int64, the row that each negative belongs to; None: M is B, and negative i belongs to row i.
        temperature: divides cosine similarity; > 0, usually 0.02 to 0.1.
        hard_negative_weight: alpha >= 0; 0 takes each anchor's own negatives out.
        excluded: (B, B or B + M) bool, True where a candidate is left out; never a positive. See `guided_exclusion`.

    Returns:
        Scalar loss in nats.

    Raises:
        ValueError: shapes differ, temperature is not positive, or the weight is negative.

    Reference: van den Oord et al. 2018 (arXiv 1807.03748); SimCSE, Gao et al. 2021 (arXiv 2104.08821), equation 5, and
        alpha of its ablation on hard negatives (the published `--hard_negative_weight` is log alpha).
    """
    _check_shapes(anchor, positive)
    if negative is not None:
        _check_negatives(anchor, negative, negative_rows)
    _check_temperature(temperature)
    if hard_negative_weight < 0:
        raise ValueError(f"hard_negative_weight must not be negative, it is {hard_negative_weight}")
    candidates = positive if negative is None else torch.cat([positive, negative])  # (B + M, D)
    logits = anchor @ candidates.T / temperature  # (B, B + M)
    rows = torch.arange(len(anchor), device=anchor.device)
    if negative is not None and hard_negative_weight != 1:
        own = rows[:, None] == (rows if negative_rows is None else negative_rows)  # (B, M)
        log_weights = torch.zeros_like(logits)
        log_weights[:, len(anchor) :][own] = math.log(hard_negative_weight) if hard_negative_weight else -math.inf
        logits = logits + log_weights
    if excluded is not None:
        logits = logits.masked_fill(excluded, -math.inf)
    return cross_entropy(logits, rows)


def guided_exclusion(similarities: torch.Tensor, *, margin: float) -> torch.Tensor:
    """Candidates that a guide takes for unlabelled positives: closer to the anchor than its positive, less a margin.

    Args:
        similarities: the guide's cosines of anchors and candidates, (B, B or B + M); candidate i is positive i.
        margin: excluded is what lies above the positive's similarity minus this.

    Returns:
        (B, B or B + M) bool; never True at a positive.

    Reference: GISTEmbed, Solatorio 2024 (arXiv 2402.16829). Its loss has anchor-anchor and positive-positive candidates
        besides; here the candidates stay those of `info_nce`, and the guide only takes some of them out.
    """
    excluded = similarities > similarities.diagonal()[:, None] - margin
    return excluded.fill_diagonal_(False)


def distillation(
    anchor: torch.Tensor, candidates: torch.Tensor, teacher_similarities: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """Mean over anchors of KL( softmax(teacher's similarities / t) || softmax(student's similarities / t) ).

    Args:
        anchor: the student's unit-length embeddings, (B, D), float32.
        candidates: (B or B + M, D).
        teacher_similarities: the teacher's cosines, (B, B or B + M).
        temperature: t > 0 of both.

    Returns:
        Scalar loss in nats; not multiplied by t^2, so that its gradient is of the size of InfoNCE's.

    Raises:
        ValueError: temperature is not positive.

    Reference: Hinton et al. 2015 (arXiv 1503.02531); over a batch's candidates, Lin et al. 2020 (arXiv 2010.11386).
    """
    _check_temperature(temperature)
    student = log_softmax(anchor @ candidates.T / temperature, dim=1)
    teacher = log_softmax(teacher_similarities / temperature, dim=1)
    return kl_div(student, teacher, reduction="batchmean", log_target=True)


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
    _check_shapes(first, second)
    _check_temperature(temperature)
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
    differences = values[None, :] - values[:, None]  # (B, B): at i, j value_j - value_i
    is_higher = scores[:, None] > scores[None, :]
    terms = differences.masked_fill(~is_higher, -math.inf).flatten()
    return torch.cat([terms.new_zeros(1), terms]).logsumexp(dim=0)


def _check_shapes(first: torch.Tensor, second: torch.Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(f"both must have one shape, not {tuple(first.shape)} and {tuple(second.shape)}")


def _check_negatives(anchor: torch.Tensor, negative: torch.Tensor, negative_rows: torch.Tensor | None) -> None:
    if negative_rows is None:
        _check_shapes(anchor, negative)
    elif negative.shape != (len(negative_rows), anchor.shape[1]):
        raise ValueError(f"negatives of {len(negative_rows)} rows cannot have the shape {tuple(negative.shape)}")


def _check_temperature(temperature: float) -> None:
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, it is {temperature}")
