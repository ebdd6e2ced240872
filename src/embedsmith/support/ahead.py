"""Work done ahead: the next item is made on a thread of its own while the one before is in use."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; each is begun when the one before is handed out.

    What making one raises is raised where it would have been handed out, so nothing is lost of what comes before it.
    Nothing is made behind the last one. An iterator that is left early waits for the one that is being made.
    """
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(_next_one, items)
        while made := coming.result():
            coming = thread.submit(_next_one, items)
            yield from made


def _next_one(items: Iterator[Item]) -> list[Item]:
    """Empty at the end."""
    return list(islice(items, 1))
