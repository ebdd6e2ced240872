"""What a page shows, made of a few pairs and random embeddings."""

from functools import cache
from typing import Any

import numpy as np

from embedsmith.data.leakage import LeakageCheck
from embedsmith.data.pairs import ScoredPairs
from embedsmith.data.statistics import describe_data
from embedsmith.data.triplets import load_triplets
from embedsmith.evaluation.analysis import analyse, distinct_texts
from embedsmith.records.data_facts import DataFacts, LeakageReport
from embedsmith.records.findings import Analysis, RunRecord
from embedsmith.reporting.published import published_beside
from embedsmith.reporting.report import ReportContent

NUM_PAIRS = 60


def make_tasks() -> dict[str, ScoredPairs]:
    """Two tasks; the larger one has pairs of some kinds, and one that would be code if it were not escaped."""
    gold = np.linspace(0, 5, NUM_PAIRS)
    first = [f"w{n} the cat {'does not sleep' if n % 2 else 'sleeps'} on roof {n}" for n in range(NUM_PAIRS)]
    second = [f"w{n} the cat sleeps on roof {n % 7}" for n in range(NUM_PAIRS)]
    first[3] = "<script>alert(1)</script>"
    return {
        "large": ScoredPairs(first, second, gold),
        "small": ScoredPairs(first[:30], second[::-1][:30], gold[::-1][:30]),
    }


@cache
def make_analysis(titles: tuple[str, ...] = ("untrained", "tuned"), *, seed: int = 0) -> Analysis:
    """Models that are each nearer to the gold score than the one before; every pair has a text of its own."""
    tasks = make_tasks()
    texts = distinct_texts(tasks)
    random = np.random.default_rng(seed)
    start = random.standard_normal((len(texts), 16))
    row_of = {text: row for row, text in enumerate(texts)}
    vectors = {}
    for number, title in enumerate(titles):
        values = start.copy()
        for pairs in tasks.values():
            for one, two, score in zip(pairs.sentence1, pairs.sentence2, pairs.scores, strict=True):
                share = number / len(titles) * score / 5
                values[row_of[one]] = (1 - share) * values[row_of[one]] + share * values[row_of[two]]
        vectors[title] = values
    return analyse(tasks, vectors)


@cache
def _look_at_sample() -> tuple[DataFacts, LeakageReport]:
    table = load_triplets(["sample"])
    statistics = describe_data(table, count_lengths=lambda texts: [len(text.split()) for text in texts])
    return statistics, LeakageCheck(make_tasks(), threshold=None).run(table)[0]


def make_content(**changes: Any) -> ReportContent:
    """A page with every section."""
    data, leakage = _look_at_sample()
    metrics: list[dict[str, Any]] = [{"step": 0, "dev_cosine_spearman": 0.3, "dev_ci95": [0.2, 0.4], "elapsed_s": 1.0}]
    metrics += [
        {"step": n, "loss": 3 / n, "learning_rate": 1e-3, "grad_norm": 1.0, "elapsed_s": n} for n in range(1, 30)
    ]
    values: dict[str, Any] = {
        "title": "a <b> title",
        "headline": "It got better.",
        "analysis": make_analysis(),
        "runs": [RunRecord("tuned", "model: '<x>'\n", tuple(metrics), {"data": "a & b"})],
        "published": published_beside(make_analysis().rows, base_model="openbmb/MiniCPM-2B-dpo-bf16", family="MiniCPM"),
        "data": data,
        "leakage": leakage,
        "remarks": ["Near duplicates were not looked for."],
    }
    return ReportContent(**{**values, **changes})
