"""The page in a real browser: no errors, no requests, sorting, filtering, pointing; any width, dark, and on paper."""

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from embedsmith.reporting.report import write_report
from tests.reporting.contents import make_content

pytestmark = pytest.mark.browser
BROWSER = shutil.which("chromium")
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
CONTRAST = """(selector) => {
  const light = (text) => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255);
    const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll(selector)].map((element) => {
    const ink = light(getComputedStyle(element).color);
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
  });
}"""
"""Contrast ratios as WCAG 2 defines them."""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDSMITH_CACHE", str(path.parent / "cache"))
        write_report(path, make_content())
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, page_file: Path) -> Iterator[Page]:
    """The page, opened; what it complains about or asks for fails the test."""
    opened = browser.new_page(viewport=DESKTOP)
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: complaints.append(request.url))
    opened.goto(page_file.as_uri())
    yield opened
    opened.close()
    assert complaints == [page_file.as_uri()]


def _column(table: Locator, column: int) -> list[str]:
    return table.locator(f"tbody tr:not([hidden]) > :nth-child({column})").all_inner_texts()


def test_tables_sort_by_mouse_and_keyboard(page: Page) -> None:
    table = page.locator("#failures table").first
    before = [int(cell) for cell in _column(table, 2)]
    assert len(set(before)) > 2
    head = table.locator("thead th").nth(1)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [int(cell) for cell in _column(table, 2)] == sorted(before, reverse=True)
    page.keyboard.press("Enter")  # the button has the focus
    assert head.get_attribute("aria-sort") == "ascending"
    assert [int(cell) for cell in _column(table, 2)] == sorted(before)
    names = table.locator("thead th").nth(0)
    names.get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    assert _column(table, 1) == sorted(_column(table, 1), reverse=True)


def test_pairs_are_filtered_by_kind(page: Page) -> None:
    every = _column(page.locator("#worst"), 1)
    page.select_option("#kind", "negation")
    chosen = _column(page.locator("#worst"), 1)
    assert 0 < len(chosen) < len(every)
    assert all("negation" in cell for cell in chosen)
    page.select_option("#kind", "")
    assert _column(page.locator("#worst"), 1) == every


def test_a_text_is_found_on_every_map(page: Page) -> None:
    circle = page.locator(".map circle").first
    circle.scroll_into_view_if_needed()
    circle.hover(force=True)
    pair = page.locator(".map .shown").first.get_attribute("data-pair")
    assert page.locator(f'.map circle.shown[data-pair="{pair}"]').count() == 2 * page.locator("figure.map").count()
    text = page.locator("#map-text").inner_text()
    assert " | " in " ".join(text.split())


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_sticks_out(page: Page, size: dict[str, int]) -> None:
    page.set_viewport_size({"width": size["width"], "height": size["height"]})
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
    for box in page.locator("main p, main h2, main dl").all():
        bounds = box.bounding_box()
        assert bounds is None or bounds["x"] + bounds["width"] <= size["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out_from_the_ground(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    ratios = page.evaluate(CONTRAST, "h1, h2, p, th, td, dt, dd, summary, small, .better, .worse, figure svg")
    assert len(ratios) > 50
    assert min(ratios) >= 4.5


def test_pictures_are_described_and_heads_are_in_order(page: Page) -> None:
    for picture in page.locator("[role=img]").all():
        assert picture.get_attribute("aria-label")
    assert page.locator("h1").count() == 1
    names = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((head) => head.tagName)")
    assert all(int(after[1]) - int(before[1]) <= 1 for before, after in pairwise(names))


def test_on_paper_the_menu_is_gone_and_every_pair_is_there(page: Page) -> None:
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.locator(".filter").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.tall')).maxHeight") == "none"
    folded = page.locator("details > :not(summary)").all()
    num_open = sum(part.evaluate("(part) => part.checkVisibility({contentVisibilityAuto: true})") for part in folded)
    assert num_open == page.locator("details").count()
    assert len(page.pdf()) > 10_000


def test_without_scripts_everything_is_said(browser: Browser, page_file: Path) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(page_file.as_uri())
        assert page.locator("#worst tbody tr").count() > 5
        assert not page.locator(".filter").is_visible()
