"""Faults of data, gathered by their places and shown together."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from embedsmith.support.errors import MAX_FAULTS_SHOWN, DataError, list_faults


class Faults:
    """Faults of a whole load, gathered; keeps the first `limit` texts and counts all."""

    def __init__(self, *, limit: int = MAX_FAULTS_SHOWN) -> None:
        self.limit = limit
        self.count = 0
        self.texts: list[str] = []

    def add(self, path: Path | str, line: int | None, what: str) -> None:
        """Note one fault at a 1-based line, of parquet a row (None: the whole file)."""
        self.count += 1
        if len(self.texts) < self.limit:
            self.texts.append(f"{path}: {what}" if line is None else f"{place_of(path, line)}: {what}")

    def raise_if_any(self, *, what: str) -> None:
        """Raise one DataError naming every fault, up to a limit."""
        if self.count:
            raise DataError(
                list_faults(
                    f"{self.count} fault{'s' if self.count > 1 else ''} in the {what}:",
                    self.texts,
                    advice="Correct or remove these and start again; nothing was written.",
                    count=self.count,
                )
            )


def place_of(path: Path | str, line: int) -> str:
    """Where a row is, for people to read."""
    return f"{path}, {'row' if str(path).endswith('.parquet') else 'line'} {line}"


def doubled_name(names: Sequence[str]) -> str | None:
    """What is wrong where a column's name stands twice, or None; columns without a name cannot be asked for."""
    doubled = next((name for name, count in Counter(names).items() if count > 1 and name), None)
    if doubled is None:
        return None
    places = [number for number, name in enumerate(names, start=1) if name == doubled]
    return f"the name {doubled!r:.60} stands there twice, on columns {places[0]} and {places[1]}; rename or remove one"
