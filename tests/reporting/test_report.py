"""The page: self-contained, safe against hostile text, the same bytes for the same input; an honest headline."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from embedsmith.errors import MissingExtraError
from embedsmith.reporting.report import ReportContent, headline, write_report
from embedsmith.results import EvaluationResult, TaskResult


def _result(name: str, score: float) -> EvaluationResult:
    return EvaluationResult(name, {"dev": TaskResult(score, (score - 0.05, score + 0.05), 40)})


def _content(**changes: object) -> ReportContent:
    random = np.random.default_rng(0)
    gold = np.linspace(0, 5, 40)
    values = {
        "title": "a <b> title",
        "headline": "It got better.",
        "rows": [("untrained", _result("m", 0.3)), ("tuned", _result("r", 0.8))],
        "metrics": [{"step": 0, "dev_cosine_spearman": 0.3, "dev_ci95": [0.2, 0.4], "elapsed_s": 1.0}]
        + [{"step": n, "loss": 3 / n, "learning_rate": 1e-3, "grad_norm": 1.0, "elapsed_s": n} for n in range(1, 30)],
        "pairs": [("<script>alert(1)</script>", f"sentence {n}", float(score)) for n, score in enumerate(gold)],
        "similarities": {"untrained": random.random(40), "tuned": gold / 5},
        "facts": {"data": "a & b"},
        "config_yaml": "model: '<x>'\n",
    }
    return ReportContent(**{**values, **changes})


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]


def test_the_page_stands_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.html"
    write_report(path, _content())
    page = path.read_text(encoding="utf-8")
    links = _Links()
    links.feed(page)
    assert "script" not in links.tags
    assert links.tags.count("svg") == 3
    assert all(link.startswith("#") for link in links.links)
    assert not re.search(r"url\((?!#)|@import", page)
    assert len(page) < 1_000_000
    for text in ("30.0 [25.0, 35.0]", "80.0 [75.0, 85.0]", "+50.0", "It got better.", "a &amp; b", "&lt;script&gt;"):
        assert text in page


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(tmp_path / name, _content())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_one_model_and_no_metrics(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", _content(rows=[("untrained", _result("m", 0.3))], metrics=[]))
    assert "gain over the first" not in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_many_models_are_all_shown(tmp_path: Path) -> None:
    rows = [(f"model {n}", _result("m", 0.1 * n)) for n in range(1, 7)]
    similarities = {title: np.random.default_rng(n).random(40) for n, (title, _) in enumerate(rows)}
    write_report(tmp_path / "r.html", _content(rows=rows, similarities=similarities))
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count('id="PathCollection_') == len(rows)
    assert page.count('class="dot"') == len(rows)


@pytest.mark.parametrize(
    ("before", "after", "part"),
    [
        (0.3, 0.8, "from 30.0 to 80.0 (+50.0 points)"),
        (0.5, 0.55, "on dev the 95 % intervals overlap"),
        (0.5, 0.4, "did not help"),
    ],
)
def test_the_headline_is_honest(before: float, after: float, part: str) -> None:
    assert part in headline(_result("m", before), _result("r", after), baseline="the base")


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"embedsmith\[report\]"):
        write_report(tmp_path / "r.html", _content())
    assert not (tmp_path / "r.html").exists()
