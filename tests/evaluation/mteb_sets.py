"""mteb tasks of every type on a few texts in memory: what the hub would bring."""

from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks.abstask import AbsTask
from mteb.abstasks.aggregate_task_metadata import AggregateTaskMetadata
from mteb.abstasks.aggregated_task import AbsTaskAggregate
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.clustering import AbsTaskClustering
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata

NUM_ROWS = 60
FIRST = [f"w{row} the cat w{row * 7 % 200} sleeps" for row in range(NUM_ROWS)]
SECOND = [f"an animal w{row} w{row * 11 % 200} rain" for row in range(NUM_ROWS)]
GRADES = [row * 5 % 11 / 2 for row in range(NUM_ROWS)]
TOPICS = ("two old men play {}", "the wind blows from {}", "a cat runs on the warm {}")


def _metadata(name: str, kind: str, score: str, prompt: str | None = None) -> TaskMetadata:
    return TaskMetadata(
        name=name,
        description="Texts in memory.",
        dataset={"path": "memory", "revision": "1"},
        type=kind,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=score,
        prompt=prompt,
    )


def _labelled() -> list[tuple[str, int]]:
    return [(text.format(f"w{number}"), label) for number in range(12) for label, text in enumerate(TOPICS)]


class Similarity(AbsTaskSTS):
    """Scored pairs."""

    metadata = _metadata("Similarity", "STS", "cosine_spearman", prompt="Find text of the same meaning")
    min_score, max_score = 0, 5

    def load_data(self, **_: Any) -> None:
        columns = {"sentence1": FIRST, "sentence2": SECOND, "score": GRADES}
        self.dataset = DatasetDict({"test": Dataset.from_dict(columns)})
        self.data_loaded = True


class Topics(AbsTaskClassification):
    """Texts with one of three labels."""

    metadata = _metadata("Topics", "Classification", "accuracy")
    samples_per_label = 4
    n_experiments = 2

    def load_data(self, **_: Any) -> None:
        texts, labels = zip(*_labelled(), strict=True)
        split = Dataset.from_dict({"text": list(texts), "label": list(labels)})
        self.dataset = DatasetDict({"train": split, "test": split})
        self.data_loaded = True


class Groups(AbsTaskClustering):
    """The same, without labels."""

    metadata = _metadata("Groups", "Clustering", "v_measure")
    max_document_to_embed = 30
    max_fraction_of_documents_to_embed = None

    def load_data(self, **_: Any) -> None:
        texts, labels = zip(*_labelled(), strict=True)
        self.dataset = DatasetDict({"test": Dataset.from_dict({"sentences": list(texts), "labels": list(labels)})})
        self.data_loaded = True


class Same(AbsTaskPairClassification):
    """Pairs that mean the same, or not."""

    metadata = _metadata("Same", "PairClassification", "similarity_ap")

    def load_data(self, **_: Any) -> None:
        columns = {"sentence1": FIRST, "sentence2": SECOND, "labels": [int(grade > 2.5) for grade in GRADES]}
        self.dataset = DatasetDict({"test": Dataset.from_dict(columns)})
        self.data_loaded = True


class _Search(AbsTaskRetrieval):
    has_candidates = False

    def load_data(self, **_: Any) -> None:
        queries = [{"id": f"q{row}", "text": text} for row, text in enumerate(FIRST)]
        candidates = {f"q{row}": [f"d{(row + step) % NUM_ROWS}" for step in range(20)] for row in range(NUM_ROWS)}
        split = {
            "corpus": Dataset.from_list([{"id": f"d{row}", "text": text} for row, text in enumerate(SECOND)]),
            "queries": Dataset.from_list(queries),
            "relevant_docs": {f"q{row}": {f"d{row}": 1} for row in range(NUM_ROWS)},
            "top_ranked": candidates if self.has_candidates else None,
        }
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


class Search(_Search):
    """Queries and documents."""

    metadata = _metadata("Search", "Retrieval", "ndcg_at_10", prompt="Find what follows from the text")


class Rank(_Search):
    """Queries and some candidates for each."""

    metadata = _metadata("Rank", "Reranking", "map_at_1000")
    has_candidates = True


class Together(AbsTaskAggregate):
    """Two tasks that count as one."""

    metadata = AggregateTaskMetadata(
        name="Together",
        description="Their mean.",
        dataset={"path": "memory", "revision": "1"},
        type="Retrieval",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        tasks=[Search(), Rank()],
    )


ALL: tuple[type[AbsTask], ...] = (Similarity, Topics, Groups, Same, Search, Rank)
