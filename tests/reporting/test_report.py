"""The page: self-contained, safe against hostile text, the same bytes for the same input, as many models as come."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from embedsmith.reporting.report import write_report
from embedsmith.reporting.tables import format_score
from embedsmith.support.errors import MissingExtraError
from tests.reporting.contents import make_analysis, make_content


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.followed: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]
        is_followed = tag == "a" and not found[0].startswith("#")  # by a reader alone
        (self.followed if is_followed else self.links).extend(found)
        self.ids += [value or "" for name, value in attrs if name == "id"]


def _parse(page: str) -> _Tags:
    tags = _Tags()
    tags.feed(page)
    return tags


def test_the_page_stands_alone(tmp_path: Path, cache: Path) -> None:
    content = make_content()
    path = tmp_path / "deep" / "report.html"
    write_report(path, content)
    page = path.read_text(encoding="utf-8")
    tags = _parse(page)
    assert tags.tags.count("script") == 1
    assert all(link.startswith("#") or link == "data:," for link in tags.links)
    targets = {link[1:] for link in tags.links if link.startswith("#")}
    assert targets <= set(tags.ids)
    sources = [url for _, url, _ in content.published.sources]
    assert tags.followed == sources
    assert len(sources) == 2
    for url in sources:
        page = page.replace(f'<a href="{url}">', "<a>")
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org)", page)
    assert len(page) < 3_000_000
    shown = ["It got better.", "a &amp; b", "&lt;script&gt;alert(1)", "1,202 triplets", "clean"]
    shown += ["83.84 of 9", "Published results of MiniCPM-2B"]
    shown += [format_score(result.tasks["large"]) for _, result in content.analysis.rows]
    shown += [one.name for one in content.analysis.slices]
    for text in shown:
        assert text in page
    assert "<script>alert" not in page


def test_the_same_content_gives_the_same_bytes(tmp_path: Path, cache: Path) -> None:
    for name in ("a", "b"):
        write_report(tmp_path / name, make_content())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_one_model_that_is_no_run(tmp_path: Path, cache: Path) -> None:
    content = make_content(analysis=make_analysis(("alone",)), runs=[], data=None, leakage=None, remarks=[])
    write_report(tmp_path / "r.html", content)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    for heading in ("Against", "Learning curve", "Training data", "Run and cost"):
        assert heading not in page


def test_many_models_are_all_shown(tmp_path: Path, cache: Path) -> None:
    titles = tuple(f"model {n}" for n in range(6))
    write_report(tmp_path / "r.html", make_content(analysis=make_analysis(titles)))
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count('<figure class="map">') == len(titles)
    for title in titles:
        assert f"{title}</th>" in page
    assert page.count(f"</span>{titles[-1]}</th><td") == 3  # two tasks and their average


def test_without_the_extra(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = make_content()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"embedsmith\[report\]"):
        write_report(tmp_path / "r.html", content)
    assert not (tmp_path / "r.html").exists()
