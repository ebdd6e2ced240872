"""Clients of a server of embeddings: many at a time, each sends its next text when the last one is answered.

Every answer is compared with the embedding expected; what went wrong is counted by what it was.
"""

import asyncio
import http.client
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np
import orjson

from benchmarks.servers import API_KEY, MODEL_NAME

HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {API_KEY}"}
_ROUTE = "/v1/embeddings"
_TIMEOUT_S = 120


@dataclass(frozen=True)
class Texts:
    """What is asked, and what should come.

    Attributes:
        texts: K of them.
        rows: their embeddings, (K, D) float32, unit length.
    """

    texts: Sequence[str]
    rows: np.ndarray

    def body(self, index: int) -> bytes:
        """The request for one; base64 as OpenAI's own client asks for it."""
        return make_body(self.texts[index])

    def cosine(self, index: int, body: bytes) -> float:
        """Of what came in an answer and what should have."""
        row = read_row(body)
        return float(row @ self.rows[index] / np.linalg.norm(row))


def make_body(text: str) -> bytes:
    """A request for one text."""
    return orjson.dumps({"model": MODEL_NAME, "input": text, "encoding_format": "base64"})


def read_row(body: bytes) -> np.ndarray:
    """The embedding of an answer to one text."""
    value = orjson.loads(body)["data"][0]["embedding"]
    return np.frombuffer(b64decode(value), "<f4") if isinstance(value, str) else np.asarray(value, np.float32)


@dataclass
class Load:
    """What clients saw.

    Attributes:
        num_clients: at one time.
        elapsed_s: from the first request to the last answer.
        seconds: of each request answered.
        cosines: of each, to the embedding expected.
        faults: what went wrong, and how often.
        resident_bytes: of the server in each round, after a tenth of the time and at the end.
        rates: requests answered a second, of each round.
    """

    num_clients: int
    elapsed_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    cosines: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    resident_bytes: list[tuple[int, int]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def add(self, other: "Load") -> None:
        """Another round of the same."""
        self.elapsed_s += other.elapsed_s
        self.seconds += other.seconds
        self.cosines += other.cosines
        self.faults += other.faults
        self.resident_bytes += other.resident_bytes
        self.rates += other.rates

    def summary(self) -> dict[str, Any]:
        """As results keep it."""
        p50, p99 = np.percentile(self.seconds, [50, 99]).tolist() if self.seconds else (None, None)
        return {
            "clients": self.num_clients,
            "seconds": self.elapsed_s,
            "answered": len(self.seconds),
            "faults": dict(self.faults),
            "texts_per_s": len(self.seconds) / self.elapsed_s,
            "texts_per_s_of_rounds": self.rates,
            "p50_s": p50,
            "p99_s": p99,
            "smallest_cosine": min(self.cosines, default=None),
            "mean_cosine": float(np.mean(self.cosines)) if self.cosines else None,
            "resident_bytes": self.resident_bytes,
        }


def put_load(
    url: str, texts: Texts, *, num_clients: int, seconds: float, seed: int, count_bytes: Callable[[], int] | None = None
) -> Load:
    """So many clients for so long; the last requests are waited for.

    Args:
        url: of the server.
        texts: asked in an order of their own, which clients enter at different places.
        num_clients: at one time.
        seconds: after which no more is asked.
        seed: of the order.
        count_bytes: the memory that the server has; None: it is not asked for.
    """
    return asyncio.run(_put_load(url, texts, Load(num_clients), seconds=seconds, seed=seed, count_bytes=count_bytes))


async def _put_load(
    url: str, texts: Texts, load: Load, *, seconds: float, seed: int, count_bytes: Callable[[], int] | None
) -> Load:
    order = np.random.default_rng(seed).permutation(len(texts.texts))
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(
        headers=HEADERS, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)
    ) as session:
        started = time.perf_counter()
        early = asyncio.create_task(_count_later(count_bytes, seconds / 10))
        await asyncio.gather(
            early,
            *(
                _ask_on(session, url + _ROUTE, texts, np.roll(order, -start), load, until=started + seconds)
                for start in np.linspace(0, len(order), load.num_clients, endpoint=False, dtype=int)
            ),
        )
        load.elapsed_s = time.perf_counter() - started
    if count_bytes:
        load.resident_bytes.append((early.result(), count_bytes()))
    load.rates.append(len(load.seconds) / load.elapsed_s)
    return load


async def _count_later(count_bytes: Callable[[], int] | None, seconds: float) -> int:
    await asyncio.sleep(seconds)
    return count_bytes() if count_bytes else 0


async def _ask_on(
    session: aiohttp.ClientSession, url: str, texts: Texts, order: np.ndarray, load: Load, *, until: float
) -> None:
    for index in cycle(order.tolist()):
        started = time.perf_counter()
        if started >= until:
            return
        try:
            async with session.post(url, data=texts.body(index)) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            load.faults[type(error).__name__] += 1
            continue
        if answer.status != 200:
            load.faults[str(answer.status)] += 1
            continue
        load.seconds.append(time.perf_counter() - started)
        load.cosines.append(texts.cosine(index, body))


class OneClient:
    """A client with one connection, which costs as little as may be: for requests that are timed one by one.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_TIMEOUT_S)

    def post(self, body: bytes, *, headers: dict[str, str] | None = None) -> tuple[int, float]:
        """Status and seconds, from the first byte out to the last one in."""
        started = time.perf_counter()
        self._connection.request("POST", _ROUTE, body, {**HEADERS, **(headers or {})})
        answer = self._connection.getresponse()
        answer.read()
        return answer.status, time.perf_counter() - started

    def close(self) -> None:
        """End the connection."""
        self._connection.close()
