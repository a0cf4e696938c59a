"""A `ModelPool` without models: scripted replies, faults at any point, a record of what was asked."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from axion_llm.errors import BadRequest, ModelInUse, ModelNotFound
from axion_llm.kernels.footing import Footing
from axion_llm.models.spec import ModelSpec, Source
from axion_llm.pool.interface import ModelState, ModelStatus, RunningModel
from axion_llm.pool.report import Account, MachineMemory, MemoryReport, ProcessMemory, WorkerMemory
from axion_llm.worker.messages import (
    Accepted,
    Detokenize,
    Detokenized,
    Embed,
    Embedded,
    EngineStats,
    Event,
    Finished,
    FinishReason,
    Generate,
    Loaded,
    Piece,
    Tokenize,
    Tokenized,
    TokenLogprob,
)

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INFO = Loaded(
    n_ctx=2048,
    n_seq_max=16,
    n_vocab=1000,
    n_params=1,
    size_bytes=1,
    kv_bytes=1,
    architecture="fake",
    description="a fake",
    chat_template=CHATML,
    bos_token="<s>",
    eos_token="</s>",
    load_seconds=0.0,
    n_embd=4,
    n_embedding_tokens=64,
)


def spec(name: str, **fields: object) -> ModelSpec:
    plain = ModelSpec(name=name, source=Source(package="fake"), file="fake.gguf")
    return replace(plain, **fields)  # type: ignore[arg-type]


@dataclass
class Script:
    """What the next requests get. `hang_after`: wait for ever once so many pieces are out."""

    pieces: Sequence[str] = ("Hel", "lo", " world")
    reason: FinishReason = "stop"
    delay: float = 0.0
    last_text: str = ""
    cached: int = 0
    reject: Exception | None = None  # instead of Accepted
    fail: Exception | None = None  # after `fail_after` pieces
    fail_after: int = 0
    hang_after: int | None = None
    has_end: bool = True  # False: it stops without Finished, which a worker never should
    wait: bool = True  # yield to the loop between pieces; without, they are all there at once


@dataclass
class FakePool:
    specs: list[ModelSpec] = field(default_factory=lambda: [spec("fake"), spec("org/other")])
    info: Loaded = INFO
    script: Script = field(default_factory=Script)
    scripts: dict[str, Callable[[Generate], Script]] = field(default_factory=dict)  # of single models, by request
    states: dict[str, ModelState] = field(default_factory=dict)
    load_seconds: float = 0.0
    load_error: Exception | None = None
    requests: list[Generate] = field(default_factory=list)
    questions: list[Embed | Tokenize] = field(default_factory=list)
    num_running: int = 0
    num_leases: int = 0
    num_cancelled: int = 0
    is_warm: bool = True
    is_stopped: bool = False
    registry_error: str | None = None
    footing: Footing = field(default_factory=Footing)
    orders: list[tuple[object, ...]] = field(default_factory=list)  # load, unload, pin
    stats: EngineStats = field(default_factory=EngineStats)
    pinned: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)  # why, by name
    seconds_silent: float = 0.0  # of the first model
    report: MemoryReport = field(
        default_factory=lambda: MemoryReport(
            MachineMemory(8 << 30, 6 << 30, 7 << 30, 1 << 30),
            ProcessMemory(1, 90 << 20, 80 << 20, 70 << 20),
            {
                "fake": WorkerMemory(
                    ProcessMemory(2, 500 << 20, 450 << 20, 400 << 20, 100 << 20), 170 << 20, 320 << 20, 50 << 20
                )
            },
            (ProcessMemory(3, 60 << 20, 50 << 20, 40 << 20),),
        )
    )
    history: dict[str, Account] = field(default_factory=dict)

    def models(self) -> list[ModelStatus]:
        return [
            ModelStatus(
                s,
                "failed" if s.name in self.failed else self.states.get(s.name, "available" if i else "ready"),
                self.failed.get(s.name),
                is_pinned=s.name in self.pinned,
                seconds_silent=0 if i else self.seconds_silent,
            )
            for i, s in enumerate(self.specs)
        ]

    def running(self) -> dict[str, RunningModel]:
        return {self.specs[0].name: FakeModel(self, self.specs[0].name)}

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncIterator[FakeModel]:
        if name not in [s.name for s in self.specs]:
            raise ModelNotFound(f"There is no model {name!r}.", param="model")
        self.num_leases += 1
        try:
            await asyncio.sleep(self.load_seconds)
            if self.load_error is not None:
                raise self.load_error
            yield FakeModel(self, name)
        finally:
            self.num_leases -= 1

    async def load(self, name: str) -> None:
        self.orders.append(("load", name))
        async with self.lease(name):
            pass

    async def unload(self, name: str, *, force: bool = False) -> None:
        self.orders.append(("unload", name, force))
        if self.num_running and not force:
            raise ModelInUse(f"{name} has {self.num_running} requests in flight")

    def pin(self, name: str, is_pinned: bool) -> None:
        self.orders.append(("pin", name, is_pinned))
        (self.pinned.add if is_pinned else self.pinned.discard)(name)

    async def memory(self) -> MemoryReport:
        return self.report

    def accounts(self) -> dict[str, Account]:
        return self.history

    async def reload(self) -> None:
        self.orders.append(("reload",))

    def is_ready(self) -> bool:
        return self.is_warm

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        self.is_stopped = True


class FakeModel:
    def __init__(self, pool: FakePool, name: str) -> None:
        self._pool, self._name = pool, name

    @property
    def info(self) -> Loaded:
        return self._pool.info

    async def stats(self) -> EngineStats:
        return self._pool.stats

    async def embed(self, request: Embed) -> Embedded:
        """Each vector points along the axis of its input's length."""
        self._pool.questions.append(request)
        self._pool.num_running += 1
        try:
            await _pause(self._pool.script, 0)
            vectors = [struct.pack("<4f", *(float(len(i) % 4 == axis) for axis in range(4))) for i in request.inputs]
            return Embedded(request.request_id, vectors, sum(map(len, request.inputs)))
        except asyncio.CancelledError:
            self._pool.num_cancelled += 1
            raise
        finally:
            self._pool.num_running -= 1

    async def tokenize(self, request: Tokenize) -> Tokenized:
        """A token for each byte."""
        self._pool.questions.append(request)
        data = request.content.encode()
        return Tokenized(request.request_id, list(data), [bytes([byte]) for byte in data])

    async def detokenize(self, request: Detokenize) -> Detokenized:
        if max(request.tokens, default=0) > 255:
            raise BadRequest("tokens: not a token of this model", param="tokens")
        return Detokenized(request.request_id, bytes(request.tokens).decode("utf-8", "replace"))

    async def generate(self, request: Generate) -> AsyncGenerator[Event, None]:
        pool = self._pool
        script = pool.scripts[self._name](request) if self._name in pool.scripts else pool.script
        pool.requests.append(request)
        pool.num_running += 1
        has_ended = False
        try:
            async for event in _events(request, script):
                has_ended = isinstance(event, Finished)
                yield event
        except Exception:
            has_ended = True
            raise
        finally:
            pool.num_running -= 1
            pool.num_cancelled += not has_ended


async def _events(request: Generate, script: Script) -> AsyncIterator[Event]:
    if script.reject is not None:
        raise script.reject
    prompt_tokens = len(request.prompt.split()) if isinstance(request.prompt, str) else len(request.prompt)
    yield Accepted(request.request_id, prompt_tokens)
    pieces = script.pieces[: request.max_tokens]
    for number, text in enumerate(pieces):
        await _pause(script, number)
        yield Piece(request.request_id, text, 1, _logprobs(request, text))
    await _pause(script, len(pieces))
    if not script.has_end:
        return
    reason: FinishReason = "length" if len(pieces) < len(script.pieces) else script.reason
    yield Finished(request.request_id, reason, script.last_text, prompt_tokens, len(pieces), script.cached)


async def _pause(script: Script, number: int) -> None:
    if script.wait:
        await asyncio.sleep(script.delay)
    if script.hang_after is not None and number >= script.hang_after:
        await asyncio.Event().wait()
    if script.fail is not None and number >= script.fail_after:
        raise script.fail


def _logprobs(request: Generate, text: str) -> list[TokenLogprob]:
    if request.top_logprobs is None:
        return []
    piece = text.encode()
    return [TokenLogprob(1, piece, -0.5, [(i, piece + b"!" * i, -0.5 - i) for i in range(request.top_logprobs)])]
