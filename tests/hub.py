"""The hub's cache, filled by hand, and a pickle that shows when it was opened."""

import os
from pathlib import Path


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def put_in_hub_cache(cache: Path, repository: str, files: dict[str, Path]) -> None:
    """The hub cache as a download of these files leaves it."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for name, file in files.items():
        (snapshot / name).symlink_to(file)
