"""What the benchmarks make of measured times; the measuring itself is tried by `python -m benchmarks --quick`.

The paper's arms are trained and scored, in small.
"""

import json
import pkgutil
import time
from dataclasses import replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import benchmarks
from benchmarks import paper
from benchmarks.drift import compute, draw_pairs, drift_cells
from benchmarks.machine import peak_precision, peaks
from benchmarks.paper_plot import steps_svg
from benchmarks.paper_tables import arms_table, runs_table, scores_table, steps_table
from benchmarks.pool import Series, Work, busy_processes
from benchmarks.render import render
from benchmarks.rows import Row, cosines_to, read_results, summarize, with_fractions, write_results
from benchmarks.tables import busy_table, long_table, slope
from benchmarks.variants import VARIANTS, choose_variants
from embedsmith.data.pairs import load_pairs
from embedsmith.data.triplets import load_triplets
from embedsmith.settings.choices import Precision
from embedsmith.settings.recipe import load_config
from embedsmith.training import keeping
from embedsmith.training.batching import contrastive_batches
from tests.tiny import save_model, write_pairs, write_triplets

WORK = Work(name="4 triplets", requests=({"step": 0},) * 4, tokens=(90, 100, 110, 120), items=4)


def _rows() -> list[Row]:
    results = {
        ("4 triplets", "embedsmith"): Series(
            seconds=[1.0, 2.0, 1.0], replies=[{"tokens": 100}] * 4, peak_bytes=2_000_000_000
        ),
        ("4 triplets", "st-bf16"): Series(seconds=[4.0, 6.0, 5.0], replies=[{"tokens": 100}] * 4),
        ("4 triplets", "published"): Series(failure="it would need about 30 GB"),
    }
    return summarize(
        results,
        part="step",
        works=[WORK],
        variants=[VARIANTS[name] for name in ("embedsmith", "st-bf16", "published")],
        reference="embedsmith",
        operations_per_token=1e9,
        cosines={},
    )


def test_ratios_are_taken_within_rounds() -> None:
    ours, theirs, failed = _rows()
    assert (ours.seconds, ours.ratio, ours.repetitions) == (1.0, 1.0, 3)
    assert theirs.ratio == 4.0  # of 4, 3 and 5; the medians alone would say 5
    assert failed.seconds is None
    assert failed.failure == "it would need about 30 GB"


def test_fractions_count_real_tokens_against_the_peak() -> None:
    ours = with_fractions(_rows(), peak_flops=200e9, mm_flops=125e9)[0]
    assert ours.fraction == pytest.approx(100e9 / 200e9)  # of 100, 55 and 120 GFLOPS
    assert ours.fraction_of_mm == pytest.approx(100e9 / 125e9)


def test_slopes_are_exponents() -> None:
    assert slope([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)


def test_smallest_cosine(tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.npy" for name in ("exact", "near")}
    np.save(files["exact"], np.array([[1.0, 0.0], [0.0, 2.0]]))
    np.save(files["near"], np.array([[3.0, 0.0], [1.0, 1.0]]))
    assert cosines_to("exact", files)["near"] == pytest.approx((0.5**0.5, (1 + 0.5**0.5) / 2))


def _part(limits: dict[str, float], rows: list[Row]) -> dict[str, Any]:
    """A part as the file of results has it."""
    return {
        "command": "python -m benchmarks --parts step",
        "scale": {"repetitions": 3},
        "texts": "20 triplets",
        "missing": [],
        "limits": {"before": limits, "after": limits, "used": limits},
        "rows": [vars(row) for row in rows],
    }


def _machine(processor: str, instructions: str, *, bf16_in_hardware: bool) -> dict[str, Any]:
    return {
        "processor": processor,
        "cores": 2,
        "memory_gb": 24.0,
        "instructions": instructions,
        "bf16_in_hardware": bf16_in_hardware,
        "amx_in_hardware": False,
        "versions": {"torch": "2.13.0"},
    }


def test_a_page_is_made_of_the_results_alone(tmp_path: Path) -> None:
    limits = {"bf16_gflops": 200.0, "bf16_mm_gflops": 125.0, "fp32_gflops": 100.0, "copy_gb_s": 50.0}
    part = _part(limits, with_fractions(_rows(), peak_flops=200e9, mm_flops=125e9))
    machine = _machine("a processor", "AVX512", bf16_in_hardware=True)
    (tmp_path / "performance").mkdir()
    results = tmp_path / "performance" / "one.json"
    write_results(results, {"machine": machine, "parts": {"step": part}})
    assert read_results(results)["machine"] == machine
    other = {**machine, "processor": "another", "amx_in_hardware": True}
    write_results(tmp_path / "performance" / "two.json", {"machine": other, "parts": {"step": part}})
    render(tmp_path)
    page = (tmp_path / "performance.md").read_text()
    assert "python -m benchmarks --parts step" in page
    assert "4.00 (3.50 to 4.50)" in page
    assert "it would need about 30 GB" in page
    plots = sorted(path.name for path in (tmp_path / "images").glob("*.svg"))
    assert plots == [
        "performance-a-processor-avx512-bf16-products-2-cores-step-4.svg",
        "performance-another-avx512-bf16-products-amx-2-cores-step-4.svg",
    ]
    assert all(plot in page for plot in plots)
    assert "\n## another, AVX512, bf16 products, AMX, 2 cores\n" in page
    assert "| another, AVX512, bf16 products, AMX, 2 cores | bf16: " in page


def test_without_bf16_products_the_page_is_of_float32(tmp_path: Path) -> None:
    limits = {"fp32_gflops": 100.0, "fp32_mm_gflops": 90.0, "copy_gb_s": 50.0}
    assert (peak_precision(limits), peaks(limits)) == ("fp32", (100.0, 90.0))
    variants = choose_variants(["embedsmith", "st-bf16", "st-fp32", "published"], precision="fp32")
    assert [(one.name, one.precision) for one in variants] == [("embedsmith", "fp32"), ("st-fp32", "fp32")]
    rows = [replace(row, variant={"st-bf16": "st-fp32"}.get(row.variant, row.variant)) for row in _rows()]
    part = _part(limits, with_fractions(rows, peak_flops=100e9, mm_flops=90e9))
    machine = _machine("old", "AVX2", bf16_in_hardware=False)
    (tmp_path / "performance").mkdir()
    write_results(tmp_path / "performance" / "old.json", {"machine": machine, "parts": {"step": part}})
    render(tmp_path)
    page = (tmp_path / "performance.md").read_text()
    assert "| old, AVX2, 2 cores | fp32: " in page and "4.00 (3.50 to 4.50) times" in page
    assert "fractions below are of the two fp32 peaks" in page and "bf16 GFLOPS" not in page


def test_everybody_of_the_table_can_be_measured_in_float32() -> None:
    names = list(VARIANTS)
    chosen = choose_variants(names, precision="fp32")
    assert len({one.name for one in chosen}) == len(chosen)
    assert all(one.precision == "fp32" and one.name in VARIANTS for one in chosen)
    assert choose_variants(names, precision="bf16") == list(VARIANTS.values())


def test_every_module_of_the_measurements_can_be_loaded() -> None:
    names = [module.name for module in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")]
    assert "benchmarks.__main__" in names
    for name in names:
        if not name.startswith("benchmarks.peers"):
            import_module(name)


def test_the_memory_of_a_long_run_is_shown_against_its_first_steps(tmp_path: Path) -> None:
    works = [("steps 1 to 2", 1_000_000_000), ("steps 3 to 4", 1_300_000_000)]
    rows = [replace(_rows()[0], part="long", work=work, peak_bytes=size) for work, size in works]
    lines = long_table(rows).split("\n")
    assert [line.split(" | ")[-2:] for line in lines[2:4]] == [["1.00 GB", "1.00 |"], ["1.30 GB", "1.30 |"]]


def test_a_step_beside_a_busy_process_is_compared_with_its_own_idle_one() -> None:
    idle, busy = WORK, replace(WORK, name="4 triplets, one other busy process", num_busy=1, against=WORK.name)
    results = {
        (idle.name, "embedsmith"): Series(seconds=[1.0, 2.0, 1.0]),
        (busy.name, "embedsmith"): Series(seconds=[1.5, 4.0, 1.6]),
    }
    variants = [VARIANTS["embedsmith"]]
    rows = summarize(
        results, part="busy", works=[idle, busy], variants=variants, reference="embedsmith",
        operations_per_token=1e9, cosines={},
    )  # fmt: skip
    assert [row.ratio for row in rows] == [1.0, 1.6]
    assert "1.60 (1.55 to 1.80)" in busy_table(rows)


def test_a_busy_process_is_busy_and_ends() -> None:
    others = set(psutil.Process().children())  # what tests before this one have left running
    with busy_processes(1):
        (process,) = set(psutil.Process().children()) - others
        time.sleep(0.5)
        assert sum(process.cpu_times()[:2]) > 0
    assert not process.is_running()


# ---- the paper's arms -----------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_model("llama", tmp_path / "model")
    write_triplets(tmp_path / "nli.tsv", num_rows=130)
    (tmp_path / "sts").mkdir()
    for name in ("STS12", "STSBenchmark-test", "STSBenchmark-dev", "STSBenchmark-train"):
        write_pairs(tmp_path / "sts" / f"{name}.tsv")
    return tmp_path


WORDS = ["model", "--triplets", "nli.tsv", "--sts", "sts", "--steps", "4", "--warmup-steps", "1", "--eval-steps", "2"]


ADAPTER = "runs/paper/model/runs/published/adapter/adapter_model.safetensors"


def run_arms(*arms: str) -> int:
    return paper.main([*WORDS, "--arms", *arms])


def results_of(here: Path) -> dict:
    return json.loads((here / "runs/paper/model/results.json").read_text())


def test_the_papers_arms_are_trained_scored_and_put_beside_it(here: Path) -> None:
    assert run_arms("published", "learning-rate-5e-5", "no-hard-negatives") == 0
    results = results_of(here)
    arms = results["arms"]
    assert list(arms) == ["untrained", "published", "no-hard-negatives"]  # 5e-5 is the published rate: one run
    assert all(list(scores) == ["STS12", "STSBenchmark-test"] for scores in arms["published"]["scores"].values())
    assert list(arms["published"]["scores"]) == ["none", "paper-p1", "paper-p2", "paper-p3"]
    assert [step for step, _ in arms["published"]["curve"]] == [0, 2, 4]
    assert (arms["published"]["use_hard_negatives"], arms["no-hard-negatives"]["use_hard_negatives"]) == (True, False)
    assert results["differences"]["no-hard-negatives"]["against"] == "published"
    page = (here / "runs/paper/model/results.md").read_text()
    assert f"`python -m benchmarks.paper {' '.join(WORDS)} --arms published no-hard-negatives`" in page
    (row,) = (line for line in page.splitlines() if line.startswith("| hard negatives | without |"))
    assert arms["published"]["recipe"] == "recipes/paper/minicpm-2b.yaml"
    svg = steps_svg([results])
    assert all(f"{label}, 4 steps" in svg for label in ("published settings", "no-hard-negatives"))
    scores = arms["no-hard-negatives"]["scores"]["none"].values()
    average = 100 * sum(score["cosine_spearman"] for score in scores) / 2
    assert row.split(" | ")[2:5] == ["81.97 ± 5.37", "6", f"{average:.2f}"]


def test_finished_arms_are_not_run_again(here: Path) -> None:
    assert run_arms("published") == 0
    adapter, before = here / ADAPTER, results_of(here)
    written = adapter.stat().st_mtime_ns
    assert run_arms("published") == 0
    assert adapter.stat().st_mtime_ns == written
    assert results_of(here) == before


def test_an_arm_that_was_stopped_goes_on(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save_and_stop(*arguments: Any, save: Any = keeping.save_checkpoint, **settings: Any) -> None:
        save(*arguments, **settings)
        if settings["progress"].step:  # not the one of the start
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(keeping, "save_checkpoint", save_and_stop)
        run_arms("no-hard-negatives")
    assert run_arms("no-hard-negatives") == 0
    stopped = results_of(here)["arms"]["no-hard-negatives"]
    assert paper.main([*WORDS, "--arms", "no-hard-negatives", "--out", "whole"]) == 0
    whole = json.loads((here / "whole/results.json").read_text())["arms"]["no-hard-negatives"]
    assert (stopped["curve"], stopped["scores"]) == (whole["curve"], whole["scores"])


def test_an_arm_that_fails_takes_no_other_with_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "runs/paper/model/runs").mkdir(parents=True)
    (here / "runs/paper/model/runs/learning-rate-5e-3").write_text("no folder")
    assert run_arms("learning-rate-5e-3", "learning-rate-5e-4") == 2
    assert list(results_of(here)["failures"]) == ["learning-rate-5e-3"]
    assert "learning-rate-5e-4" in results_of(here)["arms"]
    (here / "runs/paper/model/runs/learning-rate-5e-3").unlink()
    assert run_arms("learning-rate-5e-3") == 0
    assert results_of(here)["failures"] == {}
    assert results_of(here)["arms"].keys() == {"untrained", "learning-rate-5e-4", "learning-rate-5e-3"}


def test_arms_from_other_data_do_not_come_together(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_arms("no-hard-negatives") == 0
    write_triplets(here / "nli.tsv", num_rows=140)
    assert run_arms("published") == 2
    assert "runs/paper/model holds arms with other triplets" in capsys.readouterr().err


def scored(model: str, **averages: float) -> dict:
    """Results of a model that was scored untrained alone."""
    scores = {
        name.replace("_", "-"): {"cosine_spearman": score, "ci95": [score, score], "num_pairs": 9}
        for name, score in averages.items()
    }
    return {"model": model, "arms": {"untrained": {"scores": {"none": scores}}}, "differences": {}, "failures": {}}


def test_averages_are_over_the_sets_that_all_have() -> None:
    table = scores_table(
        [scored("a", STS12=0.2, SICK_R=0.4), scored("b", STS12=0.1, STSBenchmark_test=0.9, SICK_R=0.5)]
    )
    header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines())
    assert header[-2:] == ["average of the 2 measured here", "average of 9"]
    assert [row[-2:] for row in rows[-2:]] == [["30.00", ""], ["30.00", ""]]
    minicpm = next(row for row in rows if row[0] == "MiniCPM-2B" and row[1].startswith("tuned, [Table 2]"))
    assert minicpm[-2:] == ["78.12", "83.84 ± 4.27"]  # of 76.38 and 79.87


def test_prompts_stand_beside_the_papers_whichever_arm_they_were_tried_on() -> None:
    results = scored("a", STS12=0.2)
    of_prompts = dict.fromkeys(("none", "paper-p1", "paper-p3"), results["arms"]["untrained"]["scores"]["none"])
    results["arms"]["published"] = results["arms"]["untrained"]
    results["arms"]["learning-rate-5e-4"] = {"scores": of_prompts}
    difference = {"difference": 0.031, "ci95": [0.01, 0.05]}
    results["differences"] = {"learning-rate-5e-4, paper-p1": difference, "learning-rate-5e-4": difference}
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in arms_table([results]).splitlines()]
    cells = {tuple(row[:2]): row[4:] for row in rows}
    tuned = "prompt at test, tuned model"
    assert cells[tuned, "none"] == ["20.00 (learning-rate-5e-4)", ""]
    assert [row[4:] for row in rows if row[0] == tuned and row[1].startswith("P1")] == [
        ["20.00 (learning-rate-5e-4)", "+3.1 [+1.0, +5.0]"]
    ]
    assert [row[4:] for row in rows if row[0] == tuned and row[1].startswith("P2")] == [["", ""]]
    assert cells["learning rate", "5e-4"] == ["20.00", "+3.1 [+1.0, +5.0]"]


def test_without_runs_the_paper_stands_alone() -> None:
    assert "here" not in scores_table([])
    assert "| hard negatives | without | 81.97 ± 5.37 | 6 |" in arms_table([])
    assert (steps_table([]), runs_table([])) == ("", "")


# ---- what bf16 changes ----------------------------------------------------------------------------------------------


def test_drift_is_none_of_the_same_precision_and_little_of_bf16(model_folders: dict[str, str], tmp_path: Path) -> None:
    write_triplets(tmp_path / "nli.tsv", num_rows=40)
    write_pairs(tmp_path / "pairs.tsv")
    pairs = draw_pairs(load_pairs(str(tmp_path / "pairs.tsv")), 12)
    rows = load_triplets([str(tmp_path / "nli.tsv")])
    batches = [rows.rows(one) for one in islice(contrastive_batches(rows.text_ids, batch_size=4, seed=0), 2)]
    config = load_config(overrides={"output_dir": "unused", "batch_size": "4", "lora_dropout": "0"})
    exact, again, rounded = (
        compute(model_folders["llama"], precision=one, pairs=pairs, batches=batches, config=config)
        for one in (Precision.FP32, Precision.FP32, Precision.BF16)
    )
    assert drift_cells(exact, again, gold=pairs.scores)[:3] == ["1.00000", "1.00000", "0.0000"]
    np.testing.assert_array_equal(exact.gradients, again.gradients)
    assert exact.gradients.shape == (2, exact.gradients.size // 2)
    cosines = [float(cell) for cell in (drift_cells(exact, rounded, gold=pairs.scores)[index] for index in (0, 1, -1))]
    assert 0.99 < cosines[0] <= cosines[1] < 1 and 0.9 < cosines[2] < 1
