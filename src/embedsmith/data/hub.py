"""A hub dataset -> its rows, streamed: nothing of it is kept but the table that is made of them.

A dataset is read at the commit that its name stands for now, and that commit is noted. Where the hub cannot be asked,
the one noted last counts, and that is said; where none is noted, what the `datasets` package has in its own cache.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from embedsmith.data.parquet import BatchRows
from embedsmith.support import files
from embedsmith.support.errors import DataError, MissingExtraError

log = logging.getLogger(__name__)

_BATCH_ROWS = 8192


def find_commit(name: str) -> str:
    """The commit that a dataset is read at, by `owner/name` or `owner/name:config`; "" where none is known."""
    from huggingface_hub import HfApi

    dataset_id = name.partition(":")[0]
    try:
        commit = str(HfApi().dataset_info(dataset_id).sha)
    except Exception as error:  # the client raises many kinds: offline, not found, no such host
        kept = _read_note(dataset_id)
        if kept:
            log.warning(
                "The hub cannot be asked about '%s' (%s).\nIts commit of last time counts: %s.", name, error, kept
            )
        return kept
    if commit != _read_note(dataset_id):
        with suppress(OSError):  # a cache that cannot be written is none
            files.write_json(_note_of(dataset_id), {"dataset": dataset_id, "commit": commit})
    return commit


def hub_rows(name: str, *, commit: str) -> Iterator[BatchRows]:
    """Yield the rows of a dataset's split `train`, some thousands at a time.

    Args:
        name: `owner/name` or `owner/name:config`.
        commit: as `find_commit` gives it.

    Raises:
        DataError: it cannot be read.
        MissingExtraError: without the `datasets` package.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", extra="hub", needed_for=f"Reading the hub dataset '{name}'") from None
    dataset_id, _, config = name.partition(":")
    first = 0
    try:
        rows = datasets.load_dataset(
            dataset_id, config or None, split="train", revision=commit or None, streaming=bool(commit)
        )
        for table in rows.with_format("arrow").iter(batch_size=_BATCH_ROWS):
            yield BatchRows(pa.table(table), first=first)
            first += len(table)
    except DataError:
        raise
    except Exception as error:  # the library raises many kinds: not found, offline, no such config, no such split
        where = f" after row {first}" if first else ""
        raise DataError(
            f"'{name}' is no file, and as a hub dataset it cannot be loaded{where}: {error}\n"
            "Check the spelling, the network, and name a config as owner/name:config where it has several."
        ) from error


def _read_note(dataset_id: str) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or damaged
        return str(json.loads(_note_of(dataset_id).read_text(encoding="utf-8"))["commit"])
    return ""


def _note_of(dataset_id: str) -> Path:
    return files.cache_root() / "datasets" / f"{hashlib.sha256(dataset_id.encode()).hexdigest()[:32]}.json"
