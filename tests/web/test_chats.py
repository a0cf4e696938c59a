"""Chats are kept in the browser: listed, deleted, exported and imported, and never lost to damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.fakes.fake_pool import FakePool, Script
from tests.web.conftest import answer, ask, say


def test_chats_are_kept(page: Page) -> None:
    ask(page, "Remember me")
    page.reload()
    page.get_by_role("navigation").get_by_role("button", name="Remember me", exact=True).click()
    expect(answer(page).locator(".prose")).to_have_text("Hello world")


def test_an_answer_that_the_page_was_closed_on_keeps_its_text(page: Page, pool: FakePool) -> None:
    pool.script = Script(pieces=["Half"] * 500, delay=0.02)
    say(page, "Long one")
    expect(page.locator(".answer .prose")).to_contain_text("HalfHalf")
    page.reload()
    page.get_by_role("navigation").get_by_role("button", name="Long one", exact=True).click()
    expect(answer(page)).to_contain_text("the page was closed")
    assert "Half" in answer(page).locator(".prose").inner_text()


def test_deleting_can_be_undone(page: Page) -> None:
    ask(page, "Keep me")
    page.get_by_role("button", name="Delete Keep me").click()
    expect(page.locator("#chats li")).to_have_count(0)
    expect(page.locator("#empty")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".question .said")).to_have_text("Keep me")


def test_export_and_import(page: Page, tmp_path: Path) -> None:
    ask(page, "Tell me **all**")
    with page.expect_download() as markdown:
        page.get_by_role("button", name="Export", exact=True).click()
    text = markdown.value.path().read_text()
    assert text == "# Tell me **all**\n\n## You\n\nTell me **all**\n\n## fake\n\nHello world\n"
    assert markdown.value.suggested_filename == "tell-me-all.md"
    with page.expect_download() as everything:
        page.get_by_role("button", name="Export all").click()
    saved = tmp_path / "chats.json"
    everything.value.save_as(saved)
    page.evaluate("localStorage.clear()")
    page.reload()
    expect(page.locator("#chats li")).to_have_count(0)
    page.locator("#import-file").set_input_files(saved)
    expect(page.locator("#chats li")).to_have_count(1)


DAMAGED: list[tuple[Any, str]] = [
    ("not json", "This file is not JSON."),
    ({"format": "other"}, "not an export"),
    ({"format": "axion-llm chats 1", "conversations": [{"id": "x"}]}, "1 chats in this file are damaged"),
    (
        {
            "format": "axion-llm chats 1",
            "conversations": [
                {
                    "id": "x",
                    "updated": 1,
                    "chosen": {"": "a", "a": "a"},
                    "nodes": {"a": {"id": "a", "parent": "a", "role": "user", "text": "round and round"}},
                }
            ],
        },
        "damaged",
    ),
]


@pytest.mark.parametrize(("content", "message"), DAMAGED)
def test_a_file_that_cannot_be_imported(page: Page, tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    page.locator("#import-file").set_input_files(path)
    expect(page.locator("#notice")).to_contain_text(message)
    expect(page.locator("#chats li")).to_have_count(0)


def test_a_damaged_entry_in_the_storage_does_not_stop_the_page(page: Page) -> None:
    page.evaluate("localStorage.setItem('axion.chat.x', '{'); localStorage.setItem('axion.settings', '[[')")
    page.reload()
    assert ask(page, "Hi") == "Hello world"


def test_a_full_storage_is_said(page: Page) -> None:
    page.evaluate("localStorage.setItem('other', 'x'.repeat(5 * 1024 * 1024 - 200))")
    say(page, "Hello " * 100)
    expect(page.locator("#notice")).to_contain_text("storage is full")
    expect(answer(page).locator(".prose")).to_have_text("Hello world")
