"""The pages make a site: every link leads somewhere, and nothing is fetched from elsewhere when it is read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT

_FETCHED = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Strict: a link to a page, a heading or a file that is not there ends the build."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'embedsmith[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT / 'src'}", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    for name in PAGES:
        page = "index.html" if name == "README.md" else f"{Path(name).stem}.html"
        assert (site / page).exists(), name
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [name for name in PAGES if name != "README.md" and f" {Path(name).name}\n" not in menu] == []
    text = (site / "api.html").read_text(encoding="utf-8")
    assert "Embed K texts; returns" in text  # a docstring


def test_nothing_is_fetched(site: Path) -> None:
    for page in site.glob("*.html"):
        # mkdocs-material names its home in a link to click; what a browser would load by itself is asked about here.
        found = [tag for tag in _FETCHED.findall(page.read_text(encoding="utf-8")) if 'rel="canonical"' not in tag]
        assert found == [], page.name


def test_files_that_pages_name_are_there(site: Path) -> None:
    assert (site / "recipes" / "smollm2-135m-best.yaml").read_bytes() == (
        ROOT / "recipes" / "smollm2-135m-best.yaml"
    ).read_bytes()
