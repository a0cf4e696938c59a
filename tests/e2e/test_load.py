"""Many requests at once against the real server: none lost, each with the text it has alone; too many are refused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.conftest import MODEL, ServeProcess
from tests.e2e.test_faults import gauges

WORDS = "river stone garden window letter morning market engine forest paper silver bridge".split()  # noqa: SIM905
SYSTEM = "You answer in one short sentence. " * 12


def mixed(rng: random.Random, number: int) -> dict[str, Any]:
    """Short and long prompts, with and without a common system prompt, streamed or not, guesses on or off."""
    length = rng.choice([3, 10, 40, 40, 200])
    messages = [{"role": "user", "content": f"{number}: " + " ".join(rng.choice(WORDS) for _ in range(length))}]
    if rng.random() < 0.5:
        messages.insert(0, {"role": "system", "content": SYSTEM})
    return {
        "model": MODEL,
        "messages": messages,
        "max_tokens": rng.randint(1, 40),
        "temperature": 0,
        "speculation": rng.choice(["off", "ngram"]),
    }


async def ask(http: httpx.AsyncClient, url: str, body: dict[str, Any]) -> tuple[str, str, int]:
    answer = await http.post(f"{url}/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    choice, usage = answer.json()["choices"][0], answer.json()["usage"]
    return choice["message"]["content"], choice["finish_reason"], usage["completion_tokens"]


async def compare(service: ServeProcess, count: int) -> None:
    """`count` requests, 32 at a time on both ports, and the same ones one after the other."""
    rng = random.Random(5)
    bodies = [mixed(rng, i) for i in range(count)]
    places = asyncio.Semaphore(32)
    urls = list(service.urls.values())

    async def one(number: int) -> tuple[str, str, int]:
        async with places:
            return await ask(http, urls[number % 2], bodies[number] | {"stream": False})

    limits = httpx.Limits(max_connections=40)
    async with httpx.AsyncClient(timeout=300, limits=limits) as http:
        together = await asyncio.gather(*(one(i) for i in range(count)))
        alone = [await ask(http, urls[0], body) for body in bodies]
    assert together == alone
    assert gauges(service, "axion_sequences_running") == {MODEL: 0.0}


@pytest.mark.behaviour("requests.seed", "requests.greedy", columns=["standard", "streaming"])
async def test_forty_mixed_requests_have_the_texts_they_have_alone(service: ServeProcess) -> None:
    await compare(service, 40)


@pytest.mark.long
async def test_five_hundred_mixed_requests_have_the_texts_they_have_alone(service: ServeProcess) -> None:
    await compare(service, 500)


@pytest.mark.behaviour("usage.tokens", columns=["standard"])
def test_a_second_turn_reports_its_cached_tokens(service: ServeProcess) -> None:
    sdk = openai.OpenAI(base_url=f"{service.urls['standard']}/v1", api_key="none", max_retries=0)
    chat: list[Any] = [{"role": "user", "content": "Tell me about " + " ".join(WORDS * 20)}]
    first = sdk.chat.completions.create(model=MODEL, messages=chat, max_tokens=20, temperature=0)
    chat += [
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "And then?"},
    ]
    second = sdk.chat.completions.create(model=MODEL, messages=chat, max_tokens=5, temperature=0)
    assert first.usage and second.usage and second.usage.prompt_tokens_details
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens - 5  # type: ignore[operator]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """A service where one request runs and two may wait."""
    home: Path = tmp_path_factory.mktemp("narrow")
    registry = home / "models.toml"
    registry.write_text("[models.smollm2]\nparallel = 1\n")
    started = ServeProcess(home, "--models", str(registry), "--max-queue", "2", "--warm", "1")
    try:
        yield started.wait_until_ready()
        started.stop()
    finally:
        started.kill()


@pytest.mark.behaviour("errors.capacity", columns=["standard"])
async def test_beyond_the_queue_requests_are_refused_with_a_time_to_come_back(narrow: ServeProcess) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Count"}], "max_tokens": 100, "ignore_eos": True}
    url = f"{narrow.urls['standard']}/v1/chat/completions"
    async with httpx.AsyncClient(timeout=120) as http:
        answers = await asyncio.gather(*(http.post(url, json=body) for _ in range(8)))
    refused = [a for a in answers if a.status_code == 429]
    assert len(refused) >= 4 and len([a for a in answers if a.status_code == 200]) >= 3
    for answer in refused:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "overloaded"
        assert answer.json()["error"]["type"] == "rate_limit_error"
    assert gauges(narrow, "axion_requests_refused_total")[MODEL] == len(refused)
