"""The playground in a real browser against a real server: what it shows is what the models give, and nobody else is
asked."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from embedsmith.model.embedder import Embedder
from embedsmith.model.shown_tokens import show_tokens
from embedsmith.serving.limits import Limits
from embedsmith.serving.served_model import serve_model, serve_with_base
from tests.serving.running import Running, running
from tests.tiny import TEXTS
from tests.tuned import save_tuned

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'embedsmith[dev]'")
Browser, Locator, Page, expect = playwright.Browser, playwright.Locator, playwright.Page, playwright.expect

BROWSER = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="needs chromium: apt-get install chromium"),
]
OWN = ["a cat sleeps", "an animal is asleep", "rain falls", "two old men play chess"]
FILE = [f"w{number} {TEXTS[number % len(TEXTS)]}" for number in range(70)]
VIEWS = ("similarity", "neighbours", "map", "tokens")
HOSTILE = '<img src=x onerror="document.title = 1"><script>document.title = 2</script>'
PATIENCE_MS = 60_000  # the machine may have other work


@pytest.fixture(scope="module")
def tuned(model_folders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder = tmp_path_factory.mktemp("run")
    return save_tuned(
        model_folders["llama"], folder, prompt="the {text} roof", pooling="mean", query_prompt="w1 {text}"
    )


@pytest.fixture(scope="module")
def served(tuned: Embedder) -> Iterator[Running]:
    with running(*serve_with_base(tuned, name="mine")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, served: Running) -> Iterator[Page]:
    """The page with its first example computed; a complaint, or a request to anybody else, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    complaints: list[str] = []
    asked: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(served.url)
    expect(opened.locator("#matrices td.on")).to_have_count(2)
    yield opened
    assert complaints == []
    assert {url.startswith(f"{served.url}/") for url in asked} == {True}
    context.close()


def _write(page: Page, texts: Sequence[str]) -> None:
    page.locator("#texts").fill("\n".join(texts))
    expect(page.locator("#count")).to_have_text(f"{len(texts)} texts")
    expect(page.locator("#result")).not_to_have_attribute("aria-busy", "true")


def _open(page: Page, view: str) -> None:
    page.locator(f"#tab-{view}").click()
    expect(page.locator("#result")).not_to_have_attribute("aria-busy", "true")


def _encode(tuned: Embedder, texts: Sequence[str], **asked: str) -> dict[str, np.ndarray]:
    """Of each side, as its figure is called."""
    with tuned.without_adapter():
        base = tuned.encode(texts, **asked)
    return {"mine:base": base, "mine": tuned.encode(texts, **asked)}


def _figures(page: Page, place: str) -> dict[str, Locator]:
    found = page.locator(f"{place} figure").all()
    return {figure.locator("figcaption strong").inner_text(): figure for figure in found}


# ---- what is shown --------------------------------------------------------------------------------------------------


def test_the_matrices_are_the_cosines_of_encode(page: Page, tuned: Embedder) -> None:
    page.locator("#texts").fill("")
    page.locator("#texts").press_sequentially("\n".join(OWN))  # by keyboard, with pauses or without
    expect(page.locator("#matrices tbody tr")).to_have_count(2 * len(OWN))
    expect(page.locator("#gutter")).to_have_text("1\n2\n3\n4")
    rows = _encode(tuned, OWN)
    figures = _figures(page, "#matrices")
    assert list(figures) == list(rows)
    for name, figure in figures.items():
        cosines = rows[name] @ rows[name].T
        cells = figure.locator("tbody td")
        values = cells.evaluate_all("(cells) => cells.map((cell) => Number(cell.dataset.value))")
        np.testing.assert_allclose(np.reshape(values, cosines.shape), cosines, atol=2e-6)
        shown = [_number(text) for text in cells.all_inner_texts()]
        np.testing.assert_allclose(shown, cosines.ravel(), atol=0.0051)
    pair = page.locator("#matrices tbody td").nth(2)
    pair.hover()
    said = page.locator("#similarity-readout").inner_text()
    first, second = (float(rows[name][0] @ rows[name][2]) for name in rows)
    for part in (OWN[0], OWN[2], f"{first:.4f}", f"{second:.4f}", f"{abs(second - first):.2f}"):
        assert part.replace("-", "−") in said


def _number(text: str) -> float:
    return float(text.replace("−", "-"))


def test_examples_are_there_with_one_click(page: Page) -> None:
    for button in page.locator("#examples button").all():
        button.click()
        lines = page.locator("#texts").input_value().split("\n")
        expect(page.locator("#matrices tbody tr")).to_have_count(2 * len(lines))
        assert len(lines) >= 6


def test_many_texts_are_cut_off_with_a_word(page: Page) -> None:
    _write(page, [f"w{number}" for number in range(50)])
    expect(page.locator("#matrices tbody tr")).to_have_count(2 * 40)
    expect(page.locator("#notice")).to_have_text("The matrix shows the first 40 of 50 texts.")
    _write(page, ["cat " * 60, "rain"])
    expect(page.locator("#notice")).to_contain_text("mine cuts texts at 40 tokens: up to 1 of these.")


def test_no_texts(page: Page) -> None:
    _write(page, ["rain"] * 2)
    page.locator("#texts").fill(" \n ")
    expect(page.locator("#count")).to_have_text("0 texts")
    for view in VIEWS:
        _open(page, view)
    expect(page.locator("#alert")).to_be_hidden()
    assert page.locator("#maps").inner_text() == "Three texts or more make a map."


def test_the_map_is_the_plane_of_the_largest_variance(page: Page, tuned: Embedder) -> None:
    _write(page, TEXTS)
    _open(page, "map")
    expect(page.locator(".map g")).to_have_count(2 * len(TEXTS))
    for name, figure in _figures(page, "#maps").items():
        rows = _encode(tuned, TEXTS)[name].astype(np.float64)
        centred = rows - rows.mean(axis=0)
        _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
        expected = centred @ axes[:2].T
        marks = figure.locator("g")
        numbers = [int(text) for text in marks.locator("text").all_text_contents()]
        places = np.array([_place(mark) for mark in marks.all()])[np.argsort(numbers)] * [1, -1]
        signs = np.sign((places * expected).sum(axis=0))
        np.testing.assert_allclose(places / np.abs(places).max(), signs * expected / np.abs(expected).max(), atol=2e-3)
        share = (lengths[:2] ** 2).sum() / (lengths**2).sum()
        assert f"{100 * share:.0f} % of the spread" in figure.inner_text()
    mark = page.locator("#maps figure").last.locator("g", has_text="4")
    mark.hover()
    expect(page.locator("#map-readout strong")).to_have_text(f"4. {TEXTS[3]}")
    page.locator("#maps svg").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#map-readout strong")).to_have_text(f"5. {TEXTS[4]}")


def _place(mark: Locator) -> list[float]:
    return [float(value) for value in mark.get_attribute("transform")[len("translate(") : -1].split()]


def test_tokens_are_those_of_the_model(page: Page, tuned: Embedder) -> None:
    _write(page, OWN)
    _open(page, "tokens")
    page.locator("#token-text").select_option(label=f"2. {OWN[1]}")
    (shown,) = show_tokens(tuned, [OWN[1]])
    expect(page.locator("#token-sides figure")).to_have_count(1)  # both models cut it alike
    chips = page.locator(".tokens li")
    expect(chips).to_have_count(len(shown.tokens))
    for chip, token in zip(chips.all(), shown.tokens, strict=True):
        title = chip.get_attribute("title")
        assert title.startswith(f"{token.token}, id {token.id}: ")
        assert title.endswith(", pooled") is token.is_pooled
        assert ("of the prompt" in title) is (token.role == "prompt")
    assert "4 of the text, 2 of the prompt, 1 start token, 1 end token" in page.locator("#token-sides").inner_text()


# ---- files ----------------------------------------------------------------------------------------------------------


def _upload(page: Page, path: Path, text: str | bytes) -> None:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    page.locator("#file").set_input_files(path)


def _found(page: Page) -> dict[str, list[str]]:
    return {name: figure.locator(".found").all_inner_texts() for name, figure in _figures(page, "#lists").items()}


def test_neighbours_in_a_list(page: Page, tuned: Embedder, tmp_path: Path) -> None:
    _open(page, "neighbours")
    _upload(page, tmp_path / "list.txt", "\n".join([*FILE[:40], "", *FILE[40:], FILE[0]]))
    expect(page.locator("#file-count")).to_have_text("70 texts, 1 repeated")
    page.locator("#query").fill("the cat runs")
    expect(page.locator("#lists .hint").last).to_have_text("of 70")
    expect(page.locator("#progress")).to_be_hidden()
    documents, queries = _encode(tuned, FILE), _encode(tuned, ["the cat runs"], side="query")
    expect(page.locator("#lists")).to_contain_text(FILE[int((documents["mine"] @ queries["mine"][0]).argmax())])
    for name, found in _found(page).items():
        cosines = documents[name] @ queries[name][0]
        shown = [FILE.index(text) for text in found]
        np.testing.assert_allclose(cosines[shown], np.sort(cosines)[::-1][:10], atol=2e-6)
    _open(page, "map")
    page.locator("input[value=file]").check()
    expect(page.locator(".map svg > circle")).to_have_count(2 * len(FILE))


def test_neighbours_in_a_column_of_a_table(page: Page, tmp_path: Path) -> None:
    _open(page, "neighbours")
    table = 'id;text\n1;"a cat; ""asleep"""\n2;"rain\nfalls"\n3;\n4;chess\n'
    _upload(page, tmp_path / "table.csv", table)
    expect(page.locator("#column option")).to_have_text(["id", "text"])
    expect(page.locator("#file-count")).to_have_text("3 texts")
    expect(page.locator("#lists .found")).to_have_count(6)
    assert set(_found(page)["mine"]) == {'a cat; "asleep"', "rain falls", "chess"}
    page.locator("#column").select_option("id")
    expect(page.locator("#file-count")).to_have_text("4 texts")
    page.locator("#has-header").uncheck()
    expect(page.locator("#file-count")).to_have_text("5 texts")
    page.locator("#file-remove").click()
    expect(page.locator("#drop")).to_be_visible()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("latin.txt", b"caf\xe9", "is not text in UTF-8"),
        ("empty.txt", b"\n \n", "holds no text"),
        ("picture.txt", b"\x00\x01", "is not a text file"),
        ("open.csv", b'a,b\n1,"2', "A quote is opened in row 2 and never closed"),
    ],
)
def test_a_file_that_cannot_be_read_is_said(page: Page, tmp_path: Path, name: str, content: bytes, said: str) -> None:
    _open(page, "neighbours")
    _upload(page, tmp_path / name, content)
    expect(page.locator("#alert")).to_contain_text(said)
    expect(page.locator("#drop")).to_be_visible()


# ---- links, keys, other things --------------------------------------------------------------------------------------


def test_a_link_brings_everything_back(page: Page, served: Running) -> None:
    texts = [*OWN, "ünïcödé & # % + 你好", HOSTILE]
    _write(page, texts)
    page.locator("#left").select_option("mine")
    page.locator("#right").select_option("mine:base")
    _open(page, "tokens")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#share").click()
    expect(page.locator("#share")).to_have_text("Copied")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link.startswith(f"{served.url}/#")
    other = page.context.new_page()
    asked: list[str] = []
    other.on("request", lambda request: asked.append(request.url))
    other.goto(link)
    expect(other.locator(".tokens li").first).to_be_visible()
    assert other.locator("#texts").input_value() == "\n".join(texts)
    assert [other.locator(side).input_value() for side in ("#left", "#right")] == ["mine", "mine:base"]
    assert not any("cat" in url for url in asked)
    other.goto(f"{served.url}/#texts=rain&left=gone&right=mine")  # the same page: only what is behind # changes
    expect(other.locator("#count")).to_have_text("1 text")
    expect(other.locator("#notice")).to_contain_text("gone, which is not served here")


def test_texts_too_long_for_a_link(page: Page) -> None:
    page.locator("#texts").fill("cat " * 8000)
    page.locator("#share").click()
    expect(page.locator("#alert")).to_contain_text("32,000 characters; a link holds 30,000")


def test_texts_are_never_markup(page: Page, tmp_path: Path) -> None:
    title = page.title()
    _write(page, [HOSTILE, "rain", "chess", "cat"])
    _upload(page, tmp_path / f"{'<b>'}.txt", "\n".join([HOSTILE, *OWN]))
    for view in VIEWS:
        _open(page, view)
        assert page.locator("main img, main script, main b").count() == 0, view
    assert page.title() == title


def test_a_server_with_a_key(browser: Browser, tuned: Embedder) -> None:
    with running(*serve_with_base(tuned, name="mine"), api_key="s3cret") as server:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(server.url)
        for key, said in (("wrong", "not the server's key"), ("s3cret", "")):
            expect(page.locator("#key-dialog")).to_be_visible()
            page.locator("#key").fill(key)
            page.keyboard.press("Enter")
            if said:
                expect(page.locator("#key-message")).to_contain_text(said)
        expect(page.locator("#matrices td.on")).to_have_count(2)
        page.reload()
        expect(page.locator("#matrices td.on")).to_have_count(2)
        assert page.evaluate("[sessionStorage.key, localStorage.key].length") == 2
        assert page.evaluate("Object.values(localStorage).includes('s3cret')") is False
        page.locator("#forget").click()
        expect(page.locator("#key-dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#alert")).to_contain_text("without its key")
        page.close()


def test_a_server_that_takes_little_at_a_time(browser: Browser, tuned: Embedder, tmp_path: Path) -> None:
    """Batches are halved until they are taken."""
    with running(*serve_with_base(tuned, name="mine"), limits=Limits(max_items=3)) as server:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(server.url)
        expect(page.locator("#matrices tbody tr")).to_have_count(16)
        assert page.locator("#alert").is_hidden()
        page.close()


def test_a_server_that_is_gone(browser: Browser, served: Running) -> None:
    """What is wrong stays there until it is tried again, and a file goes on where it stopped."""
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(served.url)
    expect(page.locator("#matrices td.on")).to_have_count(2)
    page.context.set_offline(True)
    page.locator("#texts").fill("w1\nw2\nw3")
    expect(page.locator("#alert")).to_contain_text("The server cannot be reached")
    page.context.set_offline(False)
    page.locator("#alert button").click()
    expect(page.locator("#matrices tbody tr")).to_have_count(6)
    expect(page.locator("#alert")).to_be_hidden()
    page.locator("#query").evaluate("(query) => (query.value = 'rain')")
    _open(page, "neighbours")
    page.context.set_offline(True)
    page.locator("#corpus").click()
    expect(page.locator("#stop")).to_have_text("Go on")
    expect(page.locator("#alert")).to_be_visible()
    page.context.set_offline(False)
    page.locator("#stop").click()
    expect(page.locator("#lists li")).to_have_count(20)
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("#alert")).to_be_hidden()
    page.close()


def test_one_model_alone(browser: Browser, llama: Embedder) -> None:
    with running(llama) as server:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(server.url)
        expect(page.locator("#matrices figure")).to_have_count(1)
        expect(page.locator("#notice")).to_contain_text("embedsmith serve tuned=")
        assert page.locator("#left").is_hidden()
        for view in VIEWS:
            _open(page, view)
        assert page.locator("#alert").is_hidden()
        page.close()


def test_a_model_called_base_is_the_base(browser: Browser, tuned: Embedder, llama: Embedder) -> None:
    with running(*serve_with_base(tuned, name="tuned"), serve_model(llama, name="base")) as server:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(server.url)
        expect(page.locator("#matrices figcaption strong")).to_have_text(["base", "tuned"])
        assert page.locator("#left option").all_inner_texts() == ["tuned", "tuned:base", "base"]
        page.close()


# ---- how it looks, and without a mouse ------------------------------------------------------------------------------

CONTRASTS = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const light = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const parts = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => value / 255);
    const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
  };
  const ratio = (element) => {
    const [ink, under] = [light(getComputedStyle(element).color), light(ground(element))];
    return (Math.max(ink, under) + 0.05) / (Math.min(ink, under) + 0.05);
  };
  const cell = document.querySelector("#matrices tbody td:not(.self)");
  const cells = Array.from({length: 101}, (_, step) => {
    cell.style.setProperty("--share", step / 100);
    return {ratio: ratio(cell), light: light(getComputedStyle(cell).backgroundColor)};
  });
  const others = [...document.querySelectorAll("h1, h2, h3, p, label, button, select, th, .hint, kbd, textarea")];
  return {cells, others: others.filter((one) => one.checkVisibility()).map(ratio)};
}"""
"""Contrast ratios as WCAG 2 defines them, of a cell at every value and of other letters."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out_and_colours_rise_evenly(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "light" else "light")
    theme = page.locator("#theme")  # the switch is stronger than the system
    while theme.locator("span").inner_text() != scheme:
        theme.click()
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    page.reload()
    expect(page.locator("#matrices td.on")).to_have_count(2)
    found = page.evaluate(CONTRASTS)
    assert min(cell["ratio"] for cell in found["cells"]) >= 4.5
    assert len(found["others"]) > 30
    assert min(found["others"]) >= 4.5
    steps = np.diff([np.cbrt(cell["light"]) for cell in found["cells"]]) * (1 if scheme == "dark" else -1)
    assert steps.min() > 0
    assert steps.max() < 3 * steps.mean()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_sticks_out(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    _write(page, [*OWN, "cat" * 100, "w1 " * 100])
    for view in VIEWS:
        _open(page, view)
        assert page.evaluate("document.documentElement.scrollWidth") == width, view


def test_everything_can_be_done_by_keyboard(page: Page) -> None:
    _write(page, OWN)
    page.keyboard.press("Escape")  # the texts have the focus
    for key, view in enumerate(VIEWS, start=1):
        page.keyboard.press(str(key))
        expect(page.locator(f"#{view}")).to_be_visible()
    page.locator("#tab-tokens").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-similarity")).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('#matrices table td')")
    before = page.locator("#similarity-readout").inner_text()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    assert page.locator("#similarity-readout").inner_text() != before
    assert OWN[3] in page.locator("#similarity-readout").inner_text()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("e")
    expect(page.locator("#texts")).to_be_focused()
    page.keyboard.press("2")  # while typing it is a letter
    expect(page.locator("#similarity")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    expect(page.locator("#matrices tbody tr")).to_have_count(12)
    page.locator("#single-keys").uncheck()
    page.keyboard.press("3")
    expect(page.locator("#similarity")).to_be_visible()


def test_every_control_is_reached_and_has_a_name(page: Page) -> None:
    reached = []
    page.locator("body").press("Tab")
    for _ in range(60):
        name = page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")
        if name in reached:
            break
        reached.append(name)
        page.keyboard.press("Tab")
    wanted = {"Skip to the result", "share", "theme", "texts", "left", "right", "swap", "tab-similarity", "stretch"}
    assert wanted <= set(reached)
    nameless = page.evaluate(
        "[...document.querySelectorAll('button, input, select, textarea')].filter((one) => !(one.textContent.trim()"
        " || one.labels?.length || one.getAttribute('aria-label'))).map((one) => one.id)"
    )
    assert nameless == []
