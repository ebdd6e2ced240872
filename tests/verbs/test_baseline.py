"""The untrained baseline: every way is tried, each as if it had been asked for alone, and the best stands first."""

import json
from pathlib import Path

import pytest

from embedsmith.cli import run_command
from embedsmith.data.pairs import load_pairs
from embedsmith.settings.choices import Pooling
from embedsmith.support.errors import ConfigError
from embedsmith.verbs.baseline import rank_untrained
from embedsmith.verbs.evaluate import evaluate
from tests.tiny import write_pairs


def test_each_way_scores_as_evaluate_does(model_folders: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "sts").mkdir()
    dev = write_pairs(tmp_path / "sts" / "dev.tsv")
    model = model_folders["llama"]
    ranking = rank_untrained(model, pairs=load_pairs(str(dev)), prompts=["none", "sum", "echo"])
    assert len(ranking) == 4 * len(Pooling)  # the bare text goes with and without the end token
    scores = [candidate.result.cosine_spearman for candidate in ranking]
    assert scores == sorted(scores, reverse=True)
    for candidate in ranking:
        alone = evaluate(
            model,
            data=dev.parent,
            poolings=[candidate.pooling],
            prompt=None if candidate.prompt == "none" else candidate.prompt,
            end_token=candidate.end_token,
        )
        (result,) = alone.values()
        assert result.tasks["dev"].cosine_spearman == pytest.approx(candidate.result.cosine_spearman, abs=1e-3)


def test_the_command_prints_how_to_score_the_best(
    model_folders: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dev = write_pairs(tmp_path / "dev.tsv")
    out = tmp_path / "baseline.json"
    command = ["baseline", model_folders["llama"], "--dev", str(dev), "--prompts", "none", "sum", "--out", str(out)]
    assert run_command(command) == 0
    best = json.loads(out.read_text())["ranking"][0]
    assert f"--pooling {best['pooling']} --data DIR" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nothing", "instruct"])
def test_only_known_prompts_that_stand_alone(name: str, model_folders: dict[str, str], tmp_path: Path) -> None:
    pairs = load_pairs(str(write_pairs(tmp_path / "dev.tsv")))
    with pytest.raises(ConfigError, match=f"names {name}; it may name none, prompteol"):
        rank_untrained(model_folders["llama"], pairs=pairs, prompts=[name])
