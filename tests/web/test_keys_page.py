"""The page of a service that asks for a key: it says so, takes one, and keeps it no longer than it is told to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.servers.conftest import LiveServer
from tests.web.conftest import answer, say

KEY = "sk-0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def web_server() -> Iterator[LiveServer]:
    server = LiveServer(api_keys=KEY).start()
    yield server
    server.ask_to_stop()
    server.join()


@pytest.fixture
def page(blank: Page, url: str) -> Page:
    blank.goto(url)
    return blank


def enter(page: Page, key: str, *, is_kept: bool) -> None:
    page.get_by_role("button", name="Open settings").first.click()
    page.get_by_label("API key").fill(key)
    page.get_by_label("Remember it").set_checked(is_kept)
    page.get_by_role("button", name="Save").click()


def test_a_key_is_asked_for_and_taken(page: Page) -> None:
    banner = page.locator("#connection")
    expect(banner).to_contain_text("An API key is needed")
    enter(page, "sk-wrong-000000000000000000000000", is_kept=False)
    expect(banner).to_contain_text("Incorrect API key")
    enter(page, KEY, is_kept=False)
    expect(banner).to_be_hidden()
    say(page, "Hi")
    expect(answer(page).locator(".prose")).to_have_text("Hello world")


@pytest.mark.parametrize("is_kept", [False, True])
def test_how_long_it_is_kept(page: Page, url: str, is_kept: bool) -> None:
    enter(page, KEY, is_kept=is_kept)
    expect(page.locator("#connection")).to_be_hidden()
    page.reload()
    expect(page.locator("#model option").first).to_be_attached()  # this tab still has it
    another = page.context.new_page()
    another.goto(url)
    if is_kept:
        expect(another.locator("#model option").first).to_be_attached()
    else:
        expect(another.locator("#connection")).to_contain_text("An API key is needed")


def test_it_is_in_no_export_and_no_address(page: Page, browser: Browser) -> None:
    enter(page, KEY, is_kept=True)
    say(page, "Hi")
    expect(answer(page)).to_be_visible()
    with page.expect_download() as everything:
        page.get_by_role("button", name="Export all").click()
    assert KEY not in everything.value.path().read_text()
    assert KEY not in page.url
