"""The page in a real browser, against a real server."""

import base64
import re
import shutil
import sqlite3
import time

import pytest

pytest.importorskip("sqlalchemy", reason="labels need the extra lrl[labels]")
pytest.importorskip("starlette", reason="labels need the extra lrl[labels]")
pytest.importorskip("uvicorn", reason="labels need the extra lrl[labels]")
pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")

from label_server import label_server
from playwright.sync_api import expect, sync_playwright

from lrl_core.preferences.store import PreferenceStore

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
QUIET = ("gpu", "background-networking", "component-update", "sync", "extensions")
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAIAAAASFvFNAAAAEElEQVR4nGP4z8AARAxwFgAz5AX7qg5FcwAAAABJRU5ErkJggg=="
)
"""3 pixels wide, 2 high."""


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as play:
        arguments = ["--no-sandbox", "--no-first-run", *(f"--disable-{part}" for part in QUIET)]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page of a new visitor; what goes wrong in its script fails the test."""
    context = browser.new_context()
    context.set_default_timeout(15_000)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(error))
    page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
    yield page
    context.close()
    assert not wrong


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.db"


@pytest.fixture
def store(path):
    store = PreferenceStore(str(path))
    for i in range(5):
        store.ask(f"prompt {i}", [f"answer {i}{letter}" for letter in "abcd"])
    yield store
    store.close()


def wait_for(page, selector, text):
    expect(page.locator(selector)).to_contain_text(text, timeout=15_000)
    expect(page.locator(selector)).to_be_visible(timeout=15_000)


def texts(page):
    return page.locator(".candidate .text").all_inner_texts()


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def test_a_session_by_keys_alone(page, path, store):
    with label_server("--store", path, "--who", "ann") as server:
        page.goto(server.url)
        wait_for(page, "#prompt", "prompt 0")
        shown = texts(page)
        assert sorted(shown) == [f"answer 0{letter}" for letter in "abcd"]
        page.reload()
        wait_for(page, "#prompt", "prompt 0")
        assert texts(page) == shown  # the order stays
        assert not page.locator("#undo").is_enabled()

        press(page, "3")
        wait_for(page, "#prompt", "prompt 1")
        (first,) = store.judgments()
        assert store.question(1).candidates[first.ranks.index(0)] == shown[2]
        assert sorted(first.ranks) == [0, 1, 1, 1]
        assert first.who == "ann"
        assert 0 < first.seconds < 30
        wait_for(page, "#said", "Saved: answer 3.")
        wait_for(page, "#count", "1 judged · 4 open")

        shown = texts(page)
        press(page, "t", "1", "2", "4", "2", "Enter")  # 2 is chosen and let go again
        wait_for(page, "#prompt", "prompt 2")
        wait_for(page, "#said", "1, 4 are equally best")
        best = {
            text
            for text, rank in zip(store.question(2).candidates, store.judgments()[1].ranks, strict=True)
            if not rank
        }
        assert best == {shown[0], shown[3]}

        press(page, "s")
        wait_for(page, "#prompt", "prompt 3")
        assert store.judgments()[2].ranks is None
        wait_for(page, "#count", "2 judged · 1 skipped · 2 open")

        press(page, "u")
        wait_for(page, "#prompt", "prompt 2")
        assert store.judgments()[2].withdrawn
        page.reload()  # what was taken back is still the first to be asked
        wait_for(page, "#prompt", "prompt 2")
        press(page, "u")
        wait_for(page, "#prompt", "prompt 1")
        wait_for(page, "#count", "1 judged · 4 open")
        for i in (1, 2, 3, 4):
            wait_for(page, "#prompt", f"prompt {i}")
            press(page, "9", "1")  # there is no ninth
        wait_for(page, "#done-title", "All done")
        assert page.locator("#figures").inner_text().split("\n")[:4] == ["Judged", "5", "Skipped", "0"]
        assert [one.question for one in store.judgments() if not one.withdrawn] == [1, 2, 3, 4, 5]

        store.ask("a training asks", ["x", "y"])
        wait_for(page, "#prompt", "a training asks")


def until(page, expression, seconds=20):
    """Look again and again from outside: the page's own rules forbid it to evaluate text."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"never true: {expression}"
        page.wait_for_timeout(50)


def test_by_mouse_with_a_picture_for_two_people(page, path):
    store = PreferenceStore(str(path))
    store.ask("what is it?", ["<b>bold</b> & \n new", "", "b"], picture=PNG)
    with label_server("--store", path, "--who", "ann") as server:
        page.goto(server.url)
        wait_for(page, "#prompt", "what is it?")
        until(page, "document.getElementById('picture').naturalWidth === 3")
        assert sorted(texts(page)) == ["(says nothing)", "<b>bold</b> & \n new", "b"]  # words, no mark-up
        page.locator(".candidate", has_text="bold").click()
        wait_for(page, "#done-title", "All done")
        page.fill("#who", "bob")
        page.press("#who", "Enter")
        wait_for(page, "#prompt", "what is it?")
        page.click("#tie")
        page.locator(".candidate", has_text="nothing").click()
        page.locator(".candidate", has_text="bold").click()
        assert page.locator(".candidate[aria-pressed=true]").count() == 2
        page.click("#send")
        wait_for(page, "#agreement", "agree on 0 % of 1 question")
        page.reload()
        wait_for(page, "#done-title", "All done")
        assert page.input_value("#who") == "bob"
    assert [(one.who, one.ranks) for one in store.judgments()] == [("ann", (0, 1, 1)), ("bob", (0, 0, 1))]


def test_a_name_is_asked_for_and_a_token_lets_in(page, path, store):
    with label_server("--store", path, "--host", "0.0.0.0") as server:
        page.goto(f"http://127.0.0.1:{server.port}/?{server.url.partition('?')[2]}")
        wait_for(page, "#hello", "Who are you?")
        assert "token" not in page.url
        page.keyboard.type("zoe s")  # the field has the focus, and letters are no commands there
        press(page, "Enter")
        wait_for(page, "#prompt", "prompt 0")
        press(page, "2")
        wait_for(page, "#prompt", "prompt 1")
    assert [one.who for one in store.judgments()] == ["zoe s"]


def test_a_server_killed_in_the_middle_of_a_request(page, path, store):
    with label_server("--store", path, "--who", "ann") as server:
        page.goto(server.url)
        wait_for(page, "#prompt", "prompt 0")
        press(page, "1")
        wait_for(page, "#prompt", "prompt 1")
        lock = sqlite3.connect(path)
        lock.execute("BEGIN IMMEDIATE")  # the server waits for it with the judgment in its hands
        with page.expect_request("**/api/judgment"):
            press(page, "2")
        page.wait_for_timeout(300)
        server.kill()
        lock.rollback()
        lock.close()
        wait_for(page, "#trouble", "kept here")
        assert store.version() == 1
        server.start(server.port)
        wait_for(page, "#prompt", "prompt 2")
        assert page.locator("#trouble").is_hidden()
        assert [one.question for one in store.judgments()] == [1, 2]

        server.kill()  # and once more, and the page is closed and opened again in the meantime
        press(page, "3")
        wait_for(page, "#trouble", "kept here")
        server.start(server.port)
        page.goto(server.url)
        wait_for(page, "#prompt", "prompt 3")
        assert [one.question for one in store.judgments()] == [1, 2, 3]
        until(page, "localStorage.length === 0")


def test_an_answer_that_never_arrived_is_sent_again_and_not_doubled(page, path, store):
    lost = []

    def lose_the_first(route):
        if not lost:
            lost.append(route.fetch().status)  # the server has it
            route.abort()
        else:
            route.continue_()

    with label_server("--store", path, "--who", "ann") as server:
        page.route("**/api/judgment", lose_the_first)
        page.goto(server.url)
        wait_for(page, "#prompt", "prompt 0")
        press(page, "1")
        wait_for(page, "#prompt", "prompt 1")
    assert lost == [200]
    assert [one.question for one in store.judgments()] == [1]


def test_what_the_server_refuses_is_said_and_the_page_goes_on(page, path, store):
    with label_server("--store", path, "--who", "ann") as server:
        page.goto(server.url)
        wait_for(page, "#prompt", "prompt 0")
        store.judge(1, [0, 1, 1, 1], who="ann")  # on another page of hers
        press(page, "1")
        wait_for(page, "#trouble", "second judgment of question 1")
        wait_for(page, "#prompt", "prompt 1")
        press(page, "1")
        wait_for(page, "#prompt", "prompt 2")
        assert page.locator("#trouble").is_hidden()
    assert [one.question for one in store.judgments()] == [1, 2]


def test_narrow_screens_and_dark_ones_can_be_read(page, path, store):
    for text in ("x" * 300, "more"):
        store.ask(text, ["y" * 300, "z z " * 50])
    with label_server("--store", path, "--who", "ann") as server:
        page.set_viewport_size({"width": 360, "height": 640})
        page.goto(server.url)
        for i in range(5):
            wait_for(page, "#prompt", f"prompt {i}")
            press(page, "1")
        wait_for(page, "#prompt", "xxx")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        grounds = set()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            for selector in ("#prompt", ".hint", ".candidate .text", ".candidate .key", "#skip", ".count"):
                assert contrast(page, selector) >= 4.5, (scheme, selector)
        assert len(grounds) == 2
        press(page, "Tab")
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def contrast(page, selector):
    """Of a text and what it stands on (WCAG 2, section 1.4.3)."""
    script = """(name) => {
        let element = document.querySelector(name), ground;
        const colour = getComputedStyle(element).color;
        for (; element; element = element.parentElement) {
            ground = getComputedStyle(element).backgroundColor;
            if (ground !== "rgba(0, 0, 0, 0)") break;
        }
        return [colour, ground];
    }"""
    light, dark = sorted((luminance(colour) for colour in page.evaluate(script, selector)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour):
    shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
