"""What of a text that is being written is complete, and that all of it is shown once."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from axion_llm.cli.markdown_stream import MarkdownStream, settled_length


@pytest.mark.parametrize(
    ("text", "settled"),
    [
        ("", ""),
        ("one", ""),
        ("one\n", ""),
        ("one\n\n", "one\n\n"),
        ("one\n\ntwo\n", "one\n\n"),
        ("one\n\n```\ncode\n\nmore\n", "one\n\n"),
        ("```py\ncode\n\n```\n\nend", "```py\ncode\n\n```\n\n"),
        ("~~~\n```\n\n~~~\n\n", "~~~\n```\n\n~~~\n\n"),
        ("````\n```\n\n````\n\nx", "````\n```\n\n````\n\n"),
        ("one\n   ", ""),  # the line is not complete
    ],
)
def test_settled(text: str, settled: str) -> None:
    assert text[: settled_length(text)] == settled


@given(st.lists(st.sampled_from(["a", "\n", "\n\n", "```", "~~~", " ", "- b", "```py\n"]), max_size=30))
def test_what_is_settled_stays_so(parts: list[str]) -> None:
    text, before = "", 0
    for part in parts:
        text += part
        now = settled_length(text)
        assert before <= now <= len(text)
        before = now


def test_everything_is_shown_once() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60, height=10, color_system=None)
    lines = [f"line{i}" for i in range(40)]
    text = "Before\n\n```\n" + "\n".join(lines) + "\n```\n\nAfter **all**"
    with MarkdownStream(console) as stream:
        for at in range(0, len(text), 5):
            stream.add(text[at : at + 5])
    # What Live redraws is erased again; what was printed for good is behind the last erasure of its block.
    shown = screen.getvalue()
    for word in ("Before", "After all", *lines):
        assert word in shown


def test_a_pipe_gets_the_text_as_it_is() -> None:
    screen = io.StringIO()
    text = "# A [bold]x[/] title\n\n* item " + "long " * 50
    with MarkdownStream(Console(file=screen, width=40)) as stream:
        stream.add(text)
    assert screen.getvalue() == text + "\n"
