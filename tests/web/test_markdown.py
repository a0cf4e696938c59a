"""The page's Markdown, in the browser: what is drawn, what is not, and that no text does anything but be text."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from tests.servers.conftest import LiveServer

DRAW = """async ({ text, steps }) => {
  const { MarkdownView } = await import("/web/js/markdown/view.js");
  const root = document.createElement("div");
  document.body.append(root);
  const view = new MarkdownView(root);
  for (const end of steps) view.update(text.slice(0, end));
  view.update(text);
  const html = root.innerHTML;
  const attributes = [...root.querySelectorAll("*")].map((e) => [e.localName, ...e.getAttributeNames()]);
  root.remove();
  return { html, attributes };
}"""


@pytest.fixture(scope="module")
def page(browser: Browser, web_server: LiveServer) -> Iterator[Page]:
    """One for all: nothing that is drawn stays in it."""
    with browser.new_context() as context:
        opened = context.new_page()
        opened.goto(web_server.urls["standard"])
        yield opened


def html(page: Page, text: str, *, is_streamed: bool = False) -> str:
    steps = list(range(0, len(text), 3)) if is_streamed else []
    found: str = page.evaluate(DRAW, {"text": text, "steps": steps})["html"]
    return found


def link(href: str, text: str) -> str:
    return f'<a href="{href}" target="_blank" rel="noopener noreferrer nofollow">{text}</a>'


SIMPLE = [
    ("plain", "<p>plain</p>"),
    ("two\nlines", "<p>two<br>lines</p>"),
    ("one\n\ntwo", "<p>one</p><p>two</p>"),
    ("# Title", "<h3>Title</h3>"),  # the page has h1 and h2 itself
    ("###### deep ##", "<h6>deep</h6>"),
    ("#no heading", "<p>#no heading</p>"),
    ("**bold** and *italic* and ~~gone~~", "<p><strong>bold</strong> and <em>italic</em> and <del>gone</del></p>"),
    ("***both***", "<p><em><strong>both</strong></em></p>"),
    ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
    ("__bold__ _italic_ snake_case_name", "<p><strong>bold</strong> <em>italic</em> snake_case_name</p>"),
    ("2 * 3 * 4", "<p>2 * 3 * 4</p>"),
    ("a ** b", "<p>a ** b</p>"),
    ("**not closed", "<p>**not closed</p>"),
    ("~one~", "<p>~one~</p>"),
    ("use `a < b` here", "<p>use <code>a &lt; b</code> here</p>"),
    ("`` a ` b ``", "<p><code>a ` b</code></p>"),
    ("`not closed", "<p>`not closed</p>"),
    ("\\*stars\\* and \\_", "<p>*stars* and _</p>"),
    ("\\(x_1\\) and \\[y\\]", "<p>\\(x_1\\) and \\[y\\]</p>"),
    ("a &lt; b &amp; c &nope; &#65;", "<p>a &lt; b &amp; c &amp;nope; A</p>"),
    ("one<br>two", "<p>one<br>two</p>"),
    ("---", "<hr>"),
    ("> quoted\n> text", "<blockquote><p>quoted<br>text</p></blockquote>"),
    ("> # head\n> - item", "<blockquote><h3>head</h3><ul><li>item</li></ul></blockquote>"),
]


@pytest.mark.parametrize(("text", "expected"), SIMPLE)
def test_marks(page: Page, text: str, expected: str) -> None:
    assert html(page, text) == expected
    assert html(page, text, is_streamed=True) == expected


LISTS = [
    ("- a\n- b", "<ul><li>a</li><li>b</li></ul>"),
    ("1. a\n2. b", "<ol><li>a</li><li>b</li></ol>"),
    ("3) c\n4) d", '<ol start="3"><li>c</li><li>d</li></ol>'),
    ("- a\n  - b\n    - c\n- d", "<ul><li>a<ul><li>b<ul><li>c</li></ul></li></ul></li><li>d</li></ul>"),
    ("1. a\n   - b\n2. c", "<ol><li>a<ul><li>b</li></ul></li><li>c</li></ol>"),
    ("1. a\n  - two columns are enough\n", "<ol><li>a<ul><li>two columns are enough</li></ul></li></ol>"),
    ("- a\n\n- b", "<ul><li><p>a</p></li><li><p>b</p></li></ul>"),
    ("- a\n\n  more\n- b", "<ul><li><p>a</p><p>more</p></li><li><p>b</p></li></ul>"),
    ("- a\ngoes on", "<ul><li>a<br>goes on</li></ul>"),
    ("- [ ] open\n- [x] done", "<ul><li>☐ open</li><li>☑ done</li></ul>"),
    ("text\n- a", "<p>text</p><ul><li>a</li></ul>"),
    ("born in\n1984. A book", "<p>born in<br>1984. A book</p>"),
    ("- a\n\n1. b", "<ul><li>a</li></ul><ol><li>b</li></ol>"),
]


@pytest.mark.parametrize(("text", "expected"), LISTS)
def test_lists(page: Page, text: str, expected: str) -> None:
    assert html(page, text) == expected


def test_code_blocks(page: Page) -> None:
    found = html(page, "```python\nif a < b:\n\n    print('*x*')\n```\nafter")
    assert '<span>python</span><button type="button" class="quiet">Copy</button>' in found
    assert "<code>if a &lt; b:\n\n    print('*x*')</code></pre></figure><p>after</p>" in found
    assert 'aria-label="python code"' in found
    unclosed = html(page, "~~~\nstill *open*\n```", is_streamed=True)
    assert "<code>still *open*\n```</code>" in unclosed
    assert "<code>inside\n```\nmore</code>" in html(page, "````\ninside\n```\nmore\n````")
    assert "<code>by four</code>" in html(page, "    by four")


def test_a_code_block_in_a_list(page: Page) -> None:
    found = html(page, "1. Run:\n   ```sh\n   ls\n   ```\n2. Look")
    assert "<ol><li>Run:<figure" in found and "<code>ls</code>" in found and "<li>Look</li>" in found


def test_tables(page: Page) -> None:
    found = html(page, "| a | b |\n|:--|--:|\n| 1 | **2** |\n| x \\| y | `c` | extra |\n| short |\nafter")
    assert found == (
        '<div class="table" tabindex="0" role="region" aria-label="table"><table><thead><tr>'
        '<th class="align-start" scope="col">a</th><th class="align-end" scope="col">b</th></tr></thead><tbody>'
        '<tr><td class="align-start">1</td><td class="align-end"><strong>2</strong></td></tr>'
        '<tr><td class="align-start">x | y</td><td class="align-end"><code>c</code></td></tr>'
        '<tr><td class="align-start">short</td><td class="align-end"></td></tr></tbody></table></div><p>after</p>'
    )
    assert html(page, "a | b\nno table") == "<p>a | b<br>no table</p>"


LINKS = [
    ("[a *b*](https://example.org/x_y)", "<p>" + link("https://example.org/x_y", "a <em>b</em>") + "</p>"),
    ('[t](https://example.org/a(b) "title")', "<p>" + link("https://example.org/a(b)", "t") + "</p>"),
    ("[](https://example.org/)", "<p>" + link("https://example.org/", "https://example.org/") + "</p>"),
    ("[m](mailto:a@example.org)", "<p>" + link("mailto:a@example.org", "m") + "</p>"),
    ("<https://example.org/>", "<p>" + link("https://example.org/", "https://example.org/") + "</p>"),
    (
        "see https://example.org/a_b_c.",
        "<p>see " + link("https://example.org/a_b_c", "https://example.org/a_b_c") + ".</p>",
    ),
    ("(https://example.org/x)", "<p>(" + link("https://example.org/x", "https://example.org/x") + ")</p>"),
    ("![cat](https://example.org/c.png)", "<p>" + link("https://example.org/c.png", "cat") + "</p>"),  # never fetched
    ("[a] (b) [c](d) [", "<p>[a] (b) [c](d) [</p>"),
    (
        "[one [two](https://example.org/2)](https://example.org/1)",  # no link in a link
        "<p>[one " + link("https://example.org/2", "two") + "](" + link(*["https://example.org/1"] * 2) + ")</p>",
    ),
]


@pytest.mark.parametrize(("text", "expected"), LINKS)
def test_links(page: Page, text: str, expected: str) -> None:
    assert html(page, text) == expected


ATTACKS = [
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "<svg/onload=window.hit=1>",
    "<a href='javascript:window.hit=1'>x</a>",
    "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    "<style>*{display:none}</style>",
    "[x](javascript:window.hit=1)",
    "[x](JaVaScRiPt:window.hit=1)",
    "[x](java\tscript:window.hit=1)",
    "[x](&#106;avascript:window.hit=1)",
    "[x]( javascript:window.hit=1 )",
    "[x](<javascript:window.hit=1>)",
    "[x](data:text/html,<script>window.hit=1</script>)",
    "[x](vbscript:window.hit)",
    "[x](file:///etc/passwd)",
    "[x](//evil.example/)",
    "[x](/v1/models)",
    "[x](blob:https://example.org/1)",
    "<javascript:window.hit=1>",
    "![x](javascript:window.hit=1)",
    '[x](https://example.org/" onclick="window.hit=1)',
    "```<script>window.hit=1</script>\n<script>window.hit=1</script>\n```",
    "`<script>window.hit=1</script>`",
    "| <script>window.hit=1</script> |\n|---|\n| <img src=x onerror=window.hit=1> |",
    "# <img src=x onerror=window.hit=1>",
    "&lt;script&gt;window.hit=1&lt;/script&gt;",
    "**<img src=x onerror=window.hit=1>**",
]


ELEMENTS = {
    *(
        "p",
        "h3",
        "h4",
        "h5",
        "h6",
        "ul",
        "ol",
        "li",
        "blockquote",
        "hr",
        "br",
        "strong",
        "em",
        "del",
        "a",
        "code",
        "pre",
    ),
    *("figure", "figcaption", "span", "button", "div", "table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {"href", "target", "rel", "class", "type", "tabindex", "role", "aria-label", "scope", "start"}


@pytest.mark.parametrize("text", ATTACKS)
def test_text_that_would_be_more_than_text(page: Page, text: str) -> None:
    found = page.evaluate(DRAW, {"text": text, "steps": list(range(len(text)))})
    for name, *attributes in found["attributes"]:
        assert name in ELEMENTS and set(attributes) <= ATTRIBUTES
    assert all(href.startswith("https://example.org/") for href in re.findall('href="([^"]*)', found["html"]))
    assert page.evaluate("window.hit") is None


def test_the_policy_forbids_html_from_text_even_by_mistake(page: Page) -> None:
    name = page.evaluate("() => { try { document.body.innerHTML = '<b>x</b>' } catch (error) { return error.name } }")
    assert name == "TypeError"


MARKS = [*"ab *_~`[]()<>!#-|\\\n&1.:/ ", "https://", "```", "  ", "- "]
MARKDOWN = st.lists(st.sampled_from(MARKS), max_size=80).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MARKDOWN)
def test_a_text_that_comes_in_pieces_looks_like_one_that_came_at_once(page: Page, text: str) -> None:
    assert html(page, text) == html(page, text, is_streamed=True)


HARD = {
    "stars": "*a " * 20_000,
    "pairs": "*a* " * 20_000,
    "brackets": "[" * 20_000,
    "links": "[a](" * 20_000,
    "closers": "[" * 60 + "a]" * 20_000,
    "backticks": "".join("`" * (1 + i % 50) + " " for i in range(5_000)),
    "quotes": ">" * 5_000,
    "lists": "\n".join("  " * i + "- x" for i in range(500)),
    "pipes": "|" * 20_000 + "\n" + "|-" * 20_000,
    "rules": "* " * 20_000 + "x",
    "fences": "```\n" * 5_000,
    "address": "https://example.org/" + ")" * 50_000,
    "entities": "&amp;" * 20_000,
    "mixed": "**[`_" * 10_000,
}


@pytest.mark.parametrize("name", HARD)
def test_no_text_stops_the_page(page: Page, name: str) -> None:
    began = time.monotonic()
    html(page, HARD[name])
    assert time.monotonic() - began < 15  # quadratic work would take minutes


def test_what_is_selected_stays_while_the_answer_goes_on(page: Page) -> None:
    kept = page.evaluate("""async () => {
      const { MarkdownView } = await import("/web/js/markdown/view.js");
      const root = document.createElement("div");
      const view = new MarkdownView(root);
      view.update("first\\n\\n```js\\nlet a");
      const [first, code] = [root.children[0], root.querySelector("code")];
      view.update("first\\n\\n```js\\nlet a = 1;\\nlet b");
      return root.children[0] === first && root.querySelector("code") === code && code.textContent;
    }""")
    assert kept == "let a = 1;\nlet b"
