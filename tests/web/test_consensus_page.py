"""The consensus port's page: the experts side by side, how many agree, who decided."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.fakes.fake_pool import FakePool, Script, spec
from tests.servers.conftest import LiveServer
from tests.web.conftest import answer, say


@pytest.fixture
def url(server: LiveServer) -> str:
    return server.urls["consensus"]


def test_the_experts_side_by_side(page: Page, pool: FakePool) -> None:
    expect(page.get_by_label("Model", exact=True)).to_have_value("consensus")
    page.get_by_label("Model", exact=True).select_option("consensus/vote")
    pool.script = Script(pieces=["The answer ", "is **Paris**."])
    say(page, "What is the capital of France?")
    expect(answer(page).locator(".prose").last).to_have_text("The answer is Paris.")
    experts = answer(page).get_by_role("listitem").filter(has=page.locator("header"))
    expect(experts).to_have_count(2)
    for name, card in zip(["fake", "org/other"], experts.all(), strict=True):
        expect(card.locator("header")).to_contain_text(name)
        expect(card.get_by_role("region", name=f"{name}: the whole answer")).to_have_text("The answer is Paris.")
    expect(experts.first).to_contain_text("chosen")
    expect(answer(page).locator("summary")).to_have_text(re.compile("2 answers.*100% agree.*decided by vote"))
    assert answer(page).get_by_role("meter", name="Agreement").evaluate("(m) => m.value") == 1
    expect(answer(page)).to_contain_text(re.compile(r"4 tokens by all models · \d+"))
    expect(answer(page).locator(".reason")).not_to_be_empty()


def test_what_the_experts_write_is_shown_as_it_comes(page: Page, pool: FakePool) -> None:
    pool.script = Script(pieces=["The number ", "is ", "42."], hang_after=2)
    page.get_by_label("Model", exact=True).select_option("consensus/vote")
    say(page, "How much?")
    expect(page.locator(".expert .prose").first).to_have_text("The number is")
    expect(page.locator(".expert .status").first).to_have_text("writing")
    expect(page.locator("summary")).to_contain_text("0 of 2 answers in")
    page.keyboard.press("Escape")
    expect(answer(page)).to_contain_text("stopped")
    page.reload()
    page.get_by_role("navigation").get_by_role("button", name="How much?", exact=True).click()
    expect(page.locator(".expert .prose").first).to_have_text("The number is")


def test_samples_of_one_model_have_numbers(page: Page, pool: FakePool) -> None:
    pool.specs = [spec("fake")]
    page.reload()
    page.get_by_label("Model", exact=True).select_option("consensus/self")
    say(page, "What is 2 + 2?")
    expect(answer(page).locator("summary")).to_contain_text("samples of one model")
    names = answer(page).locator(".expert strong").all_inner_texts()
    assert names[:2] == ["fake (1)", "fake (2)"]


def test_an_expert_by_its_name_answers_alone(page: Page, pool: FakePool) -> None:
    page.get_by_label("Model", exact=True).select_option("fake")
    say(page, "Hi")
    expect(answer(page).locator(".prose")).to_have_text("Hello world")
    expect(page.locator(".consensus")).to_have_count(0)
    assert len(pool.requests) == 1


def test_on_a_phone_they_are_beside_one_another_too(page: Page, pool: FakePool) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    page.get_by_label("Model", exact=True).select_option("consensus/vote")
    say(page, "Hi")
    expect(answer(page).locator(".prose").last).to_have_text("Hello world")
    tops = page.locator(".expert").evaluate_all("(all) => all.map((e) => e.getBoundingClientRect().top)")
    assert len(tops) == 2 and tops[0] == tops[1]
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
