"""What a step costs on R processes: bytes that each sends, operations, memory, and seconds made of them.

    what          sent by each process, bytes    when
    embeddings    (R - 1) k D 4                  once a step; k texts, those of the process with most
    gradients     2 (R - 1) / R A 4              once a step; A trained weights
    weights       (R - 1) / R P w                for each forward and backward of a base that they hold together

Rings are assumed, as gloo's: nothing sends less in all, and NCCL's trees only wait less. Every process computes the
whole loss, a matrix of B x C cosines, block by block where it is large: its operations grow with the square of the
batch, and no number of processes divides them. Seconds are those of a step whose parts do not overlap, as they
do not here: computing, then exchanging.
"""

from dataclasses import dataclass

from embedsmith.training.row_blocks import MAX_CELLS

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Step:
    """A step of all processes together.

    Attributes:
        num_rows: triplets, B.
        num_texts: K, at most B times the texts of a row.
        num_compared: what each anchor is compared with, C.
        dim: embedding width, D.
        num_trained: weights of the adapter, A.
        compute_s: seconds of all its tokens on one device.
        least_s: seconds that no share of it goes below on one device, however small: kernels are started one by one.
        shared_bytes: of a base that processes hold together, P w; 0: each has its own.
        num_gathers: forwards and backwards of that base in a step, on the process with most.
    """

    num_rows: int
    num_texts: int
    num_compared: int
    dim: int
    num_trained: int
    compute_s: float
    least_s: float = 0.0
    shared_bytes: int = 0
    num_gathers: int = 2


@dataclass(frozen=True)
class Links:
    """What devices exchange over.

    Attributes:
        bytes_per_s: one way, of a device to the next one within a machine.
        between_bytes_per_s: the same from machine to machine, for each device.
        per_machine: devices of a machine.
        hop_s: seconds until the first byte arrives at the next device.
        loss_flops: operations a second of the loss's products.
    """

    bytes_per_s: float
    between_bytes_per_s: float
    per_machine: int = 8
    hop_s: float = 1e-5
    loss_flops: float = 3e13


def embedding_bytes(*, num_texts: int, dim: int, count: int) -> int:
    """Bytes that a process sends for all to have the embeddings of all, the process with most having `num_texts`."""
    return (count - 1) * num_texts * dim * FLOAT_BYTES


def gradient_bytes(*, num_trained: int, count: int) -> float:
    """Bytes that a process sends for gradients to be added up."""
    return 2 * (count - 1) / count * num_trained * FLOAT_BYTES


def weight_bytes(*, shared_bytes: int, num_gathers: int, count: int) -> float:
    """Bytes that a process sends for layers to be whole where they run."""
    return (count - 1) / count * shared_bytes * num_gathers


def step_seconds(step: Step, *, count: int, links: Links) -> dict[str, float]:
    """Seconds of a step on so many devices, part by part: `compute`, `loss`, `embeddings`, `gradients`, `weights`."""
    is_within = count <= links.per_machine
    speed = links.bytes_per_s if is_within else min(links.bytes_per_s, links.between_bytes_per_s)
    own_texts = -(-step.num_texts // count)
    sent = {
        "embeddings": (count - 1, embedding_bytes(num_texts=own_texts, dim=step.dim, count=count)),
        "gradients": (2 * (count - 1), gradient_bytes(num_trained=step.num_trained, count=count)),
        "weights": (
            (count - 1) * step.num_gathers if step.shared_bytes else 0,
            weight_bytes(shared_bytes=step.shared_bytes, num_gathers=step.num_gathers, count=count),
        ),
    }
    return {
        "compute": max(step.compute_s / count, min(step.least_s, step.compute_s)),
        "loss": loss_operations(step) / links.loss_flops,
        **{part: hops * links.hop_s + size / speed for part, (hops, size) in sent.items()},
    }


def loss_operations(step: Step) -> int:
    """Of the loss in every process: a product, two for its gradient, and one more where it is cut into blocks."""
    cells = step.num_rows * step.num_compared
    return (8 if cells > MAX_CELLS else 6) * cells * step.dim
