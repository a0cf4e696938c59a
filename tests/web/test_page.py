"""The chat page used as people use it: what they see, and what reaches the server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from axion_llm import errors
from axion_llm.pool.interface import ModelStatus
from tests.fakes.fake_pool import FakePool, Script, spec
from tests.servers.conftest import eventually
from tests.web.conftest import answer, ask, say


def test_a_question_and_its_answer(page: Page, pool: FakePool) -> None:
    assert ask(page, "What is gravity?") == "Hello world"
    expect(page.locator(".question .said")).to_have_text("What is gravity?")
    expect(answer(page)).to_contain_text(re.compile(r"3 tokens · .*first token \d+ ms"))
    expect(page).to_have_title("What is gravity? · axion-llm")
    assert page.get_by_label("Message", exact=True).input_value() == ""
    assert pool.requests[0].prompt == "<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n"


def test_the_answer_is_shown_while_it_is_written(page: Page, pool: FakePool) -> None:
    pool.script = Script(pieces=["**One** ", "two"], hang_after=2)
    say(page, "Count")
    expect(page.locator(".answer strong")).to_have_text("One")
    expect(page.locator(".progress")).to_contain_text("2 tokens")
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(answer(page)).to_contain_text("One two")


@pytest.mark.parametrize("by", ["button", "key"])
def test_stop_ends_the_request_and_keeps_the_text(page: Page, pool: FakePool, by: str) -> None:
    pool.script = Script(pieces=["Half ", "an answer"], hang_after=1)
    say(page, "Go on")
    expect(page.locator(".answer .prose")).to_have_text("Half")
    if by == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(answer(page)).to_contain_text("stopped")
    expect(answer(page).locator(".prose")).to_have_text("Half")
    eventually(lambda: pool.num_cancelled == 1)
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


def test_the_model_reads_what_was_said_before(page: Page, pool: FakePool) -> None:
    ask(page, "One")
    ask(page, "Two")
    assert pool.requests[1].prompt == (
        "<|im_start|>user\nOne<|im_end|>\n<|im_start|>assistant\nHello world<|im_end|>\n"
        "<|im_start|>user\nTwo<|im_end|>\n<|im_start|>assistant\n"
    )


def test_editing_adds_a_version_and_loses_none(page: Page, pool: FakePool) -> None:
    ask(page, "First")
    ask(page, "Second")
    page.get_by_role("button", name="Edit").first.click()
    area = page.get_by_label("Your message")
    expect(area).to_be_focused()
    area.fill("First, again")
    page.locator(".edit").get_by_role("button", name="Send").click()
    expect(page.locator(".question .said")).to_have_text(["First, again"])
    assert "First, again" in str(pool.requests[-1].prompt) and "Second" not in str(pool.requests[-1].prompt)
    page.get_by_role("button", name="Earlier version").click()
    expect(page.locator(".question .said")).to_have_text(["First", "Second"])
    expect(page.locator(".versions").first).to_contain_text("1 / 2")


def test_an_edit_can_be_given_up(page: Page, pool: FakePool) -> None:
    ask(page, "First")
    page.get_by_role("button", name="Edit").click()
    page.keyboard.press("Escape")
    expect(page.locator(".question .said")).to_have_text("First")
    expect(page.get_by_role("button", name="Edit")).to_be_focused()
    assert len(pool.requests) == 1


def test_asking_again(page: Page, pool: FakePool) -> None:
    ask(page, "Say something")
    pool.script = Script(pieces=["Something else"])
    page.get_by_role("button", name="Ask again").click()
    expect(answer(page).locator(".prose")).to_have_text("Something else")
    expect(page.locator(".answer .versions")).to_contain_text("2 / 2")
    page.locator(".answer").get_by_role("button", name="Earlier version").click()
    expect(answer(page).locator(".prose")).to_have_text("Hello world")
    assert pool.requests[0].prompt == pool.requests[1].prompt


# ---- settings


def test_settings_reach_the_model(page: Page, pool: FakePool) -> None:
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    for label, value in {"Temperature": "0.5", "Top p": "0.9", "Max tokens": "2", "Seed": "42"}.items():
        page.get_by_label(label).fill(value)
    page.get_by_role("button", name="Save").click()
    assert ask(page, "Hi") == "Hello"
    request = pool.requests[0]
    assert str(request.prompt).startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert (request.sampling.temperature, request.sampling.top_p) == (0.5, 0.9)
    assert (request.max_tokens, request.sampling.seed) == (2, 42)
    expect(answer(page)).to_contain_text("cut at the token limit")
    page.reload()
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("Temperature")).to_have_value("0.5")


@pytest.mark.parametrize(
    ("label", "value", "problem"),
    [
        ("Temperature", "2.5", "Temperature: at most 2"),
        ("Top p", "-1", "Top p: at least 0"),
        ("Max tokens", "1.5", "Max tokens: a whole number"),
        ("Seed", "many", "Seed: not a number"),
    ],
)
def test_a_mistake_in_the_settings_is_named_at_its_field(page: Page, label: str, value: str, problem: str) -> None:
    page.get_by_role("button", name="Settings").click()
    field = page.get_by_label(label)
    field.fill(value)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text(problem)).to_be_visible()
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


# ---- models


@pytest.fixture
def missing(pool: FakePool, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    found = [ModelStatus(pool.specs[0], "ready"), ModelStatus(pool.specs[1], "missing")]
    found.append(ModelStatus(spec("broken"), "failed", error="the file ends too early"))
    monkeypatch.setattr(pool, "models", lambda: found)
    yield


@pytest.mark.usefixtures("missing")
def test_the_state_of_each_model_and_what_to_do_about_it(page: Page) -> None:
    model = page.get_by_label("Model", exact=True)
    expect(model.locator("option")).to_have_text(
        ["fake · loaded", "org/other · not on this machine", "broken · failed to load"]
    )
    model.select_option("org/other")
    expect(page.locator("#model-note")).to_have_text("Not on this machine yet. Fetch it with axion-llm pull org/other")
    say(page, "Hi")
    expect(page.locator("#composer-hint")).to_contain_text("choose another one")
    expect(page.locator(".message")).to_have_count(0)
    model.select_option("broken")
    expect(page.locator("#model-note")).to_have_text("Could not be loaded: the file ends too early")


def test_another_model_answers(page: Page, pool: FakePool) -> None:
    pool.load_seconds = 0.5
    page.get_by_label("Model", exact=True).select_option("org/other")
    say(page, "Hi")
    expect(page.locator(".progress")).to_have_text("Loading org/other…")
    expect(answer(page).locator(".who")).to_have_text("org/other")
    page.reload()
    expect(page.get_by_label("Model", exact=True)).to_have_value("org/other")


# ---- when something goes wrong


def test_a_busy_server(page: Page, pool: FakePool) -> None:
    pool.script = Script(reject=errors.Overloaded("256 requests wait", retry_after_seconds=7))
    say(page, "Hi")
    expect(page.locator(".error")).to_contain_text("The server is busy")
    expect(page.locator(".error")).to_contain_text("256 requests wait")
    expect(page.locator(".error")).to_contain_text("Try again in 7 s.")
    pool.script = Script()
    page.get_by_role("button", name="Ask again").click()
    expect(answer(page).locator(".prose")).to_have_text("Hello world")
    expect(page.locator(".error")).to_have_count(0)
    expect(page.locator(".answer .versions")).to_have_count(0)  # a failure without a word is no version


def test_an_answer_that_breaks_off_keeps_what_had_come(page: Page, pool: FakePool) -> None:
    pool.script = Script(fail=errors.WorkerDied("the worker is gone"), fail_after=2, delay=0.01)
    say(page, "Hi")
    expect(page.locator(".error")).to_contain_text("The model's process has ended")
    expect(answer(page).locator(".prose")).to_have_text("Hello")
    pool.script = Script()
    ask(page, "And now?")
    assert "Hello<|im_end|>" in str(pool.requests[-1].prompt)


def test_a_question_that_got_no_answer_joins_the_next_one(page: Page, pool: FakePool) -> None:
    pool.script = Script(reject=errors.EngineError("decode"))
    say(page, "One")
    expect(page.locator(".error")).to_be_visible()
    pool.script = Script()
    ask(page, "Two")
    assert pool.requests[-1].prompt == "<|im_start|>user\nOne\n\nTwo<|im_end|>\n<|im_start|>assistant\n"


def test_a_prompt_that_is_too_long(page: Page, pool: FakePool) -> None:
    pool.script = Script(reject=errors.ContextLengthExceeded("9000 tokens, 8192 fit"))
    say(page, "Hi")
    expect(page.locator(".error")).to_contain_text("Begin a new chat")


def test_a_server_that_is_gone_and_comes_back(page: Page) -> None:
    page.route("**/v1/**", lambda route: route.abort())
    say(page, "Hi")
    expect(page.locator(".error")).to_contain_text("No connection to the server")
    expect(page.locator("#connection")).to_contain_text("axion-llm serve")
    page.unroute("**/v1/**")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#connection")).to_be_hidden()
    page.get_by_role("button", name="Ask again").click()
    expect(answer(page).locator(".prose")).to_have_text("Hello world")


def test_a_connection_that_ends_too_early(page: Page) -> None:
    chunk = {"choices": [{"delta": {"content": "Half"}}]}
    page.route("**/v1/chat/completions", lambda route: route.fulfill(status=200, body=f"data: {json.dumps(chunk)}\n\n"))
    say(page, "Hi")
    expect(page.locator(".error")).to_contain_text("The answer broke off")
    expect(answer(page).locator(".prose")).to_have_text("Half")


# ---- the look


def test_html_of_a_model_is_text(page: Page, pool: FakePool) -> None:
    pool.script = Script(pieces=["<img src=x ", "onerror='window.hit = 1'>", "<script>window.hit = 1</script>"])
    say(page, "<b onclick=alert(1)>me too</b>")
    expect(answer(page).locator(".prose")).to_contain_text("<img src=x onerror='window.hit = 1'><script>")
    expect(page.locator(".question .said")).to_have_text("<b onclick=alert(1)>me too</b>")
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.hit") is None


def test_code_can_be_copied(page: Page, pool: FakePool) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    pool.script = Script(pieces=["```py\n", "x = 1\ny = 2\n", "```"])
    say(page, "Code")
    answer(page).locator("figure").get_by_role("button", name="Copy").click()
    expect(answer(page).locator("figure").get_by_role("button")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "x = 1\ny = 2"


def test_who_reads_further_up_is_left_in_peace(page: Page, pool: FakePool) -> None:
    pool.script = Script(pieces=["line\n\n"] * 120, delay=0.02)
    say(page, "Many lines")
    scroller = page.locator("#scroller")
    eventually(lambda: scroller.evaluate("(s) => s.scrollTop") > 300)
    scroller.evaluate("(s) => { s.scrollTop = 0 }")
    expect(page.get_by_role("button", name="Go to the end")).to_be_visible()
    page.wait_for_timeout(300)
    assert scroller.evaluate("(s) => s.scrollTop") == 0
    page.get_by_role("button", name="Go to the end").click()
    expect(page.get_by_role("button", name="Go to the end")).to_be_hidden()


def test_colours_by_the_switch(page: Page) -> None:
    dark, light = "rgb(23, 23, 22)", "rgb(251, 250, 248)"
    button = page.get_by_role("button", name="Colours")
    expect(page.locator("body")).to_have_css("background-color", light)
    page.emulate_media(color_scheme="dark")
    expect(page.locator("body")).to_have_css("background-color", dark)
    button.click()
    expect(button).to_have_attribute("aria-label", "Colours: Light")
    expect(page.locator("body")).to_have_css("background-color", light)
    page.reload()
    expect(page.locator("body")).to_have_css("background-color", light)
    button.click()
    expect(page.locator("body")).to_have_css("background-color", dark)


@pytest.fixture
def phone(browser: Browser, url: str, pool: FakePool) -> Iterator[Page]:
    options: Any = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.set_default_timeout(5000)
        page.goto(url)
        page.wait_for_selector("#model option", state="attached")
        yield page


def test_on_a_phone(phone: Page, pool: FakePool) -> None:
    pool.script = Script(pieces=["```\n" + "x" * 300 + "\n```\n\n| " + "wide | " * 30 + "\n|" + "--|" * 30])
    phone.get_by_label("Message", exact=True).fill("Something wide")
    phone.get_by_role("button", name="Send").tap()
    expect(answer(phone).locator("table")).to_be_visible()
    width = phone.evaluate("document.documentElement.scrollWidth")
    assert width <= 360, "the page itself must not scroll sideways"
    small = phone.evaluate("""() => [...document.querySelectorAll("button, select")]
        .filter((e) => e.checkVisibility({ visibilityProperty: true }) && e.getBoundingClientRect().height < 24)
        .map((e) => e.textContent)""")
    assert small == []


def test_the_list_of_chats_on_a_phone(phone: Page) -> None:
    phone.get_by_label("Message", exact=True).fill("Hello")
    phone.get_by_role("button", name="Send").tap()
    expect(answer(phone)).to_be_visible()
    chats = phone.get_by_role("navigation", name="Chats")
    expect(chats).to_have_count(0)  # neither seen nor in the accessibility tree
    menu = phone.get_by_role("button", name="Chats", exact=True)
    menu.tap()
    expect(chats).to_be_visible()
    expect(phone.get_by_role("button", name="Close the list of chats")).to_be_focused()
    phone.keyboard.press("Escape")
    expect(menu).to_be_focused()
    menu.tap()
    chats.get_by_role("button", name="Hello", exact=True).tap()
    expect(chats).to_have_count(0)
    expect(phone.locator(".question .said")).to_have_text("Hello")
