"""The app works in a real Chromium, where AppTest cannot look. Skipped without a browser.

Needs Debian's `chromium` (or another Chrome; CHROMIUM names its program) and Python's playwright.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import os
import shutil
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest
from app_site import APP, BLUE, GREY, RED, image_bytes, make_colour_model

from real_vs_ai.models.runs import make_default

sync_api = pytest.importorskip("playwright.sync_api")
axe_module = pytest.importorskip("axe_playwright_python.sync_playwright")

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 1000}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The app's server as a user starts it: `python App.py`."""
    folder = tmp_path_factory.mktemp("browser")
    make_colour_model(folder / "models" / "three", class_names=("malignant", "benign", "normal"))
    make_colour_model(
        folder / "models" / "colour", calibrated=True, lower_threshold=0.3, upper_threshold=0.7
    )
    make_default(folder / "models" / "colour", models_dir=folder / "models")
    with app_server(folder) as (_, address):
        yield address


@contextlib.contextmanager
def app_server(folder: Path) -> Iterator[tuple[Popen, str]]:
    """The app's server, started in this folder, and its address; it ends with the block."""
    port = free_port()
    with (folder / "server.log").open("w") as log:
        server = Popen(
            [sys.executable, str(APP), "--port", str(port)], cwd=folder, stdout=log, stderr=log
        )
        try:
            wait_until_healthy(f"http://localhost:{port}/_stcore/health", server)
            yield server, f"http://localhost:{port}/"
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def desktop(browser):
    """A browser context that may paste; its pages share what they have loaded and compiled."""
    permissions = ["clipboard-read", "clipboard-write"]
    return browser.new_context(viewport=DESKTOP, permissions=permissions)


@pytest.fixture
def asked() -> list[str]:
    """The addresses that the test's pages ask for."""
    return []


@pytest.fixture
def open_page(browser, desktop, address, asked):
    """Open the app's first page; keyword arguments are those of a browser context of its own."""
    opened = []

    def open_it(**options):
        context = browser.new_context(**{"viewport": DESKTOP, **options}) if options else desktop
        page = context.new_page()
        opened.append(context if options else page)
        page.on("request", lambda request: asked.append(request.url))
        page.set_default_timeout(300_000)
        page.goto(address)
        page.get_by_test_id("stFileUploader").wait_for()
        # The page's own script runs last.
        page.locator("#answer-region").wait_for(state="attached")
        return page

    yield open_it
    for context_or_page in opened:
        context_or_page.close()


@pytest.fixture
def pictures(tmp_path) -> dict[str, Path]:
    """Files to upload, by what they should be taken for."""
    paths = {}
    for name, colour in (("fake", RED), ("real", BLUE), ("uncertain", GREY)):
        paths[name] = tmp_path / f"{name}.png"
        paths[name].write_bytes(image_bytes(colour, size=(400, 300)))
    paths["broken"] = tmp_path / "broken.png"
    paths["broken"].write_bytes(b"no image")
    return paths


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_healthy(url: str, server: Popen) -> None:
    for _ in range(600):
        assert server.poll() is None, "the server ended at once"
        try:
            if urllib.request.urlopen(url, timeout=5).read() == b"ok":
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the server did not answer")


# Whenever it is there, until it holds: it does nothing while no picture waits, and a press is lost
# while the page is being drawn.
PRESS_STOP = """() => {
    let pressed = 0;
    const timer = setInterval(() => {
        const buttons = [...document.querySelectorAll("[data-testid=stButton] button")];
        const named = words => buttons.find(button => button.innerText.includes(words));
        const stop = named("Stop");
        if (named("Check the rest")) clearInterval(timer);
        // Each press draws the page anew: pressed ten times a second, a slow one is never done.
        else if (stop && Date.now() - pressed > 1_000) {
            pressed = Date.now();
            stop.click();
        }
    }, 100);
}"""


def upload(page, *paths: Path) -> None:
    page.set_input_files("input[type=file]", [str(path) for path in paths])


def heading(page, words: str, *, level: int = 2):
    """The conclusion with exactly these words; the page's title is a heading too, of level 1."""
    return page.get_by_role("heading", name=words, exact=True, level=level)


def accessibility_faults(page) -> list[str]:
    """What axe-core finds of any weight but the least, as "rule: element"."""
    page.wait_for_timeout(600)
    # A chart has a text of its own; the marks that Vega draws inside, for the pointer, have none.
    context = {"exclude": [["[data-testid=stVegaLiteChart] svg"]]}
    found = axe_module.Axe().run(page, context).response["violations"]
    return [
        f"{fault['id']}: {node['html'][:160]}"
        for fault in found
        if fault["impact"] != "minor"
        for node in fault["nodes"]
    ]


def test_an_upload_is_judged_explained_and_handed_out_without_a_look_elsewhere(
    open_page, pictures, tmp_path, asked, address
):
    page = open_page()
    upload(page, pictures["fake"])
    heading(page, "Looks AI-generated").wait_for()
    page.get_by_role("tab", name="Do changes hide it?").click()
    page.get_by_text("same answer on").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Table (CSV)").click()
    download.value.save_as(tmp_path / "verdicts.csv")
    with (tmp_path / "verdicts.csv").open(encoding="utf-8-sig") as file:
        assert [(row["path"], row["label"]) for row in csv.DictReader(file)] == [
            ("fake.png", "Fake")
        ]
    with page.expect_download() as download:
        page.get_by_role("button", name="Report (PDF)").click()
    assert download.value.suggested_filename.endswith(".pdf")
    assert Path(download.value.path()).read_bytes().startswith(b"%PDF-")
    assert asked and all(url.startswith((address, "data:", "blob:")) for url in asked)


def test_cards_open_a_dialog_that_says_why(open_page, pictures):
    page = open_page()
    upload(page, *pictures.values())
    page.get_by_text("Not an image in a format").wait_for()
    for words in ("Looks AI-generated", "No sign of AI found", "We can't tell"):
        assert heading(page, words).is_visible()
    page.get_by_role("button", name="Why, and what now?").nth(1).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("img", name="The uploaded image real.png").wait_for()
    dialog.get_by_text("More, and where to search for it").click()
    search = dialog.get_by_role("link", name="TinEye")
    assert search.get_attribute("href") == "https://tineye.com/"
    assert search.get_attribute("target") == "_blank"
    dialog.get_by_role("tab", name="Do changes hide it?").click()
    dialog.get_by_text("same answer on").wait_for()
    # A key is lost while the dialog is being drawn.
    for _ in range(60):
        if dialog.count():
            page.keyboard.press("Escape")
            page.wait_for_timeout(500)
    assert dialog.count() == 0


def test_strips_and_dots_are_seen_on_their_cards(open_page, tmp_path):
    sizes = [(20_000, 10), (10, 20_000), (500, 1), (1, 1)]
    paths = [tmp_path / f"{width}x{height}.png" for width, height in sizes]
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(image_bytes(RED, size=size))
    page = open_page()
    upload(page, *paths)
    for path in paths:
        picture = page.get_by_role("img", name=f"The uploaded image {path.name}")
        picture.wait_for()
        box = picture.bounding_box()
        assert min(box["width"], box["height"]) >= 4, path.name
    assert page.get_by_role("button", name="Why, and what now?").count() == len(paths)


def test_stop_ends_a_long_batch_and_the_rest_can_follow(open_page, tmp_path):
    # So large that they arrive faster than they are decoded, each in a fifth of a second or more.
    encoded = image_bytes(RED, size=(4700, 4700))
    paths = [tmp_path / f"{number}.png" for number in range(14)]
    for number, path in enumerate(paths):
        path.write_bytes(encoded + bytes([number]))
    page = open_page()
    page.evaluate(PRESS_STOP)
    upload(page, *paths)
    page.get_by_text("of 14 pictures were checked").wait_for()
    page.get_by_role("button", name="Check the rest").click()
    page.get_by_role("button", name="14 Looks AI-generated").wait_for()


def copy(page, kind: str, encoded: str) -> None:
    """Put something into the clipboard, as a user's copying does."""
    page.evaluate(
        """async ([kind, encoded]) => {
            const blob = await (await fetch(`data:${kind};base64,${encoded}`)).blob();
            await navigator.clipboard.write([new ClipboardItem({[kind]: blob})]);
        }""",
        [kind, encoded],
    )


def test_address_that_is_pasted_is_not_fetched_and_a_picture_is_told_what_pasting_drops(open_page):
    page = open_page()
    copy(page, "text/plain", base64.b64encode(b"https://example.com/a.jpg").decode())
    page.keyboard.press("Control+V")
    page.get_by_text("Nothing is fetched from the web").wait_for()
    copy(page, "image/png", base64.b64encode(image_bytes(RED)).decode())
    page.keyboard.press("Control+V")
    heading(page, "Looks AI-generated").wait_for()
    page.get_by_text("Pasting drops the labels").wait_for()


def test_navigation_and_answer_show_the_focus_and_the_answer_takes_the_place_of_the_drop_zone(
    open_page, pictures
):
    page = open_page()
    link = page.get_by_role("link", name="Models")
    for _ in range(6):
        page.keyboard.press("Tab")
        if link.evaluate("link => link === document.activeElement"):
            break
    assert link.evaluate("link => getComputedStyle(link).outlineWidth") == "3px"
    zone = page.get_by_test_id("stFileUploaderDropzone")
    large = zone.bounding_box()
    assert large["height"] >= 300 and large["width"] >= 1000
    upload(page, pictures["fake"])
    heading(page, "Looks AI-generated").wait_for()
    page.wait_for_function("document.activeElement.matches('h2')")
    assert "Looks AI-generated" in page.evaluate("document.activeElement.innerText")
    region = page.locator("#answer-region[role=status]")
    assert region.inner_text().startswith("Looks AI-generated. To the model")
    assert zone.bounding_box()["height"] < 120
    picture = page.get_by_role("img", name="The uploaded image fake.png").bounding_box()
    assert picture["width"] >= 450
    remove = page.get_by_role("button", name="Remove fake.png").bounding_box()
    assert min(remove["width"], remove["height"]) >= 24


def test_images_outlast_a_visit_to_the_other_page(open_page, pictures):
    page = open_page()
    upload(page, pictures["fake"])
    heading(page, "Looks AI-generated").wait_for()
    whole = page.locator("[data-test-script-state=notRunning]")
    for _ in range(2):
        # A click may be lost while the page is being drawn.
        whole.wait_for()
        page.get_by_role("link", name="Models").click()
        page.get_by_text("How good it is").wait_for()
        page.get_by_test_id("stFileUploader").wait_for(state="detached")
        whole.wait_for()
        page.get_by_role("link", name="Check pictures").click()
        # The picture is in the uploader if that was kept, else below it as one uploaded earlier.
        heading(page, "Looks AI-generated").wait_for()
    upload(page, pictures["real"])
    heading(page, "No sign of AI found").wait_for()
    assert heading(page, "Looks AI-generated").is_visible()
    page.get_by_role("button", name="Clear all").click()
    page.get_by_text("Or paste a picture anywhere").wait_for()


def test_model_that_was_chosen_outlasts_a_visit_to_the_other_page(open_page):
    page = open_page()
    # A list that opens while the page is being drawn is closed again.
    page.locator("[data-test-script-state=notRunning]").wait_for()
    page.get_by_text("Advanced: the model").click()
    models = page.get_by_test_id("stExpander").get_by_role("combobox")
    models.click()
    page.get_by_role("option", name="three").click()
    heading(page, "Which class is this picture?", level=1).wait_for()
    page.get_by_role("link", name="Models").click()
    page.get_by_text("How good it is").wait_for()
    page.get_by_role("link", name="Check pictures").click()
    heading(page, "Which class is this picture?", level=1).wait_for()
    assert "model=three" in page.url


@pytest.mark.parametrize("locale", ["de-DE", "fr-FR"])
def test_button_for_files_is_named_in_the_visitors_language(open_page, locale):
    page = open_page(locale=locale)
    name = {"de-DE": "Dateien auswählen", "fr-FR": "Choisir des fichiers"}[locale]
    page.get_by_role("button", name=name).wait_for()
    assert "per file" not in page.get_by_test_id("stFileUploader").inner_text()


def test_everything_fits_a_phone(open_page, pictures):
    page = open_page(viewport=PHONE, is_mobile=True, has_touch=True)
    upload(page, pictures["fake"], pictures["real"])
    heading(page, "Looks AI-generated").wait_for()
    answer = heading(page, "Looks AI-generated").bounding_box()
    assert answer["y"] + answer["height"] <= PHONE["height"]
    assert answer["y"] < page.get_by_test_id("stFileUploader").bounding_box()["y"]
    width = page.evaluate("document.scrollingElement.scrollWidth")
    assert width <= PHONE["width"]
    picture = page.get_by_role("img", name="The uploaded image fake.png").bounding_box()
    assert picture["x"] >= 0 and picture["x"] + picture["width"] <= PHONE["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_fault_in_either_theme(open_page, pictures, scheme):
    page = open_page(color_scheme=scheme)
    assert accessibility_faults(page) == []
    upload(page, *pictures.values())
    heading(page, "We can't tell").wait_for()
    assert accessibility_faults(page) == []
    background = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    assert (sum(map(int, background[4:-1].split(",")[:3])) < 200) == (scheme == "dark")
    page.get_by_role("link", name="Models").click()
    page.get_by_text("How good it is").wait_for()
    assert accessibility_faults(page) == []
