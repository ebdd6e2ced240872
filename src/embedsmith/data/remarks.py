"""What to know of training data though it is sound: columns that are not used, rows that teach the wrong thing."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedsmith.data.faults import place_of

log = logging.getLogger(__name__)


@dataclass
class Remarks:
    """What a user should know of sound rows.

    Attributes:
        unused: file -> its columns that are not used.
        doubts: why rows teach the wrong thing -> how many, and where the first one is.
        kinds: file -> the kind of its rows.
    """

    unused: dict[str, dict[str, None]] = field(default_factory=dict)
    doubts: dict[str, tuple[int, str]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def add_unused(self, place: Path | str, names: Iterable[str]) -> None:
        """Note columns of a file."""
        self.unused.setdefault(str(place), {}).update(dict.fromkeys(names))

    def add_doubts(self, place: Path | str, line: int, doubts: Iterable[str]) -> None:
        """Note what is wrong with one row."""
        for doubt in doubts:
            count, first = self.doubts.get(doubt, (0, place_of(place, line)))
            self.doubts[doubt] = (count + 1, first)

    def sentences(self) -> tuple[str, ...]:
        """One for each kind of remark; files with the same unused columns, or without negatives, share one."""
        places: dict[tuple[str, ...], list[str]] = {}
        for place, names in self.unused.items():
            if names:
                places.setdefault(tuple(names), []).append(place)
        unused = [
            f"{_places(found)}: columns that are not used: {', '.join(name or 'one without a name' for name in names)}"
            for names, found in places.items()
        ]
        doubts = [
            f"{count:,} {'rows teach' if count > 1 else 'row teaches'} the wrong thing: {doubt}; the first: {first}"
            for doubt, (count, first) in self.doubts.items()
        ]
        pairs = [place for place, kind in self.kinds.items() if kind == "pairs"]
        is_mixed = 0 < len(pairs) < len(self.kinds)
        without_negatives = [f"{_places(pairs)}: pairs without negatives, beside triplets"] if is_mixed else []
        return (*unused, *without_negatives, *doubts)


def _places(found: Sequence[str]) -> str:
    return found[0] + (f" and {len(found) - 1} more files" if len(found) > 1 else "")


def say_remarks(remarks: Iterable[str]) -> None:
    """Print them, a line each."""
    for remark in remarks:
        log.warning("%s", remark)
