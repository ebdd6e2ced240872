"""A hub dataset -> its rows, streamed: nothing of it is kept but what is made of them.

It is named `owner/name`, `owner/name:config`, and with `@revision` behind either: a commit, a tag or a branch. It is
read at the commit that this stands for now, and that commit is noted. Where the hub cannot be asked, the one noted last
counts, and that is said; where none is noted, what the `datasets` package has in its own cache, for who can do with it.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedsmith.data.parquet import BatchRows
from embedsmith.data.readers import is_data_file, is_text_file
from embedsmith.support import files
from embedsmith.support.errors import DataError, MissingExtraError

log = logging.getLogger(__name__)

_BATCH_ROWS = 8192
_TRAIN = "train"
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?(?:@([\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_hub_id(source: str) -> bool:
    """Whether a source is a hub dataset, and no file, glob or `sample`."""
    is_local = (
        files.is_there(source) or is_data_file(source) or is_text_file(source) or any(mark in source for mark in "*?[")
    )
    return not is_local and _NAME.fullmatch(source) is not None


def split_hub_id(name: str) -> tuple[str, str | None, str | None]:
    """`owner/name:config@revision` -> `owner/name`, config, revision."""
    match = _NAME.fullmatch(name)
    assert match, f"{name} names no hub dataset"
    return match[1], match[2], match[3]


def find_commit(name: str) -> str:
    """The commit that a dataset is read at; "" where none is known."""
    try:
        return require_commit(name)
    except DataError:
        return ""


def require_commit(name: str) -> str:
    """The commit that a dataset is read at.

    Raises:
        DataError: none is known.
    """
    from huggingface_hub import HfApi

    dataset_id, _, revision = split_hub_id(name)
    if revision and _COMMIT.fullmatch(revision):
        return revision
    noted_as = f"{dataset_id}@{revision}" if revision else dataset_id
    try:
        commit = str(HfApi().dataset_info(dataset_id, revision=revision).sha)
    except Exception as error:  # the client raises many kinds: offline, not found, no such host
        reason = " ".join(str(error).split())
        if kept := _read_note(noted_as):
            log.warning(
                "The hub cannot be asked about '%s' (%s).\nIts commit of last time counts: %s.", name, reason, kept
            )
            return kept
        raise DataError(
            f"'{name}' is no file, and the hub does not say at which commit it would be read as a dataset: {reason}\n"
            "Check the spelling and the network."
        ) from error
    if commit != _read_note(noted_as):
        with suppress(OSError):  # a cache that cannot be written is none
            files.write_json(_note_of(noted_as), {"dataset": noted_as, "commit": commit})
    return commit


def check_extra(name: str) -> None:
    """Raise MissingExtraError without the package that reads a dataset."""
    try:
        import datasets  # noqa: F401 (whether it is there)
    except ImportError:
        raise MissingExtraError("datasets", extra="hub", needed_for=f"Reading the hub dataset '{name}'") from None


def hub_rows(name: str, *, commit: str, takes_only_split: bool = False) -> Iterator[BatchRows]:
    """Yield the rows of a dataset's split `train`, some thousands at a time.

    Args:
        name: see the file's docstring; a revision in it does not count.
        commit: as `find_commit` gives it.
        takes_only_split: whether the only split of a dataset that has no `train` is as good, as of a corpus it is.

    Raises:
        DataError: it cannot be read, or has no such split.
        MissingExtraError: without the `datasets` package.
    """
    check_extra(name)
    import datasets

    dataset_id, config, _ = split_hub_id(name)
    first = 0
    try:
        splits = datasets.load_dataset(dataset_id, config, revision=commit or None, streaming=bool(commit))
        rows = _choose_split(splits, name=name, takes_only_split=takes_only_split)
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


def _choose_split(splits: Any, *, name: str, takes_only_split: bool) -> Any:
    if _TRAIN in splits:
        return splits[_TRAIN]
    if takes_only_split and len(splits) == 1:
        ((split, rows),) = splits.items()
        log.info("'%s' has no split 'train'; the texts are those of '%s', the only one it has.", name, split)
        return rows
    raise DataError(
        f"The hub dataset '{name}' has no split 'train', but {', '.join(splits)}.\n"
        "Name another config as owner/name:config where it has one, or write the rows into a file."
    )


def _read_note(noted_as: str) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or damaged
        return str(json.loads(_note_of(noted_as).read_text(encoding="utf-8"))["commit"])
    return ""


def _note_of(noted_as: str) -> Path:
    return files.cache_root() / "datasets" / f"{hashlib.sha256(noted_as.encode()).hexdigest()[:32]}.json"
