"""What the server counts, as Prometheus reads it."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
_TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Metrics:
    """All figures of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = {"registry": self.registry, "namespace": "embedsmith"}
        self._requests = Counter("requests", "Requests answered.", ["route", "status"], **own)
        self._seconds = Histogram(
            "request_seconds", "From a request's head to its last byte.", ["route"], buckets=_SECONDS, **own
        )
        self.inside = Gauge("requests_inside", "Requests being read, waiting, computed or answered.", **own)
        self.stages = Histogram(
            "stage_seconds",
            "Of a request: reading the body, parsing and tokenizing, waiting and computing.",
            ["stage"],
            buckets=_SECONDS,
            **own,
        )
        self._texts = Counter("texts", "Texts computed.", ["model"], **own)
        self._tokens = Counter("tokens", "Tokens computed, prompts included.", ["model"], **own)
        self._cut = Counter("texts_cut", "Texts longer than the model takes, which were cut.", ["model"], **own)
        self._batch_texts = Histogram("batch_texts", "Texts of a batch.", ["model"], buckets=_COUNTS, **own)
        self._batch_tokens = Histogram("batch_tokens", "Tokens of a batch.", ["model"], buckets=_TOKENS, **own)
        self._batch_seconds = Histogram("batch_seconds", "To compute a batch.", ["model"], buckets=_SECONDS, **own)
        self._waiting = Gauge("queue_tokens", "Tokens that wait to be computed.", ["model"], **own)
        ProcessCollector(registry=self.registry)

    def count_request(self, *, route: str, status: int, seconds: float) -> None:
        """A request that is over."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def of_model(self, name: str) -> "ModelMetrics":
        """The figures of one model."""
        return ModelMetrics(self, name)

    def render(self) -> bytes:
        """Prometheus' text."""
        return generate_latest(self.registry)


@dataclass(frozen=True)
class ModelMetrics:
    """The figures of one model among those of a server."""

    metrics: Metrics
    name: str

    def count_batch(self, *, num_texts: int, num_tokens: int, seconds: float) -> None:
        """A batch that was computed."""
        all_models = self.metrics
        all_models._texts.labels(self.name).inc(num_texts)
        all_models._tokens.labels(self.name).inc(num_tokens)
        all_models._batch_texts.labels(self.name).observe(num_texts)
        all_models._batch_tokens.labels(self.name).observe(num_tokens)
        all_models._batch_seconds.labels(self.name).observe(seconds)

    def count_cut(self, num_texts: int) -> None:
        """Texts that were cut."""
        self.metrics._cut.labels(self.name).inc(num_texts)

    def set_waiting(self, num_tokens: int) -> None:
        """Tokens that wait now."""
        self.metrics._waiting.labels(self.name).set(num_tokens)
