"""Evaluation sets in files -> tasks of mteb's, which scores them as it does its own.

What a score's interval and a comparison need goes into mteb's own result file: nDCG@10 of every query, the rank of
every pair.
"""

from typing import Any

from embedsmith.data.beir import RetrievalSet
from embedsmith.data.clusters import ClusteringSet
from embedsmith.data.pairs import ScoredPairs
from embedsmith.evaluation.correlation import mid_ranks
from embedsmith.evaluation.mteb_tasks import import_mteb

BY_QUERY, BY_PAIR = "ndcg_at_10_by_query", "cosine_rank_by_pair"


def local_retrieval_task(name: str, data: RetrievalSet) -> Any:
    """A retrieval task of mteb's on local data; scored by nDCG@10, that of every query kept under `BY_QUERY`."""
    import_mteb()
    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    class LocalRetrievalTask(AbsTaskRetrieval):
        metadata = _metadata(
            name,
            "Documents, queries and judgements from a folder in BEIR's layout.",
            # What earlier versions kept of the same set lacks the queries' scores, and is not taken.
            revision=f"{data.fingerprint}-{BY_QUERY}",
            kind="Retrieval",
            main_score="ndcg_at_10",
        )

        def task_specific_scores(self, scores: dict[str, dict[str, float]], *_: Any, **__: Any) -> dict[str, Any]:
            """What mteb's mean is made of, into its own result file, with as many digits as it keeps there."""
            return {BY_QUERY: [round(scores[query]["ndcg_cut_10"], 6) for query in sorted(scores)]}

    documents = [{"id": key, "title": title, "text": text} for key, (title, text) in data.documents.items()]
    queries = [{"id": key, "text": text} for key, text in data.queries.items()]
    split = {"corpus": documents, "queries": queries}
    return _loaded(
        LocalRetrievalTask(),
        {
            "default": {
                "test": {
                    **{part: Dataset.from_list(rows) for part, rows in split.items()},
                    "relevant_docs": data.judgements,
                    "top_ranked": None,
                }
            }
        },
    )


def local_duplicate_task(name: str, data: ScoredPairs) -> Any:
    """A pair classification task of mteb's on local data; scored by the average precision of the pairs in the order of
    their cosines, whose mid-ranks are kept under `BY_PAIR`."""
    import_mteb()
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.pair_classification import AbsTaskPairClassification

    class LocalDuplicateTask(AbsTaskPairClassification):
        metadata = _metadata(
            name,
            "Pairs that mean the same, or not, from a file.",
            revision=data.fingerprint,
            kind="PairClassification",
            main_score="cosine_ap",
        )

        def _compute_metrics(self, similarity_scores: Any, labels: list[int]) -> dict[str, Any]:
            """What mteb's score is made of, besides: ranks, as its result file rounds cosines."""
            found = super()._compute_metrics(similarity_scores, labels)
            return {**found, BY_PAIR: mid_ranks(similarity_scores["cosine_scores"]).tolist()}

    columns = {"sentence1": data.sentence1, "sentence2": data.sentence2, "labels": data.scores.astype(int).tolist()}
    return _loaded(LocalDuplicateTask(), DatasetDict({"test": Dataset.from_dict(columns)}))


def local_clustering_task(name: str, data: ClusteringSet) -> Any:
    """A clustering task of mteb's on local data; scored by v-measure, over all texts instead of a part of them."""
    import_mteb()
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.clustering import AbsTaskClustering

    class LocalClusteringTask(AbsTaskClustering):
        metadata = _metadata(
            name,
            "Texts with labels from a file.",
            revision=data.fingerprint,
            kind="Clustering",
            main_score="v_measure",
        )
        max_fraction_of_documents_to_embed = None

    columns = {"sentences": data.texts, "labels": data.labels}
    return _loaded(LocalClusteringTask(), DatasetDict({"test": Dataset.from_dict(columns)}))


def _metadata(name: str, description: str, *, revision: str, kind: Any, main_score: str) -> Any:
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name=name,
        description=description,
        dataset={"path": name, "revision": revision},
        type=kind,
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=main_score,
    )


def _loaded(task: Any, dataset: Any) -> Any:
    task.dataset = dataset
    task.data_loaded = True
    return task
