import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from embedsmith.settings.config import RunConfig
from embedsmith.settings.recipe import load_config
from embedsmith.support.errors import ConfigError
from embedsmith.training.schedule import make_schedule


def _config(**settings: str) -> RunConfig:
    return load_config(overrides={"output_dir": "x", "batch_size": "6", "warmup_steps": "2", **settings})


def test_the_learning_rates_are_transformers_cosine() -> None:
    config = _config(max_steps="30", warmup_steps="5", learning_rate="2e-3")
    schedule = make_schedule(config, num_triplets=600)
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=2e-3)
    theirs = get_cosine_schedule_with_warmup(optimizer, 5, 30)
    for step in range(30):
        assert schedule.learning_rate_at(step) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_the_length_of_a_run() -> None:
    assert make_schedule(_config(max_steps="8"), num_triplets=60).max_steps == 8
    assert make_schedule(_config(num_train_epochs="2"), num_triplets=60).max_steps == 20
    with pytest.raises(ConfigError, match="warmup_steps is 8, but the run has only 8 steps"):
        make_schedule(_config(max_steps="8", warmup_steps="8"), num_triplets=60)


def test_evaluations_and_checkpoints() -> None:
    schedule = make_schedule(_config(max_steps="20", eval_steps="8", save_steps="5"), num_triplets=60)
    assert schedule.evaluated_at == {0, 8, 16, 20}
    assert [step for step in range(1, 21) if schedule.saves_after(step)] == [5, 10, 15, 20]
    without = make_schedule(_config(max_steps="20", eval_steps="8", eval_at_start="false"), num_triplets=60)
    assert without.evaluated_at == {8, 16, 20}
    assert [step for step in range(1, 21) if without.saves_after(step)] == [8, 16, 20]
