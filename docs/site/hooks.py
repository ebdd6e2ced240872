"""What mkdocs is told of pages and files that do not lie in docs/: see mkdocs.yml.

    README.md                         -> index.md
    CONTRIBUTING.md, CHANGELOG.md ... -> pages of the same name
    recipes/*.yaml, LICENSE, ...      -> files that pages link to, as they are
    the package's public names        -> api.md

The pages link to each other as they lie in the repository, so that a forge shows them; here links are turned to
where their files are in the site. A link to what is neither is a fault, and ends the build.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import embedsmith

ROOT = Path(__file__).parent.parent.parent
_ROOT_PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_API = """# Python

Everything else is reached from these names; shapes and letters are those of [the design](design.md#letters-for-shapes).

{names}
"""


def on_files(files: Files, *, config: Any) -> Files:
    """Add what lies outside docs/, and what is made here."""
    for name in _ROOT_PAGES:
        if (ROOT / name).exists():
            files.append(File.generated(config, _uri(ROOT / name), content=(ROOT / name).read_text(encoding="utf-8")))
    for page in [*files.documentation_pages()]:
        for _, target, _ in _LINK.findall(page.content_string):
            path = _file_of(page.src_uri, target)
            if path is not None and path.is_file() and files.get_file_from_path(_uri(path)) is None:
                files.append(File.generated(config, _uri(path), content=path.read_bytes()))
    files.append(File.generated(config, "api.md", content=_API.format(names="\n\n".join(_public_names()))))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: Any, files: Files) -> str:
    """Links to files outside docs/ -> links to where they are in the site."""

    def turn(match: re.Match[str]) -> str:
        path = _file_of(page.file.src_uri, match[2])
        if path is None or not path.exists():
            return match[0]  # another site's; or nothing there, which mkdocs names
        start = posixpath.dirname(page.file.src_uri) or "."
        return f"{match[1]}{posixpath.relpath(_uri(path), start)}{match[3]}"

    return _LINK.sub(turn, markdown)


def _file_of(page: str, target: str) -> Path | None:
    """The file that a page's link leads to, as it lies in the repository; None for other sites."""
    if "://" in target or target.startswith("mailto:"):
        return None
    folder = ROOT if page == "index.md" or page in _ROOT_PAGES else (ROOT / "docs" / page).parent
    return (folder / target).resolve()


def _uri(path: Path) -> str:
    """Where a file of the repository is in the site."""
    if path == ROOT / "README.md":
        return "index.md"
    docs = ROOT / "docs"
    return (path.relative_to(docs) if path.is_relative_to(docs) else path.relative_to(ROOT)).as_posix()


def _public_names() -> list[str]:
    return [f"::: {home}.{name}" for name, home in embedsmith._HOMES.items()]
