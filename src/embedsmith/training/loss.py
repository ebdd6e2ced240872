"""The contrastive loss: maths on embeddings, no model here."""

import torch
from torch.nn.functional import cross_entropy


def info_nce(
    anchor: torch.Tensor, positive: torch.Tensor, negative: torch.Tensor | None, *, temperature: float
) -> torch.Tensor:
    """InfoNCE with in-batch and hard negatives: mean over anchors of -log softmax at the positive.

    Every positive and every hard negative of the batch is a candidate for every anchor; the right one for anchor i is
    positive i:  -log( exp(cos(a_i, p_i) / t) / sum_j [ exp(cos(a_i, p_j) / t) + exp(cos(a_i, n_j) / t) ] ).

    Args:
        anchor: unit-length embeddings, (B, D), float32.
        positive: (B, D), row i belongs to anchor i.
        negative: (B, D), or None when the data has none.
        temperature: divides cosine similarity; > 0, usually 0.02 to 0.1.

    Returns:
        Scalar loss in nats.

    Raises:
        ValueError: shapes differ, or temperature is not positive.

    Reference: van den Oord et al. 2018 (arXiv 1807.03748); SimCSE, Gao et al. 2021 (arXiv 2104.08821), equation 5.
    """
    if anchor.shape != positive.shape or (negative is not None and negative.shape != anchor.shape):
        shapes = [tuple(part.shape) for part in (anchor, positive, negative) if part is not None]
        raise ValueError(f"anchor, positive and negative must have one shape, not {shapes}")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, it is {temperature}")
    candidates = positive if negative is None else torch.cat([positive, negative])  # (2B, D)
    similarities = anchor @ candidates.T  # (B, 2B)
    return cross_entropy(similarities / temperature, torch.arange(len(anchor), device=anchor.device))
