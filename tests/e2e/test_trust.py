"""Between two API keys nothing of a prompt can be learnt: not by counts, and not by the time to the first token."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from axion_llm.security import keys_file
from axion_llm.security.keys import Key, digest
from tests.e2e.conftest import MODEL, ServeProcess

SECRETS = {name: f"axl-{name}-0123456789abcdef" for name in ("alice", "eve", "adam")}
GROUPS = {"alice": "family", "adam": "family"}
VAULT = "This is the diary of the keeper of the vault in the old lighthouse. The vault's PIN is "
PIN = "48151623"
LONG = "The keeper writes down who comes and who goes, and what the weather is like. " * 40


def start(home: Path, **settings: str) -> ServeProcess:
    use = frozenset({"use"})
    path = home / "keys.toml"
    keys_file.write(path, [Key(n, digest(s), use, group=GROUPS.get(n, "")) for n, s in SECRETS.items()])
    return ServeProcess(home, keys_file=str(path), **settings)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    service = start(tmp_path_factory.mktemp("trust"))
    try:
        yield service.wait_until_ready()
        service.stop()
    finally:
        service.kill()


def ask(service: ServeProcess, name: str, prompt: str, port: str = "standard") -> tuple[int, float]:
    """Tokens from the cache, and seconds until the answer, which has one token."""
    body: dict[str, Any] = {"model": MODEL, "prompt": prompt, "max_tokens": 1, "temperature": 0}
    began = time.perf_counter()
    headers = {"authorization": f"Bearer {SECRETS[name]}"}
    answer = httpx.post(
        f"{service.urls[port]}/v1/completions", json={**body, "stream": False}, headers=headers, timeout=300
    )
    seconds = time.perf_counter() - began
    return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"], seconds


@pytest.mark.parametrize("port", ["standard", "streaming", "consensus"])
def test_a_digit_cannot_be_read_by_counts(locked: ServeProcess, port: str) -> None:
    """The attack: of ten guesses the one with the most cached tokens is the digit."""
    vault = f"{port}: {VAULT}"
    ask(locked, "alice", f"{vault}{PIN}. Do not tell anybody.", port)
    known = ""
    for _ in PIN:
        assert ask(locked, "alice", f"{vault}{PIN}. Do not tell anybody.", port)[0] > 20  # it is in the cache
        counts = {d: ask(locked, "eve", f"{vault}{known}{d}", port)[0] for d in "0123456789"}
        assert not known or max(counts.values()) > 0  # of what she has sent herself
        known += max(counts, key=lambda d: (counts[d], d))
    assert known != PIN


def test_the_first_request_has_nothing_cached_whatever_others_sent(locked: ServeProcess) -> None:
    counts = []
    for name in ("alice", "eve"):
        counts += [ask(locked, name, LONG + "the same")[0], ask(locked, name, LONG + "the same")[0]]
    assert counts[0] == counts[2] == 0
    assert counts[1] == counts[3] > 400


def test_the_time_to_the_first_token_does_not_tell_either(locked: ServeProcess) -> None:
    """A prompt that another key has sent takes as long as one that nobody has; one of her own is far quicker."""
    fresh, others, own = [], [], []
    text = LONG[: len(LONG) // 2]
    for i in range(5):
        ask(locked, "alice", f"{i} alice. {text}")
        others.append(ask(locked, "eve", f"{i} alice. {text}")[1])
        fresh.append(ask(locked, "eve", f"{i} nobody. {text}")[1])
        own.append(ask(locked, "eve", f"{i} nobody. {text}")[1])
    print(f"seconds: fresh {fresh}, another key's {others}, her own {own}")
    assert statistics.median(others) > 0.6 * statistics.median(fresh)
    assert statistics.median(own) < 0.4 * statistics.median(fresh)


def test_keys_of_one_tenant_share(locked: ServeProcess) -> None:
    ask(locked, "alice", LONG + "of the family")
    assert ask(locked, "adam", LONG + "of the family")[0] > 400


def test_all_share_where_the_operator_says_so(tmp_path: Path) -> None:
    service = start(tmp_path, share_prefixes="all")
    try:
        service.wait_until_ready()
        ask(service, "alice", LONG)
        assert ask(service, "eve", LONG)[0] > 400
    finally:
        service.kill()


def test_what_a_model_has_as_public_is_shared(tmp_path: Path) -> None:
    system = "You are the voice of the lighthouse museum. " + "Answer kindly, briefly and truly. " * 20
    models = tmp_path / "models.toml"
    models.write_text(f'[models.{MODEL}]\npublic_prompt = "{system}"\n')
    service = start(tmp_path, models_file=str(models))

    def chat(name: str, content: str) -> int:
        messages = [{"role": "system", "content": system.strip()}, {"role": "user", "content": content}]
        body = {"model": MODEL, "messages": messages, "max_tokens": 1, "temperature": 0}
        headers = {"authorization": f"Bearer {SECRETS[name]}"}
        answer = httpx.post(f"{service.urls['standard']}/v1/chat/completions", json=body, headers=headers, timeout=300)
        return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])

    try:
        service.wait_until_ready()
        assert chat("alice", f"{VAULT}{PIN}") == 0
        shared = chat("eve", f"{VAULT}{PIN}")
        assert shared > 100
        assert chat("alice", f"{VAULT}{PIN}") > shared + 20
    finally:
        service.kill()
