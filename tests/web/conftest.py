"""A real browser on pages of a real server; what the model writes is scripted (tests/e2e has the real one).

The browser is Debian's chromium (`apt install chromium`, which .ci/run does), or what AXION_CHROMIUM names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.fakes.fake_pool import FakePool
from tests.servers.conftest import LiveServer, eventually

CHROMIUM = os.environ.get("AXION_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Of the package, not the session: playwright's event loop would be in the way of asynchronous tests elsewhere."""
    yield from open_browser()


def open_browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no chromium; apt install chromium, or name one in AXION_CHROMIUM")
    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses to run as root otherwise
        with playwright.chromium.launch(executable_path=CHROMIUM, args=options) as browser:
            yield browser


@pytest.fixture(scope="package")
def web_server() -> Iterator[LiveServer]:
    server = LiveServer().start()
    yield server
    server.ask_to_stop()
    server.join()


@pytest.fixture
def server(web_server: LiveServer) -> Iterator[LiveServer]:
    web_server.reset()
    yield web_server
    eventually(lambda: web_server.pool.num_running == web_server.pool.num_leases == 0)


@pytest.fixture
def pool(server: LiveServer) -> FakePool:
    return server.pool


@pytest.fixture
def url(server: LiveServer) -> str:
    return server.urls["streaming"]


@pytest.fixture
def blank(browser: Browser, url: str) -> Iterator[Page]:
    """A page of a context of its own, not opened yet. Nothing may go wrong in it unseen."""
    with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
        page = context.new_page()
        page.set_default_timeout(5000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if "Content Security Policy" in m.text else None)
        yield page
        assert problems == []


@pytest.fixture
def page(blank: Page, url: str) -> Page:
    blank.goto(url)
    blank.wait_for_selector("#model option", state="attached")
    return blank


# ---- what people do


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def answer(page: Page, number: int = -1) -> Locator:
    """An answer that is complete."""
    found = page.locator(".answer[aria-busy=false]")
    return found.nth(number) if number >= 0 else found.last


def ask(page: Page, text: str) -> str:
    before = page.locator(".answer[aria-busy=false]").count()
    say(page, text)
    expect(page.locator(".answer[aria-busy=false]")).to_have_count(before + 1)
    return answer(page).locator(".prose").last.inner_text()
