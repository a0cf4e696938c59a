"""Which Host and Origin headers pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axion_llm.security.origin import host_of, is_host_allowed, is_origin_allowed


@pytest.mark.parametrize(
    ("header", "is_allowed"),
    [
        ("127.0.0.1:8082", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("localhost.:8082", True),
        ("app.localhost:8082", True),
        ("[::1]:8082", True),
        ("192.168.1.5:8082", True),  # an address cannot be rebound
        ("evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:8082", False),
        ("evil.example:localhost", False),
        ("[::1", False),
        ("", False),
        ("me.example.org", True),
        ("a.b.lan", True),
        ("lan", False),
        ("xlan", False),
    ],
)
def test_hosts(header: str, is_allowed: bool) -> None:
    assert is_host_allowed(header, ("me.example.org", ".lan")) == is_allowed


def test_any_host() -> None:
    assert is_host_allowed("whatever.example", ["*"])


@given(st.text())
def test_any_text_is_a_host_or_none(header: str) -> None:
    assert isinstance(host_of(header), str)


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("http://localhost:8082", True),
        ("https://localhost:8082", True),  # behind a proxy that ends TLS
        ("http://localhost:3000", False),  # another page of this machine is not ours
        ("https://my.app", True),
        ("https://my.app.evil.example", False),
        ("null", False),  # a sandboxed frame, a local file
        ("", False),
    ],
)
def test_origins(origin: str, is_allowed: bool) -> None:
    assert is_origin_allowed(origin, "localhost:8082", ["https://my.app"]) == is_allowed


def test_any_origin() -> None:
    assert is_origin_allowed("null", "localhost", ["*"])
