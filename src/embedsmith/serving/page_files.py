"""The files of the playground, by the path that each is served at."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "page"

PAGE_PATHS = {
    "/" if path.name == "index.html" else f"/page/{path.name}": path
    for path in sorted(_FOLDER.iterdir())
    if path.is_file()
}
"""Nothing but these files can be had; they hold no secrets, so no key is asked for."""
