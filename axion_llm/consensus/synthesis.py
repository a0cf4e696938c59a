"""One answer written from several: the aggregator's prompt, read ahead as answers arrive, and the writing itself.

The prompt begins with what is fixed (instruction, conversation, question) and goes on with one answer after another, so
each stretch can be read into the model's prefix cache before the next one is there: when the last expert ends, only its
answer is left to read. Answers carry letters instead of names, and those that wait together are shuffled by the
request's seed. The order still follows arrival from stretch to stretch: that is the price of reading ahead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from axion_llm.api import structured
from axion_llm.api.params import Origin, chat_generates
from axion_llm.api.schemas import Message
from axion_llm.consensus.attempt import Attempt
from axion_llm.consensus.facts import last_user_text
from axion_llm.consensus.happenings import Aggregating, Text
from axion_llm.consensus.plan import Plan
from axion_llm.consensus.prompt import continued, cut_at
from axion_llm.errors import AxionError, DeadlineExceeded, ServiceError
from axion_llm.models.spec import ModelSpec
from axion_llm.pool.interface import ModelPool, RunningModel
from axion_llm.worker.messages import Accepted, Finished, Generate, Loaded, Piece

if TYPE_CHECKING:
    from axion_llm.consensus.orchestrator import Task

INSTRUCTION = (
    "Several assistants have answered the request below, each on its own. Some of what they say may be wrong. Weigh "
    "their answers critically and write the best answer to the request, in the language and the form that it asks for."
)
CLOSING = "Write the best answer to the request now. Do not mention the assistants or their answers."
CUT = "<axion:cut>"  # where a prompt that is still growing ends: templates may trim, but not before this
PARTIAL_CHARS = 160  # of the last answer, while it is written: a stretch that is worth a call
SHORTEST_ANSWER_CHARS = 4000  # an answer is never cut below this
CHARS_PER_TOKEN = 3  # on the careful side of what models need for English

_log = logging.getLogger(__name__)


class Synthesis:
    """For one request: note() each answer, then write()."""

    def __init__(
        self, pool: ModelPool, specs: Mapping[str, ModelSpec], task: Task, plan: Plan, now: Callable[[], float]
    ) -> None:
        self._pool, self._specs, self._task, self._plan, self._now = pool, specs, task, plan, now
        self._random = random.Random(task.request.seed if task.request.seed is not None else task.id)
        self._order: list[Attempt] = []  # as far as it is settled
        self._waiting: list[Attempt] = []
        self._last: Attempt | None = None  # the only one still at work, when there is one
        self._num_read = 0  # characters of it
        self._reading: asyncio.Task[None] | None = None
        self._num_calls = 0
        self._text = ""
        self.judge: str | None = None
        self.failures: list[tuple[str, str]] = []
        self.usage = (0, 0, 0)  # prompt, cached, completion tokens of the writing
        self.finish_reason = "stop"

    @property
    def is_written(self) -> bool:
        return bool(self._text.strip())

    # ---- reading ahead

    def note(self, attempt: Attempt, attempts: Sequence[Attempt]) -> None:
        """Something is new of an attempt: read it now if there may be a synthesis."""
        if self._plan.method != "synthesize" or not self._task.options.pre_evaluate:
            return
        if attempt.is_ok and attempt not in self._order and attempt not in self._waiting:
            self._waiting.append(attempt)
        live = [a for a in attempts if a.is_live]
        self._last = live[0] if len(live) == 1 and (self._order or self._waiting) else None
        if (self._waiting or self._has_partial) and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read_ahead())

    @property
    def _has_partial(self) -> bool:
        return self._last is not None and len(self._last.text) - self._num_read >= PARTIAL_CHARS

    async def _read_ahead(self) -> None:
        """Never a reason to fail: what is not read ahead is read later."""
        model = self._plan.aggregators[0]
        try:
            async with self._pool.lease(model) as running:
                while self._waiting or self._has_partial:
                    await self._read(running, await self._next_stretch(model, running.info))
        except AxionError as exc:
            _log.info("id=%s: %s does not read ahead: %s", self._task.id, model, exc.message)
        except Exception:
            _log.exception("id=%s: %s does not read ahead", self._task.id, model)

    async def _next_stretch(self, model: str, info: Loaded) -> Generate:
        """The answers that are there; then, as the last one is bound to stand last, what it has written so far."""
        if self._waiting:
            self._settle_order(self._waiting)
            self._waiting = []
            return await self._generate(model, info, tail=CUT)
        assert self._last is not None
        self._num_read = len(self._last.text)
        written = self._last.text.lstrip().rpartition(" ")[0]  # to the end of a word, for tokens begin with a space
        return await self._generate(model, info, tail=f"{_label(len(self._order))}{written}{CUT}")

    async def _read(self, running: RunningModel, request: Generate) -> None:
        async with aclosing(running.generate(request)) as events:
            async for _ in events:
                pass

    def _settle_order(self, attempts: Sequence[Attempt]) -> None:
        new = [a for a in attempts if a not in self._order]
        self._random.shuffle(new)
        self._order += new

    # ---- writing

    async def write(self, attempts: Sequence[Attempt]) -> AsyncGenerator[Aggregating | Text, None]:
        """The text as it comes; nothing when no aggregator can. See is_written, judge, failures, usage."""
        await self.close()  # what has been read stays in the prefix cache
        self._order = [a for a in self._order if a in attempts]
        self._settle_order(attempts)
        for model in self._plan.aggregators:
            if self._now() >= self._plan.limits.deadline:
                break
            yield Aggregating(model)
            self.judge = model
            try:
                async with aclosing(self._write_with(model)) as texts:
                    async for text in texts:
                        yield Text(text)
                return
            except AxionError as exc:
                self.failures.append((model, exc.public_message))
                _log.info("id=%s: aggregator %s: %s", self._task.id, model, exc.message)
            except Exception:
                self.failures.append((model, "internal error"))
                _log.exception("id=%s: aggregator %s: unexpected error", self._task.id, model)
        if self.is_written:  # half a text is shown already: it ends here
            self.finish_reason = "length"
        else:
            self.judge = None

    async def _write_with(self, model: str) -> AsyncGenerator[str, None]:
        """Goes on after what an aggregator before it has shown."""
        async with contextlib.AsyncExitStack() as stack:
            running = await self._within(stack.enter_async_context(self._pool.lease(model)), self._left(), model)
            request = await self._generate(model, running.info, tail=CLOSING)
            events = await stack.enter_async_context(aclosing(running.generate(request)))
            first = min(self._left(), self._plan.limits.first_token.get(model, self._left()))
            num_shown = 0
            while True:
                event = await self._within(anext(events), self._left() if num_shown else first, model)
                if isinstance(event, Accepted):
                    self._count(event.prompt_tokens, 0, 0)
                text = event.text if isinstance(event, Piece | Finished) else ""
                text = text if self._text else text.lstrip()
                if text:
                    self._text += text
                    num_shown += 1
                    yield text
                if isinstance(event, Finished):
                    self._count(0, event.cached_tokens, event.completion_tokens)
                    if not self.is_written:
                        raise ServiceError(f"{model} wrote nothing")
                    self.finish_reason = event.reason
                    return

    def _left(self) -> float:
        return self._plan.limits.deadline - self._now()

    async def _within(self, awaitable: object, seconds: float, model: str):  # type: ignore[no-untyped-def]
        try:
            return await asyncio.wait_for(awaitable, max(seconds, 0.0))  # type: ignore[arg-type]
        except asyncio.TimeoutError:
            raise DeadlineExceeded(f"{model}: nothing came for {seconds:.1f} s") from None
        except StopAsyncIteration:
            raise ServiceError(f"{model} ended without a word") from None

    def _count(self, prompt: int, cached: int, completion: int) -> None:
        self.usage = (self.usage[0] + prompt, self.usage[1] + cached, self.usage[2] + completion)

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading}, timeout=0.5)

    # ---- the prompt

    async def _generate(self, model: str, info: Loaded, *, tail: str) -> Generate:
        self._num_calls += 1
        is_whole = tail == CLOSING
        content = self._content(info) + tail
        messages = with_last_user_text(self._task.request.messages, content)
        changes: dict[str, object] = {"model": model, "n": 1, "messages": messages}
        if not is_whole:
            changes |= dict.fromkeys(structured.FIELDS)
        task = self._task
        origin = Origin(f"{task.id}-s{self._num_calls}", self._specs[model], task.is_interactive, task.tenant)
        asked = self._task.request.model_copy(update=changes)
        if self._task.is_large:  # Python at work for long: not in the event loop, which the streams need
            [request] = await asyncio.to_thread(chat_generates, asked, origin, info)
        else:
            [request] = chat_generates(asked, origin, info)
        if is_whole:
            return continued(request, self._text, info)
        cut = cut_at(request, CUT)
        return msgspec.structs.replace(cut, max_tokens=1, stop=[], ignore_eos=True)

    def _content(self, info: Loaded) -> str:
        """Without its end: a longer list of answers goes on where a shorter one stops."""
        question = last_user_text(self._task.request.messages)
        room = (info.n_ctx * CHARS_PER_TOKEN - len(question)) // max(1, len(self._plan.slots))
        limit = max(SHORTEST_ANSWER_CHARS, room)
        answers = [f"{_label(i)}{a.text.strip()[:limit]}\n\n" for i, a in enumerate(self._order)]
        return f"{INSTRUCTION}\n\nRequest:\n{question}\n\n{''.join(answers)}"


def _label(index: int) -> str:
    return f"Answer {chr(ord('A') + index) if index < 26 else index + 1}:\n"


def with_last_user_text(messages: Sequence[Message], content: str) -> list[Message]:
    """The conversation with another text as the last thing the user said."""
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=None)
    if last is None:
        return [*messages, Message(role="user", content=content)]
    return [m.model_copy(update={"content": content}) if i == last else m for i, m in enumerate(messages)]
