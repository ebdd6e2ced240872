"""How large the measurements are: the full ones, and tiny ones that only show that everything runs."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large everything is. Lengths are in tokens, end token included."""

    repetitions: int
    step_batches: tuple[int, ...]
    cached_batch: int
    direct_batch: int
    num_sentences: int
    growth_batches: tuple[int, ...]
    growth_lengths: tuple[int, ...]
    growth_length_batch: int
    growth_model_batch: int
    families_batch: int
    families_sentences: int
    long_batch: int
    long_steps: int
    long_block: int


FULL = Scale(
    repetitions=5,
    step_batches=(32, 64),
    cached_batch=512,
    direct_batch=64,
    num_sentences=500,
    growth_batches=(8, 16, 32, 64, 128, 256, 512),
    growth_lengths=(8, 16, 32, 64, 128, 256, 512),
    growth_length_batch=4,
    growth_model_batch=16,
    families_batch=32,
    families_sentences=200,
    long_batch=64,
    long_steps=300,
    long_block=50,
)
QUICK = Scale(
    repetitions=2,
    step_batches=(4,),
    cached_batch=64,
    direct_batch=4,
    num_sentences=40,
    growth_batches=(2, 4, 8),
    growth_lengths=(8, 32, 128),
    growth_length_batch=2,
    growth_model_batch=2,
    families_batch=2,
    families_sentences=20,
    long_batch=2,
    long_steps=6,
    long_block=2,
)
