"""A folder -> what stands in it: names, kinds, rights, contents. Equal digests: nothing was changed."""

import hashlib
import stat
from pathlib import Path


def digest_of(folder: Path) -> dict[str, tuple[str, str]]:
    """Path within the folder -> kind and rights as `ls` shows them; of a file its contents, of a link its target."""
    found = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        inside = ""
        if stat.S_ISLNK(mode):
            inside = str(path.readlink())
        elif stat.S_ISREG(mode):
            inside = hashlib.sha256(path.read_bytes()).hexdigest()
        found[path.relative_to(folder).as_posix()] = (stat.filemode(mode), inside)
    return found
