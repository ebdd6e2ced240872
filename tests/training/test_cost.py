"""What a step costs: by hand, and where it grows or stops falling."""

from dataclasses import replace

import pytest

from embedsmith.training.cost import (
    Links,
    Step,
    embedding_bytes,
    gradient_bytes,
    loss_operations,
    step_seconds,
    weight_bytes,
)

LINKS = Links(bytes_per_s=1e9, between_bytes_per_s=1e8, per_machine=4, hop_s=1e-3, loss_flops=1e9)
STEP = Step(num_rows=8, num_texts=24, num_compared=16, dim=10, num_trained=1000, compute_s=4.0)


def test_one_process_sends_nothing() -> None:
    assert embedding_bytes(num_texts=24, dim=10, count=1) == 0
    assert gradient_bytes(num_trained=1000, count=1) == 0
    assert weight_bytes(shared_bytes=8000, num_gathers=2, count=1) == 0
    assert step_seconds(STEP, count=1, links=LINKS) == {
        "compute": 4.0,
        "loss": 6 * 8 * 16 * 10 / 1e9,
        "embeddings": 0,
        "gradients": 0,
        "weights": 0,
    }


def test_what_a_process_sends_in_a_ring() -> None:
    assert embedding_bytes(num_texts=6, dim=10, count=4) == 3 * 6 * 10 * 4  # three others' rows pass through it
    assert gradient_bytes(num_trained=1000, count=4) == 2 * 3 * 250 * 4  # a quarter at a time, twice round
    assert weight_bytes(shared_bytes=8000, num_gathers=2, count=4) == 2 * 3 * 2000


def test_seconds_between_machines() -> None:
    within = step_seconds(STEP, count=4, links=LINKS)
    assert within["compute"] == 1.0
    assert within["gradients"] == pytest.approx(6 * 1e-3 + 6000 / 1e9)
    between = step_seconds(STEP, count=8, links=LINKS)
    assert between["embeddings"] == pytest.approx(7 * 1e-3 + 7 * 3 * 10 * 4 / 1e8)


def test_a_small_share_of_a_step_takes_its_least_time() -> None:
    assert step_seconds(replace(STEP, least_s=1.5), count=4, links=LINKS)["compute"] == 1.5
    assert step_seconds(replace(STEP, least_s=9.0), count=1, links=LINKS)["compute"] == 4.0


def test_the_loss_grows_with_the_square_of_the_batch() -> None:
    assert loss_operations(STEP) == 6 * 8 * 16 * 10
    assert loss_operations(replace(STEP, num_rows=16, num_compared=32)) == 4 * loss_operations(STEP)
    assert loss_operations(replace(STEP, num_rows=4096, num_compared=8192)) == 8 * 4096 * 8192 * 10  # in blocks
