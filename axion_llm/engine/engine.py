"""The engine: takes requests, and in each step schedules, runs one llama_decode, and turns logits into events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from axion_llm.engine.binding import Batch, LlamaModel, Logits
from axion_llm.engine.sampler import Sampler, token_logprobs
from axion_llm.engine.scheduler import Scheduler, Slice, Step
from axion_llm.engine.sequence import Sequence, Status
from axion_llm.engine.text import TextStream
from axion_llm.errors import AxionError, BadRequest, ContextLengthExceeded, EngineError
from axion_llm.worker.messages import (
    Accepted,
    EngineStats,
    Event,
    Failed,
    Finished,
    FinishReason,
    Generate,
    Piece,
    TokenLogprob,
)


@dataclass(eq=False)
class _Output:
    """What a sequence has produced and not sent yet."""

    sampler: Sampler
    text: TextStream
    num_unsent: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)


class Engine:
    """Not thread-safe: one thread calls it. `tokenize` alone may run elsewhere."""

    def __init__(self, model: LlamaModel) -> None:
        self.model = model
        self.scheduler = Scheduler(model.n_ctx, model.n_seq_max, model.n_batch)
        self.max_request_tokens = min(model.n_ctx, model.n_ctx_train)
        self._batch = Batch(model.n_batch)
        self._sequences: dict[str, Sequence] = {}
        self._outputs: dict[str, _Output] = {}
        self._num_steps = self._num_prompt_tokens = self._num_output_tokens = 0
        self._step_seconds = self._decode_seconds = 0.0

    # ---- requests

    def tokenize(self, request: Generate) -> list[int]:
        """The prompt's tokens; BadRequest for ids that the vocabulary does not have. Safe beside a running step."""
        if isinstance(request.prompt, list):
            wrong = next((t for t in request.prompt if not 0 <= t < self.model.n_vocab), None)
            if wrong is not None:
                raise BadRequest(f"prompt: token {wrong} is not in 0..{self.model.n_vocab - 1}", param="prompt")
            return list(request.prompt)
        # A chat template that writes the BOS itself must not get a second one.
        bos = self.model.piece_text(self.model.bos)
        add_special = request.add_special and not (bos and request.prompt.startswith(bos))
        return self.model.tokenize(request.prompt, add_special, request.parse_special)

    def add(self, request: Generate, tokens: list[int]) -> Accepted:
        """Queue a tokenised request; raises a RequestError when it can never run."""
        if request.request_id in self._sequences:
            raise BadRequest(f"request id {request.request_id} is in use")
        if not tokens:
            raise BadRequest("the prompt is empty", param="prompt")
        limit, wanted = self.max_request_tokens, request.max_tokens
        if len(tokens) + (1 if wanted is None else wanted) > limit:
            asked = "" if wanted is None else f" and {wanted} of output"
            raise ContextLengthExceeded(
                f"This model's maximum context length is {limit} tokens, but the request has {len(tokens)} tokens "
                f"of prompt{asked}. Shorten the prompt{'' if wanted is None else ' or lower max_tokens'}.",
                param="prompt",
            )
        max_total = limit if wanted is None else len(tokens) + wanted
        sequence = Sequence(request, tokens, max_total, time.monotonic())
        self._outputs[request.request_id] = _Output(
            Sampler(self.model, request.sampling, tokens), TextStream(request.stop)
        )
        self._sequences[request.request_id] = sequence
        self.scheduler.add(sequence)
        return Accepted(request.request_id, len(tokens))

    def cancel(self, request_id: str) -> Finished | None:
        """End a request now, its cells free; None when it is not (or no longer) here."""
        sequence = self._sequences.get(request_id)
        return self._finish(sequence, "cancelled") if sequence else None

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    # ---- the step

    def step(self) -> list[Event]:
        """One step for all sequences; the events to send."""
        started = time.perf_counter()
        step = self._schedule()
        events = self._run(step)
        self._num_steps += 1
        self._step_seconds += time.perf_counter() - started
        return events

    def _schedule(self) -> Step:
        step = self.scheduler.schedule()
        for seq_id in step.preempted:
            self.model.remove_sequence(seq_id)
        return step

    def _run(self, step: Step) -> list[Event]:
        """Compute the step: what it gives, or, when it cannot be computed, how the sequences concerned end."""
        now = time.monotonic()
        self._batch.clear()
        for s in step.slices:
            sequence = s.sequence
            sequence.first_scheduled = sequence.first_scheduled or now
            tokens = sequence.tokens[s.start : s.start + s.count]
            self._batch.add(tokens, s.start, sequence.seq_id, s.wants_logits)
        started = time.perf_counter()
        try:
            fits = self.model.decode(self._batch)
        except EngineError as e:
            return [self._fail(s.sequence, e) for s in step.slices]
        self._decode_seconds += time.perf_counter() - started
        if not fits:
            return self._handle_full_cache(step)
        self.scheduler.commit(step)
        return list(self._postprocess(step))

    def _handle_full_cache(self, step: Step) -> list[Event]:
        """Our count of cells said that it fits, llama.cpp disagrees (a cache with rules of its own): believe it."""
        seq_id = self.scheduler.shrink_to_fit()
        if seq_id is None:
            error = EngineError("the KV cache has no room for this request, though nothing else is in it")
            return [self._fail(s.sequence, error) for s in step.slices]
        self.model.remove_sequence(seq_id)
        return []

    def _postprocess(self, step: Step) -> Iterator[Event]:
        done = [s for s in step.slices if s.sequence.num_to_compute == 0]
        self._num_prompt_tokens += sum(s.count for s in step.slices if not s.sequence.num_output)
        if not done:
            return
        logits = self.model.logits(len(done))
        best = logits.argmax(axis=1).tolist()
        batch_index = self._output_indexes(step)
        for row, s in enumerate(done):
            try:
                token = self._next_token(s, logits, row, best[row], batch_index[row])
            except AxionError as e:
                yield self._fail(s.sequence, e)
                continue
            event = self._append(s.sequence, token)
            if event:
                yield event

    @staticmethod
    def _output_indexes(step: Step) -> list[int]:
        """Where in the batch the tokens with logits are."""
        indexes, end = [], 0
        for s in step.slices:
            end += s.count
            if s.sequence.num_to_compute == 0:
                indexes.append(end - 1)
        return indexes

    def _next_token(self, s: Slice, logits: Logits, row: int, best: int, batch_index: int) -> int:
        if logits[row, best] != logits[row, best]:
            raise EngineError("the model's logits are not numbers: a damaged model file, or a kernel that went wrong")
        output, request = self._outputs[s.sequence.request_id], s.sequence.request
        token = best if output.sampler.is_greedy else output.sampler.sample(batch_index)
        if request.top_logprobs is not None and not self._ends(request, token):
            output.logprobs.append(token_logprobs(self.model, logits[row], token, request.top_logprobs))
        return token

    def _ends(self, request: Generate, token: int) -> bool:
        return not request.ignore_eos and self.model.is_end(token)

    def _append(self, sequence: Sequence, token: int) -> Event | None:
        """A new token of a sequence: what it gives to show, or how it ends."""
        sequence.first_token = sequence.first_token or time.monotonic()
        sequence.tokens.append(token)
        self._num_output_tokens += 1
        output = self._outputs[sequence.request_id]
        output.num_unsent += 1
        if self._ends(sequence.request, token):
            return self._finish(sequence, "stop")
        text = output.text.feed(self.model.piece(token))
        if output.text.stopped is not None:
            return self._finish(sequence, "stop", text)
        if sequence.is_full:
            return self._finish(sequence, "length", text)
        if not text and not output.logprobs:
            return None
        piece = Piece(sequence.request_id, text, output.num_unsent, output.logprobs)
        output.num_unsent, output.logprobs = 0, []
        return piece

    # ---- endings: every request leaves through one of these two

    def _finish(self, sequence: Sequence, reason: FinishReason, text: str = "") -> Finished:
        output = self._forget(sequence)
        now = time.monotonic()
        started, first = sequence.first_scheduled or now, sequence.first_token or now
        return Finished(
            sequence.request_id,
            reason,
            text + output.text.finish(),
            prompt_tokens=sequence.num_prompt,
            completion_tokens=sequence.num_output,
            cached_tokens=0,
            logprobs=output.logprobs,
            stop=output.text.stopped,
            queue_ms=(started - sequence.arrival) * 1e3,
            prefill_ms=(first - started) * 1e3,
            decode_ms=(now - first) * 1e3,
        )

    def _fail(self, sequence: Sequence, error: AxionError) -> Failed:
        self._forget(sequence)
        return Failed(sequence.request_id, error.code, error.message, error.param)

    def _forget(self, sequence: Sequence) -> _Output:
        if sequence.status is not Status.ENDED:
            freed = self.scheduler.end(sequence)
            if freed is not None:
                self.model.remove_sequence(freed)
        del self._sequences[sequence.request_id]
        output = self._outputs.pop(sequence.request_id)
        output.sampler.close()
        return output

    # ---- seeing it

    def stats(self) -> EngineStats:
        return EngineStats(
            num_steps=self._num_steps,
            num_prompt_tokens=self._num_prompt_tokens,
            num_output_tokens=self._num_output_tokens,
            num_running=len(self.scheduler.running),
            num_waiting=len(self.scheduler.waiting),
            kv_used_tokens=self.scheduler.cells_used,
            kv_total_tokens=self.scheduler.num_cells,
            step_seconds=self._step_seconds,
            decode_seconds=self._decode_seconds,
            num_graph_reuses=self.model.num_graph_reuses(),
        )
