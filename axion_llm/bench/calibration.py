"""Collects experts' answers from a consensus port, once for each item: every strategy is judged on these same ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from axion_llm import files
from axion_llm.bench.client import BenchError, get, stream_events
from axion_llm.consensus.items import Item
from axion_llm.consensus.scoring import Collected
from axion_llm.consensus.synthesis import CLOSING, INSTRUCTION

MAX_TOKENS = 256
AT_ONCE = 4  # items: their samples share the decode steps

Progress = Callable[[int, int], None]


async def experts_of(url: str, key: str | None) -> list[str]:
    """The plain models of a port that are on its machine."""
    status, body = await get(f"{url}/models", key)
    if status != 200:
        raise BenchError(f"{url}/models: HTTP {status}: {body[:200]}")
    rows = json.loads(body)["data"]
    names = [row["id"] for row in rows if row.get("state") in ("ready", "available", "loading")]
    if not any(row["id"] == "consensus" for row in rows):
        raise BenchError(f"{url} is no consensus port")
    return names


class Cache:
    """Answers on disk, one line each, so that a run that was cut short goes on and later ones ask nothing again."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found: dict[str, str] = {}
        if path is not None and path.exists():
            rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
            self._found = {row["key"]: row["text"] for row in rows}

    def get(self, key: str) -> str | None:
        return self._found.get(key)

    def put(self, key: str, text: str) -> None:
        self._found[key] = text
        if self._path is not None:
            files.append(self._path, json.dumps({"key": key, "text": text}, ensure_ascii=False))


class Collector:
    def __init__(
        self,
        url: str,
        key: str | None,
        cache: Cache,
        num_samples: int,
        temperature: float,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        self._key = key
        self._url, self._cache = url, cache
        self._num_samples, self._temperature, self._max_tokens = num_samples, temperature, max_tokens

    async def collect(self, items: Sequence[Item], experts: Sequence[str], progress: Progress) -> list[Collected]:
        """Expert by expert, so that a pool with room for one loads each only once."""
        answers: list[dict[str, list[str]]] = [{} for _ in items]
        num_done, total = 0, len(items) * len(experts)
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(index: int, expert: str) -> None:
            nonlocal num_done
            async with gate:
                answers[index][expert] = await self._samples(items[index].prompt, expert)
            num_done += 1
            progress(num_done, total)

        for expert in experts:
            await asyncio.gather(*(one(index, expert) for index in range(len(items))))
        return [Collected(item, found) for item, found in zip(items, answers, strict=True)]

    async def _samples(self, prompt: str, expert: str) -> list[str]:
        return list(await asyncio.gather(*(self.ask(prompt, expert, seed) for seed in range(self._num_samples))))

    async def ask(self, prompt: str, model: str, seed: int) -> str:
        key = json.dumps([model, prompt, seed, self._temperature, self._max_tokens], ensure_ascii=False)
        if (known := self._cache.get(key)) is not None:
            return known
        body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}], "seed": seed}
        body |= {"temperature": self._temperature, "max_tokens": self._max_tokens}
        text = ""
        async for chunk in stream_events(self._url, body, self._key):
            text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
        self._cache.put(key, text)
        return text

    async def synthesize(self, collected: Sequence[Collected], aggregator: str, progress: Progress) -> list[str]:
        """What the aggregator makes of each item's first answers, given to it as the service would."""
        found = []
        for number, one in enumerate(collected, 1):
            firsts = [texts[0] for texts in one.answers.values() if texts and texts[0].strip()]
            answers = "".join(f"Answer {chr(65 + i)}:\n{text.strip()}\n\n" for i, text in enumerate(firsts))
            prompt = f"{INSTRUCTION}\n\nRequest:\n{one.item.prompt}\n\n{answers}{CLOSING}"
            found.append(await self.ask(prompt, aggregator, 0))
            progress(number, len(collected))
        return found

    async def judge(self, judge: str, prompt: str, first: str, second: str) -> float:
        """1: the first is better in both orders; 0: the second; 0.5: the judge goes by the order, or by nothing."""
        ahead = await self._verdict(judge, prompt, first, second)
        swapped = await self._verdict(judge, prompt, second, first)
        if ahead == "A" and swapped == "B":
            return 1.0
        return 0.0 if ahead == "B" and swapped == "A" else 0.5

    async def _verdict(self, judge: str, prompt: str, a: str, b: str) -> str | None:
        task = "Which answer to the request is better? Say A or B and nothing else."
        text = f"{task}\n\nRequest:\n{prompt}\n\nAnswer A:\n{a}\n\nAnswer B:\n{b}"
        found = (await self.ask(text, judge, 0)).strip().upper()[:1]
        return found if found in ("A", "B") else None
