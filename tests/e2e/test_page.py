"""The chat page with everything real: the browser, the service, the model."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

import httpx
import openai
import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.e2e.conftest import GEMMA, MODEL, ServeProcess, eventually
from tests.e2e.test_images import ask, data_url, messages
from tests.web.conftest import open_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    yield from open_browser()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.goto(url)
        expect(page.locator("#model option").first).to_be_attached()
        page.get_by_label("Model", exact=True).select_option(MODEL)
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("Max tokens").fill("40")
        page.get_by_label("Temperature").fill("0")
        page.get_by_role("button", name="Save").click()
        yield page


def say(page: Page, text: str) -> None:
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def done(page: Page, number: int = 1) -> str:
    expect(page.locator(".answer[aria-busy=false]")).to_have_count(number, timeout=30_000)
    return page.locator(".answer .prose").last.inner_text()


def test_a_chat(page: Page) -> None:
    say(page, "What is gravity?")
    first = done(page)
    assert len(first) > 40
    facts = page.locator(".answer .actions").inner_text()
    assert re.search(r"40 tokens · [\d.]+ tokens/s · first token [\d.]+ m?s", facts)
    assert "cut at the token limit" in facts
    say(page, "And what is light?")
    assert done(page, 2) != first
    page.get_by_role("button", name="Ask again").first.click()
    assert done(page) == first  # greedy: the same question, the same text
    expect(page.locator(".answer .versions")).to_contain_text("2 / 2")


def test_stop_frees_the_model_at_once(page: Page, url: str) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Max tokens").fill("4000")
    page.get_by_role("button", name="Save").click()
    say(page, "Write a very long story about a journey around the world.")
    expect(page.locator(".answer .prose")).not_to_be_empty()
    expect(page.locator(".progress")).to_contain_text("tokens/s")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".answer")).to_contain_text("stopped")
    eventually(lambda: httpx.get(f"{url}/health").json()["requests"] == 0, seconds=2)


def test_a_picture_is_seen(browser: Browser, seeing: ServeProcess) -> None:
    """From the file dialog to the projector: the page's answers are those that the API gives to the same pictures."""
    with openai.OpenAI(base_url=f"{seeing.urls['standard']}/v1", api_key="none", timeout=60) as sdk:
        shown = {None: messages(), "red": messages("red"), "blue": messages("blue")}
        expected = {color: ask(sdk, asked).choices[0].message.content for color, asked in shown.items()}
    assert len(set(expected.values())) == 3
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.goto(seeing.urls["streaming"])
        page.get_by_label("Model", exact=True).select_option(GEMMA)
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("Max tokens").fill("8")
        page.get_by_label("Temperature").fill("0")
        page.get_by_role("button", name="Save").click()
        for color in expected:
            page.get_by_role("button", name="New chat").click()
            if color:
                page.locator("#file").set_input_files([picture(color)])
                expect(page.get_by_role("list", name="Images to send").get_by_role("listitem")).to_have_count(1)
            say(page, "What is this?")
            done(page)
            with page.expect_download() as export:
                page.get_by_role("button", name="Export", exact=True).click()
            text = export.value.path().read_text().partition(f"## {GEMMA}\n\n")[2]
            assert text.strip() == expected[color].strip()


def picture(color: str) -> FilePayload:
    data = base64.b64decode(data_url(color).partition(",")[2])
    return {"name": f"{color}.png", "mimeType": "image/png", "buffer": data}


def test_several_samples_of_the_real_model_agree_or_not(browser: Browser, service: ServeProcess) -> None:
    with browser.new_context() as context:  # without the settings above: at temperature 0 all samples are one
        page = context.new_page()
        page.goto(service.urls["consensus"])
        page.get_by_label("Model", exact=True).select_option("consensus/self")
        say(page, "Is the sky blue on a clear day? Answer with yes or no.")
        assert done(page)
        expect(page.locator(".consensus summary")).to_contain_text("samples of one model")
        assert page.locator(".expert").count() >= 2
        assert page.locator(".expert.is-chosen").count() <= 1  # none where an aggregator has written the answer
