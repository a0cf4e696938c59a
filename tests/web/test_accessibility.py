"""What people who do not see or do not use a mouse rely on: names, order, announcements, contrast."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.fakes.fake_pool import FakePool, Script
from tests.web.conftest import answer, ask, say

CONTROLS = {
    "button",
    "textbox",
    "combobox",
    "checkbox",
    "link",
    "listbox",
    "meter",
    "dialog",
    "region",
    "DisclosureTriangle",
}
LONG_TEXT = """Para *one*.

- item

```py
x = 1
```

| a | b |
|---|---|
| 1 | [l](https://example.org/) |

> quote

End."""

# The colours that a person sees, and their contrast by WCAG 2: relative luminance of text and of what is behind it.
CONTRAST = """() => {
  const parse = (text) => {
    const numbers = text.match(/[\\d.]+/g).map(Number);
    return { rgb: numbers.slice(0, 3), alpha: numbers[3] ?? 1 };
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.alpha === 1) return colour.rgb;
    }
    return [255, 255, 255];
  };
  const isText = (n) => n.nodeType === 3 && n.data.trim();
  const hasText = (e) => [...e.childNodes].some(isText) || e.matches("input, textarea");
  const isSeen = (e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest(".visually-hidden, :disabled");
  return [...document.querySelectorAll("body *")]
    .filter((e) => hasText(e) && isSeen(e))
    .map((e) => {
      const [a, b] = [luminance(parse(getComputedStyle(e).color).rgb), luminance(behind(e))];
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      return { what: `${e.localName}.${e.className} ${e.textContent.slice(0, 30)}`, contrast };
    });
}"""

TO_THE_TOP = "() => { document.body.tabIndex = -1; document.body.focus() }"


def tree(page: Page) -> list[dict[str, Any]]:
    session = page.context.new_cdp_session(page)
    nodes: list[dict[str, Any]] = session.send("Accessibility.getFullAXTree")["nodes"]
    return [n for n in nodes if not n.get("ignored")]


def assert_all_have_names(page: Page) -> None:
    nodes = tree(page)
    assert sum(n["role"]["value"] in CONTROLS for n in nodes) > 5
    unnamed = [
        n["role"]["value"] for n in nodes if n["role"]["value"] in CONTROLS and not n.get("name", {}).get("value")
    ]
    assert unnamed == []
    images = [n for n in nodes if n["role"]["value"] == "image"]
    assert all(n.get("name", {}).get("value") for n in images)


def assert_ids_are_unique_and_found(page: Page) -> None:
    wrong = page.evaluate("""() => {
      const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
      const twice = ids.filter((id, i) => ids.indexOf(id) !== i);
      const names = ["for", "aria-labelledby", "aria-describedby", "aria-controls"];
      const idsIn = (name) => (e) => e.getAttribute(name).split(" ");
      const used = names.flatMap((n) => [...document.querySelectorAll(`[${n}]`)].flatMap(idsIn(n)));
      return [...twice, ...used.filter((id) => !ids.includes(id))];
    }""")
    assert wrong == []


@pytest.fixture
def full(page: Page, pool: FakePool) -> Page:
    """With everything on it that a conversation can have."""
    pool.script = Script(pieces=[LONG_TEXT])
    ask(page, "First")
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator(".answer .versions")).to_be_visible()
    pool.script = Script(reject=RuntimeError("x"))
    say(page, "Second")
    expect(page.locator(".error")).to_be_visible()
    return page


def test_every_control_has_a_name(full: Page) -> None:
    assert_all_have_names(full)
    assert_ids_are_unique_and_found(full)
    full.get_by_role("button", name="Settings").click()
    assert_all_have_names(full)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("is_dialog", [False, True])
def test_contrast(full: Page, scheme: Any, is_dialog: bool) -> None:
    full.emulate_media(color_scheme=scheme)
    if is_dialog:
        full.get_by_role("button", name="Settings").click()
        full.get_by_label("Seed").fill("x")
        full.get_by_role("button", name="Save").click()
    found = full.evaluate(CONTRAST)
    assert len(found) > 20
    assert [f for f in found if f["contrast"] < 4.5] == []


def test_headings_and_landmarks(full: Page) -> None:
    levels = full.evaluate(
        "[...document.querySelectorAll('h1,h2,h3')].filter((e) => e.checkVisibility()).map((e) => e.localName)"
    )
    assert levels[0] == "h1" and levels.count("h1") == 1 and "h2" in levels
    for role in ("banner", "main", "navigation"):
        expect(full.get_by_role(role)).to_have_count(1)  # type: ignore[arg-type]
    assert full.evaluate("document.documentElement.lang") == "en"


def test_the_skip_link_comes_first(page: Page) -> None:
    page.evaluate(TO_THE_TOP)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the message field")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Message", exact=True)).to_be_focused()


def test_the_order_of_the_keyboard_is_the_order_of_the_page(full: Page) -> None:
    full.evaluate(TO_THE_TOP)
    names = []
    for _ in range(60):
        full.keyboard.press("Tab")
        name = full.evaluate("""() => document.activeElement.getAttribute("aria-label")
            ?? (document.activeElement.textContent || document.activeElement.id)""")
        names.append(name.strip())
        if name == "Send":
            break
    order = [
        names.index(n)
        for n in ("New chat", "Colours: Auto", "Settings", "Edit", "python code", "table", "Send")
        if n in names
    ]
    assert order == sorted(order) and "Send" in names and "Settings" in names
    outline = full.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "where the keyboard is must be seen"


def test_a_whole_chat_by_keyboard_alone(page: Page, pool: FakePool) -> None:
    page.keyboard.type("First line")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("second line")
    page.keyboard.press("Enter")
    expect(answer(page).locator(".prose")).to_have_text("Hello world")
    assert "First line\nsecond line" in str(pool.requests[0].prompt)
    page.keyboard.type("More")
    page.keyboard.press("Enter")
    expect(page.locator(".answer[aria-busy=false]")).to_have_count(2)


def test_the_answer_is_read_out_once_in_whole_paragraphs(page: Page, pool: FakePool) -> None:
    pool.script = Script(pieces=["First ", "paragraph.", "\n\n", "Second ", "paragraph.", "\n\nThird."], delay=0.05)
    ask(page, "Go")
    live = page.locator("#announcements")
    expect(live).to_have_attribute("aria-live", "polite")
    expect(live.locator("p")).to_have_text(["First paragraph.", "Second paragraph.", "Third.", "End of the answer."])


def test_errors_are_read_out(page: Page, pool: FakePool) -> None:
    pool.script = Script(reject=RuntimeError("x"))
    say(page, "Go")
    expect(page.locator("#announcements")).to_contain_text("Something went wrong")


def test_nothing_moves_for_those_who_asked_for_it(page: Page, pool: FakePool) -> None:
    page.emulate_media(reduced_motion="reduce")
    pool.script = Script(hang_after=1)
    say(page, "Go")
    expect(page.locator(".pulse")).to_have_css("animation-name", "none")
    page.keyboard.press("Escape")
    expect(answer(page)).to_be_visible()
