"""Keys are random, kept as hashes only, found whatever their place; the file says where it is wrong."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axion_llm.config import Settings
from axion_llm.errors import ConfigError
from axion_llm.security import keyring as keyring_module
from axion_llm.security import keys_file
from axion_llm.security.keyring import KeyRing
from axion_llm.security.keys import Key, digest, find, from_setting, new_secret

USE, ADMIN = frozenset({"use"}), frozenset({"admin"})


def key(name: str, secret: str, **fields: object) -> Key:
    return Key(name, digest(secret), **{"scopes": USE, **fields})  # type: ignore[arg-type]


def test_secrets_are_long_and_differ() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(s.startswith("axl-") and len(s) == 47 for s in made)


def test_find() -> None:
    known = [key("a", "secret-a"), key("b", "secret-b")]
    assert [find(known, s) for s in ("secret-a", "secret-b")] == known
    assert find(known, "secret-c") is None
    assert find(known, "") is None
    assert find(known, known[0].sha256) is None  # who has stolen the file has no key


@given(st.text())
def test_any_text_can_be_presented(secret: str) -> None:
    assert find([key("a", "a key that is not a text hypothesis finds")], secret) is None


def test_admin_may_everything() -> None:
    assert [key("a", "s", scopes=ADMIN).may(s) for s in ("use", "metrics", "admin")] == [True] * 3
    assert [key("a", "s").may(s) for s in ("use", "metrics", "admin")] == [True, False, False]


def test_keys_of_the_environment() -> None:
    first, second = from_setting("api_keys", "a" * 16 + " , " + "b" * 20 + ",", ["use"])
    assert (first.name, first.sha256, second.name) == ("api_keys-1", digest("a" * 16), "api_keys-2")
    with pytest.raises(ConfigError, match="key number 2 must have 16"):
        from_setting("api_keys", "a" * 16 + ",short", ["use"])


def test_a_secret_is_not_in_what_settings_show() -> None:
    settings = Settings(api_keys="very-secret-key-1", admin_keys="very-secret-key-2")
    assert "very-secret" not in repr(settings)


def test_the_file_holds_no_secret_and_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys.toml"
    known = [key("a.b@c", "secret-a", requests_per_minute=5, created="2026-01-31"), key("x", "s", scopes=ADMIN)]
    keys_file.write(path, known)
    assert keys_file.read(path) == known
    assert "secret" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["keys.toml"]


HASH = "0" * 64


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[keys.a]\nsha256 = 'abc'", r":2: keys.a.sha256 .*64 hexadecimal"),
        ("[keys.a]", r":1: keys.a.sha256 .*64 hexadecimal"),
        (f"[keys.a]\nsha256='{HASH}'\nscopes=['root']", r":3: keys.a.scopes .*use, metrics, admin"),
        (f"[keys.a]\nsha256='{HASH}'\nscopes=[]", "keys.a.scopes"),
        (f"[keys.a]\nsha256='{HASH}'\nscope='use'", r":3: keys.a.scope .*not known"),
        (f"[keys.a]\nsha256='{HASH}'\ntokens_per_minute=-1", r":3: .*0 for no limit"),
        (f"[keys.'a b']\nsha256='{HASH}'", "key name"),
        ("[key.a]", ":1: key"),
        ("keys = 3", ":1: keys"),
        ("keys.a = 3", ":1: keys.a"),
        ("[", "not valid TOML"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem):
        keys_file.read(path)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring_module, "LOOK_SECONDS", 0.0)


def test_a_ring_follows_its_file_but_never_opens(
    tmp_path: Path, at_once: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "keys.toml"
    monkeypatch.setattr("axion_llm.config.default_keys_file", lambda: path)
    ring = KeyRing(Settings(keys_file=path))
    assert not ring.is_asking
    keys_file.write(path, [key("a", "secret-a")])
    assert ring.is_asking
    assert ring.find("secret-a")
    path.write_text("[")
    assert ring.find("secret-a") and "stay as they were" in caplog.text
    keys_file.write(path, [])
    assert ring.is_asking and not ring.find("secret-a")
    keys_file.write(path, [key("a", "secret-a")])
    assert ring.find("secret-a")
    path.unlink()
    assert ring.is_asking and not ring.find("secret-a")


def test_a_chosen_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        KeyRing(Settings(keys_file=tmp_path / "nothing.toml"))
