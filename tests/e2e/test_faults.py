"""What must not take the service down: bad files, clients that leave, and every architecture beside each other."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.conftest import MODEL, ServeProcess, eventually
from tests.engine.test_architectures import ARCHITECTURES
from tests.factory import write_tiny_gguf
from tests.models_on_disk import smollm2_path

GGUF_BYTES = smollm2_path().stat().st_size


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """The embedded model, four broken files and five tiny models, at most three loaded at a time."""
    home = tmp_path_factory.mktemp("zoo")
    (home / "garbage.gguf").write_bytes(random.Random(0).randbytes(100_000))
    (home / "empty.gguf").write_bytes(b"")
    (home / "truncated.gguf").write_bytes(smollm2_path().read_bytes()[: GGUF_BYTES // 2])
    for arch in ARCHITECTURES:
        write_tiny_gguf(home / f"{arch}.gguf", arch)
    names = ["garbage", "empty", "truncated", "vanished", *ARCHITECTURES]
    models = home / "models.toml"
    models.write_text("".join(f'[models.{n}]\npath = "{n}.gguf"\ncontext = 1024\nparallel = 4\n' for n in names))
    service = ServeProcess(home, "--models", str(models), "--warm", "1", "--max-loaded", "3")
    try:
        yield service.wait_until_ready()
        service.stop()
    finally:
        service.kill()


def client(service: ServeProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.urls['standard']}/v1", api_key="none", max_retries=0, timeout=60)


def ask(service: ServeProcess, model: str, **options: Any) -> str:
    with client(service) as sdk:
        done = sdk.completions.create(
            model=model, prompt="one two three", **{"max_tokens": 8, "temperature": 0} | options
        )
    return done.choices[0].text


@pytest.mark.parametrize(
    ("model", "words"),
    [("garbage", "GGUF"), ("empty", "empty"), ("truncated", "truncated"), ("vanished", "vanished.gguf")],
)
def test_a_file_that_cannot_be_loaded_says_why_and_others_go_on(zoo: ServeProcess, model: str, words: str) -> None:
    with pytest.raises(openai.InternalServerError, match=words) as refused:
        ask(zoo, model)
    assert refused.value.code == "model_load_failed"
    assert ask(zoo, MODEL)
    with pytest.raises(openai.InternalServerError):
        ask(zoo, model)  # tried again, and still no more than an error


@pytest.mark.parametrize("arch", ARCHITECTURES)
async def test_every_architecture_through_the_whole_stack(zoo: ServeProcess, arch: str) -> None:
    async def one(sdk: openai.AsyncOpenAI, prompt: str) -> tuple[str, int]:
        text, tokens = "", 0
        stream = await sdk.chat.completions.create(
            model=arch,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=10,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        async for chunk in stream:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            tokens += chunk.usage.completion_tokens if chunk.usage else 0
        return text, tokens

    url = f"{zoo.urls['streaming']}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as sdk:
        answers = await asyncio.gather(*(one(sdk, p) for p in ("alpha", "beta " * 50, "gamma", "delta", "epsilon")))
    assert [tokens for _, tokens in answers] == [10] * 5
    assert any(text for text, _ in answers)


def gauges(service: ServeProcess, name: str) -> dict[str, float]:
    text = httpx.get(f"{service.urls['standard']}/metrics").text
    return {m: float(v) for m, v in re.findall(rf'^{name}{{model="([^"]+)"}} (\S+)$', text, re.M)}


async def test_two_hundred_requests_with_random_cancels_leave_no_sequence(service: ServeProcess) -> None:
    rng = random.Random(3)
    url = service.urls["streaming"]
    limits = asyncio.Semaphore(24)

    async def one(http: httpx.AsyncClient, number: int) -> str:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"{number} " + "word " * rng.randrange(60)}],
            "max_tokens": rng.randrange(1, 10),
            "stream": rng.random() < 0.7,
        }
        patience = rng.choice([None, None, 0.01, 0.1, 0.4])
        async with limits:
            try:
                answer = await asyncio.wait_for(http.post(f"{url}/v1/chat/completions", json=body), patience)
            except (asyncio.TimeoutError, TimeoutError):
                return "left"
        assert answer.status_code == 200, answer.text
        assert not body["stream"] or answer.text.endswith("data: [DONE]\n\n")
        return "answered"

    async with httpx.AsyncClient(timeout=120) as http:
        ends = await asyncio.gather(*(one(http, i) for i in range(200)))
    assert ends.count("left") > 20 and ends.count("answered") > 50
    for gauge in ("axion_sequences_running", "axion_sequences_waiting"):
        eventually(lambda gauge=gauge: gauges(service, gauge) == {MODEL: 0.0})  # type: ignore[misc]
    assert gauges(service, "axion_kv_used_tokens") == gauges(service, "axion_kv_cached_tokens")


def test_the_time_outside_llama_decode_is_exported(service: ServeProcess) -> None:
    loop = gauges(service, "axion_engine_loop_seconds_total")[MODEL]
    decode = gauges(service, "axion_engine_decode_seconds_total")[MODEL]
    assert 0 < decode <= loop


def test_a_registry_with_a_mistake_says_where(tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    models.write_text('[models.mine]\npath = "x.gguf"\n\ncontxt = 5\n')
    service = ServeProcess(tmp_path, "--models", str(models))
    try:
        assert service.process.wait(20) == 2
        assert "models.toml:4:" in service.log and "contxt" in service.log
    finally:
        service.kill()
