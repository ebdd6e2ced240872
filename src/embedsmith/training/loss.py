"""The losses of triplets and pairs: maths on embeddings, no model here. `objective.py` puts them together for a run."""

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div, log_softmax

from embedsmith.settings.contrast import PLAIN, ContrastSection
from embedsmith.settings.teacher import EmbeddingDistance
from embedsmith.training.directions import WHOLE, Comparisons, compare
from embedsmith.training.row_blocks import by_rows


def info_nce(
    anchor: torch.Tensor,
    positive: torch.Tensor,
    negative: torch.Tensor | None,
    *,
    temperature: float,
    negative_rows: torch.Tensor | None = None,
    hard_negative_weight: float = 1.0,
    excluded: torch.Tensor | None = None,
    terms: ContrastSection = PLAIN,
    block: slice = WHOLE,
) -> torch.Tensor:
    """InfoNCE with in-batch and hard negatives: mean over anchors of -log softmax at the positive.

    Every positive and every hard negative of the batch is a candidate for every anchor; the right one for anchor i is
    positive i:  -log( exp(cos(a_i, p_i) / t) / ( sum_j exp(cos(a_i, p_j) / t) + sum_k w_ik exp(cos(a_i, n_k) / t) ) ),
    where w_ik is `hard_negative_weight` if negative k is one of row i's own, else 1. Further directions add their sums
    to the denominator, or are losses of their own, and the mean of them counts.

    Args:
        anchor: unit-length embeddings, (B, D), float32.
        positive: (B, D), row i belongs to anchor i.
        negative: of all rows, (M, D), or None when the data has none.
        negative_rows: (M,) int64, the row that each negative belongs to; None: M is B, and negative i belongs to row i.
        temperature: divides cosine similarity; > 0, usually 0.02 to 0.1.
        hard_negative_weight: alpha >= 0; 0 takes each anchor's own negatives out.
        excluded: (b, C) bool, True where what `compare` puts there is left out; a positive never is. See
            `guided_exclusion`.
        terms: directions, the margin of what the model itself takes for a false negative, hardness.
        block: the b rows whose mean is returned; what they are compared with are the texts of all B.

    Returns:
        Scalar loss in nats.

    Raises:
        ValueError: shapes differ, temperature is not positive, or the weight is negative.

    Reference: van den Oord et al. 2018 (arXiv 1807.03748); SimCSE, Gao et al. 2021 (arXiv 2104.08821), equation 5, and
        alpha of its ablation on hard negatives (the published `--hard_negative_weight` is log alpha). Directions:
        `directions.py`; the margin: Qwen3 Embedding, Zhang et al. 2025 (arXiv 2506.05176), m_ij; hardness:
        `_log_hardness`.
    """
    check_shapes(anchor, positive)
    if negative is not None:
        _check_negatives(anchor, negative, negative_rows)
    check_temperature(temperature)
    if hard_negative_weight < 0:
        raise ValueError(f"hard_negative_weight must not be negative, it is {hard_negative_weight}")
    found = compare(anchor, positive, negative, directions=terms.directions, negative_rows=negative_rows, block=block)
    rows = torch.arange(len(anchor), device=anchor.device)[block]  # row i's positive is in column i
    is_out = found.is_never if excluded is None else found.is_never | excluded & ~found.is_positive
    if terms.false_negative_margin is not None:
        closer = guided_exclusion(found.cosines.detach(), margin=-terms.false_negative_margin, block=block)
        is_out = is_out | closer & ~found.is_positive
    own = found.of_one_row & ~found.is_positive & ~found.is_never  # an anchor's own negatives
    if hard_negative_weight == 0:
        is_out = is_out | own
    logits = found.cosines / temperature  # (b, C)
    if hard_negative_weight not in (0, 1):
        logits = logits + torch.zeros_like(logits).masked_fill(own, math.log(hard_negative_weight))
    if terms.hardness_mode is not None:
        logits = logits + _log_hardness(found, is_out=is_out, terms=terms)
    logits = logits.masked_fill(is_out, -math.inf)
    parts = [logits] if terms.partition_mode == "joint" else logits.split(found.widths, dim=1)
    return torch.stack([cross_entropy(part, rows) for part in parts]).mean()


def _log_hardness(found: Comparisons, *, is_out: torch.Tensor, terms: ContrastSection) -> torch.Tensor:
    """Logarithm of what each negative weighs, (b, C): of the anchor's candidates, strength s times the cosine.

    Reference: penalty: LLaVE, Lan et al. 2025 (arXiv 2503.04812), equation 5, and EmbeddingGemma (arXiv 2509.20354).
        importance: Robinson et al. 2020 (arXiv 2010.04592) without debiasing (tau+ = 0), as the published code has it;
        its beta is s times the temperature.
    """
    is_candidate = torch.arange(found.cosines.shape[1], device=is_out.device) < found.num_candidates
    weighs = is_candidate & ~found.is_positive & ~is_out
    if terms.hardness_mode != "all_negatives":
        weighs = weighs & (found.of_one_row == (terms.hardness_mode == "hard_negatives"))
    if terms.hardness_form == "penalty":
        return (terms.hardness_strength * found.cosines.detach()).masked_fill(~weighs, 0)
    logs = terms.hardness_strength * found.cosines
    # An anchor without such negatives has no mean of theirs; any will do, as nothing is weighed by it.
    of_mean = weighs | ~weighs.any(dim=1, keepdim=True)
    log_mean = (
        logs.masked_fill(~of_mean, -math.inf).logsumexp(dim=1, keepdim=True) - of_mean.sum(dim=1, keepdim=True).log()
    )
    return (logs - log_mean).masked_fill(~weighs, 0)


def spread_out(embeddings: torch.Tensor, *, moments: Sequence[int] = (1, 2)) -> torch.Tensor:
    """GOR: how far cosines of unrelated texts are from those of random directions, in mean and in mean square.

    With m1 the mean and m2 the mean square of the cosines of different rows:  m1^2 + max(0, m2 - 1 / D).

    Args:
        embeddings: unit-length, (B, D), B at least 2, of one role; no two of them of one text.
        moments: which of the two parts count.

    Returns:
        Scalar; 0 for directions that are spread out evenly.

    Reference: Zhang et al. 2017 (arXiv 1708.06320). EmbeddingGemma (arXiv 2509.20354) has the second moment alone,
        without its bound at zero, summed over queries and positives.
    """
    num_rows, dim = embeddings.shape

    def sums_of(block: slice) -> torch.Tensor:
        rows = torch.arange(num_rows, device=embeddings.device)
        cosines = (embeddings[block] @ embeddings.T).masked_fill(rows[block, None] == rows, 0)
        return torch.stack([cosines.sum(), cosines.square().sum()])

    sums = by_rows(sums_of, num_rows=num_rows, num_columns=num_rows).sum(dim=0)
    mean, mean_square = sums / (num_rows * (num_rows - 1))
    parts = {1: mean.square(), 2: (mean_square - 1 / dim).relu()}
    return torch.stack([parts[moment] for moment in moments]).sum()


def guided_exclusion(similarities: torch.Tensor, *, margin: float, block: slice = WHOLE) -> torch.Tensor:
    """What a guide takes for unlabelled positives: closer to the anchor than its positive, less a margin.

    Args:
        similarities: the guide's cosines as `compare` has them, (b, C); column i is positive i.
        margin: excluded is what lies above the positive's similarity minus this.
        block: which rows they are.

    Returns:
        (b, C) bool; never True at the column of a row's own positive.

    Reference: GISTEmbed, Solatorio 2024 (arXiv 2402.16829). Its loss has anchor-anchor and positive-positive candidates
        besides; here the candidates are those of the run's directions, and the guide only takes some of them out.
    """
    first = block.start or 0
    excluded = similarities > similarities.diagonal(first)[:, None] - margin
    excluded.diagonal(first).fill_(False)
    return excluded


def distillation(
    anchor: torch.Tensor, candidates: torch.Tensor, teacher_similarities: torch.Tensor, *, temperature: float
) -> torch.Tensor:
    """Mean over anchors of KL( softmax(teacher's similarities / t) || softmax(student's similarities / t) ).

    Args:
        anchor: the student's unit-length embeddings, (b, D), float32; all of a batch, or some.
        candidates: (B or B + M, D).
        teacher_similarities: the teacher's cosines, (b, B or B + M).
        temperature: t > 0 of both.

    Returns:
        Scalar loss in nats; not multiplied by t^2, so that its gradient is of the size of InfoNCE's.

    Raises:
        ValueError: temperature is not positive.

    Reference: Hinton et al. 2015 (arXiv 1503.02531); over a batch's candidates, Lin et al. 2020 (arXiv 2010.11386).
    """
    check_temperature(temperature)
    student = log_softmax(anchor @ candidates.T / temperature, dim=1)
    teacher = log_softmax(teacher_similarities / temperature, dim=1)
    return kl_div(student, teacher, reduction="batchmean", log_target=True)


def embedding_distillation(
    student: torch.Tensor, teacher: torch.Tensor, projection: torch.Tensor, *, distance: EmbeddingDistance
) -> torch.Tensor:
    """Mean over texts of how far the student's vector s, through a linear map W, is from the teacher's t.

    1 - cos(W s, t), or |W s - t|^2. The cosine sees the direction of W s alone; the squared distance its length too, so
    where T < D it asks that nothing of s lies outside what W looks at.

    Args:
        student: unit-length embeddings, (K, D), float32.
        teacher: unit-length embeddings of the same texts, (K, T).
        projection: W, (T, D); without a bias, which would turn one and the same shift of all texts into no difference.
        distance: which of the two.

    Returns:
        Scalar loss.

    Raises:
        ValueError: shapes differ.

    Reference: EmbedDistill, Kim et al. 2023 (arXiv 2301.12005), whose distance is not squared; squared: LEAF, Vujanic &
        Rueckstiess 2025 (arXiv 2509.12539), which keeps its map in the model. sentence-transformers' `EmbedDistillLoss`
        has the same cosine; its `mse` is the squared distance over T.
    """
    if projection.shape != (teacher.shape[1], student.shape[1]) or len(student) != len(teacher):
        shapes = ", ".join(str(tuple(one.shape)) for one in (student, teacher, projection))
        raise ValueError(f"a map (T, D) of vectors (K, D) onto (K, T), not {shapes}")
    projected = student @ projection.T  # (K, T)
    if distance is EmbeddingDistance.COSINE:
        return (1 - cosine_similarity(projected, teacher, dim=1)).mean()
    return (projected - teacher).square().sum(dim=1).mean()


def check_shapes(first: torch.Tensor, second: torch.Tensor) -> None:
    """Raise ValueError where they differ."""
    if first.shape != second.shape:
        raise ValueError(f"both must have one shape, not {tuple(first.shape)} and {tuple(second.shape)}")


def _check_negatives(anchor: torch.Tensor, negative: torch.Tensor, negative_rows: torch.Tensor | None) -> None:
    if negative_rows is None:
        check_shapes(anchor, negative)
    elif negative.shape != (len(negative_rows), anchor.shape[1]):
        raise ValueError(f"negatives of {len(negative_rows)} rows cannot have the shape {tuple(negative.shape)}")


def check_temperature(temperature: float) -> None:
    """Raise ValueError where it is not positive."""
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, it is {temperature}")
