"""Where the learned map of distillation on embeddings starts: as the rotation that fits the run's first texts best.

    student (K, D) --projection (T, D)--> (K, T)  <--distance-->  teacher (K, T)

The map is trained with the student and is no part of it: checkpoints hold it, an adapter does not. What it learns is
lost in the end, so the student should have to learn as much as it can. A rotation leaves lengths and angles as they are
(where T < D, those within what it looks at), so what is compared with the teacher's is the student's own cosine. The
best linear map, by least squares, would at once do in the student's place what the student shall learn. A rotation at
random would first be turned, and the student with it. Cost: a forward without graph of some batches.
"""

from collections.abc import Iterator
from itertools import islice

import torch

from embedsmith.data.rows import Triplets
from embedsmith.data.table import TripletTable
from embedsmith.model.embedder import Embedder
from embedsmith.settings.config import RunConfig
from embedsmith.training.batching import training_batches
from embedsmith.training.distributed import Processes
from embedsmith.training.gradcache import embed_without_graph
from embedsmith.training.mntp import MaskedPrediction
from embedsmith.training.objective import Objective
from embedsmith.training.step import pack_batch

FITTED_TEXTS = 1024
"""Texts of the first batches, equal ones included; where the widths are larger, as many as the smaller one."""


def start_projection(
    objective: Objective | MaskedPrediction,
    *,
    embedder: Embedder,
    triplets: TripletTable,
    config: RunConfig,
    processes: Processes,
) -> None:
    """Set an objective's projection, if it has one, to its start: the same in every process, and a function of data,
    models and seed.

    Args:
        objective: what the run minimises.
        embedder: the student, before its first step.
        triplets: what the run trains on.
        config: which batches come first.
        processes: who has to agree.
    """
    projection = objective.projection
    if isinstance(objective, MaskedPrediction) or projection is None:
        return
    num_texts = max(FITTED_TEXTS, min(projection.shape))
    products = torch.zeros(projection.shape, dtype=torch.float64, device=projection.device)
    drawn = training_batches(triplets, config=config)
    for batch in _so_many_texts((triplets.rows(rows) for rows in drawn), objective=objective, num_texts=num_texts):
        students = embed_without_graph(pack_batch(embedder, batch=batch, objective=objective), embedder=embedder)
        teachers = objective.teacher_vectors(batch)
        assert teachers is not None
        products += (teachers.T @ students).double()
    with torch.no_grad():
        projection.copy_(processes.from_main(nearest_rotation(products)))


def nearest_rotation(products: torch.Tensor) -> torch.Tensor:
    """The map W (T, D) with orthonormal columns, or rows where T < D, for which sum of t . W s is largest.

    Where T >= D, it is the one with the least sum of |W s - t|^2.

    Args:
        products: (T, D), the sum of t s^T over pairs of vectors t (T,) and s (D,).

    Reference: Schönemann 1966, A generalized solution of the orthogonal Procrustes problem (doi 10.1007/BF02289451).
    """
    left, _, right = torch.linalg.svd(products, full_matrices=False)
    return left @ right


def _so_many_texts(batches: Iterator[Triplets], *, objective: Objective, num_texts: int) -> Iterator[Triplets]:
    """Batches until they hold that many texts."""
    num_seen = 0
    while num_seen < num_texts:
        (batch,) = islice(batches, 1)
        num_seen += sum(map(len, objective.text_groups(batch)))
        yield batch
