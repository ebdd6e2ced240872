"""Embeddings -> JSON, in pieces: a large answer is neither whole in memory nor in the way of others."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response, StreamingResponse

from embedsmith.serving.service import Embedded

_ROWS_AT_ONCE = 64

Row = Callable[[int, np.ndarray], Any]


def answer_rows(embedded: Embedded, *, row: Row, before: bytes = b"[", after: bytes = b"]") -> Response:
    """A JSON list of K embeddings.

    Args:
        embedded: what was asked for.
        row: what stands in the list for the embedding of a place.
        before, after: the JSON around the items, brackets included.
    """
    parts = _parts(embedded.rows, row, before, after)
    if len(embedded.rows) <= _ROWS_AT_ONCE:
        return Response(b"".join(parts), headers=embedded.headers, media_type="application/json")
    return StreamingResponse(_one_by_one(parts), headers=embedded.headers, media_type="application/json")


def _parts(rows: np.ndarray, row: Row, before: bytes, after: bytes) -> Iterator[bytes]:
    yield before
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        items = [row(start + place, one) for place, one in enumerate(rows[start : start + _ROWS_AT_ONCE])]
        text = orjson.dumps(items, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        yield text if not start else b"," + text
    yield after


async def _one_by_one(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
        await asyncio.sleep(0)


def to_base64(row: np.ndarray) -> str:
    """Little-endian float32, as OpenAI's clients read it."""
    return b64encode(row.astype("<f4", copy=False).tobytes()).decode("ascii")
