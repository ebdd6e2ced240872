"""How much the server takes at one time, and for how long it waits."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is beyond one of them is refused with the status that says so, before it costs anything.

    Attributes:
        max_items: texts of one request, else 413.
        max_request_tokens: tokens of one request, as computed (longer texts are cut first), else 413.
        max_body_bytes: of one request, else 413; no more than that is read.
        max_requests: being read, waiting, computed or answered at one time, else 429.
        max_queue_tokens: tokens that wait to be computed, of one model, else 429; one request may always wait.
        batch_tokens: tokens computed at one time; None: as many as `encode` takes.
        body_seconds: a body that has not come by then is given up, 408.
        drain_seconds: what was accepted when the server was told to stop may take so long.
        max_connections: open at one time; further ones get 503.
    """

    max_items: int = 2048
    max_request_tokens: int = 300_000
    max_body_bytes: int = 2_000_000
    max_requests: int = 512
    max_queue_tokens: int = 600_000
    batch_tokens: int | None = None
    body_seconds: float = 60
    drain_seconds: float = 60
    max_connections: int = 1000
