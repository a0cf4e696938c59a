"""The engine: takes requests, and in each step schedules, runs one llama_decode, and turns logits into events."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from itertools import accumulate

from axion_llm.engine.binding import Batch, LlamaModel, Logits
from axion_llm.engine.constraint import ConstrainedDrafter, Constraint, Masks
from axion_llm.engine.counters import Counters
from axion_llm.engine.drafting import Drafter
from axion_llm.engine.echo import echo
from axion_llm.engine.embedder import Embedder
from axion_llm.engine.grammars import Grammars
from axion_llm.engine.output import Output
from axion_llm.engine.pacing import CHUNK_SIZES, Pacing
from axion_llm.engine.prefix_cache import Border, PrefixCache
from axion_llm.engine.queue_limit import QueueLimit
from axion_llm.engine.sampler import token_logprobs
from axion_llm.engine.scheduler import Scheduler, Slice, Step
from axion_llm.engine.sequence import Sequence, Status
from axion_llm.engine.vision import Vision
from axion_llm.engine.vocabulary import Prompt, Vocabulary
from axion_llm.errors import AxionError, BadRequest, ContextLengthExceeded, EngineError, unexpected
from axion_llm.worker.messages import (
    Accepted,
    Embedded,
    EngineStats,
    Event,
    Failed,
    Finished,
    FinishReason,
    Generate,
    Piece,
)

_log = logging.getLogger(__name__)


class Engine:
    """Not thread-safe: one thread calls it. `tokenize` alone may run elsewhere."""

    def __init__(self, model: LlamaModel) -> None:
        self.model, load = model, model.load
        self.scheduler = Scheduler(
            PrefixCache(model, model.num_seq_ids, is_on=model.has_positions),
            num_cells=model.n_ctx,
            max_running=model.n_seq_max,
            n_batch=model.n_batch,
            pacing=Pacing(load.step_seconds),
            steps_per_decision=load.steps_per_decision,
        )
        self.max_request_tokens = min(model.n_ctx, model.n_ctx_train)
        self.queue = QueueLimit(self.scheduler, load.max_waiting, load.max_waiting_tokens or 8 * model.n_ctx)
        self.embedder = Embedder(model)
        self.vision = Vision(model, load.mmproj) if load.mmproj else None
        self.vocabulary = Vocabulary(model, self.vision)
        self.grammars = Grammars(model)
        self._masks = Masks(model.n_vocab)
        self._speculation = load.speculation
        self._batch = Batch(model.n_batch)
        self._sequences: dict[str, Sequence] = {}
        self._outputs: dict[str, Output] = {}
        self.counters = Counters()

    def warm_up(self) -> None:
        """Run the shapes that requests will: the weights come into memory, and the pacing knows this machine."""
        if self.model.is_encoder:
            return
        tokens = [0] * CHUNK_SIZES[0]
        for count in (1, 1, len(tokens)):
            self._batch.clear()
            self._batch.add(tokens[:count], 0, 0, num_outputs=1)
            started = time.perf_counter()
            self.model.decode(self._batch)
            seconds = time.perf_counter() - started
            self.model.truncate(0, 0)
        self.scheduler.pacing.observe(0, len(tokens), seconds)

    # ---- requests

    def tokenize(self, request: Generate) -> list[int]:
        """The prompt's tokens; BadRequest for ids that the vocabulary does not have. Safe beside a running step."""
        if self.model.is_encoder:
            raise BadRequest("model: this one only embeds texts; use /v1/embeddings", param="model")
        return self.vocabulary.prompt_tokens(request)

    def compile(self, request: Generate, is_wanted: Callable[[], bool] = lambda: True) -> Constraint | None:
        """Of its grammar; BadRequest when it does not compile. Takes its time, and is safe beside a running step.

        Given up, with Overloaded, when `is_wanted` turns false.
        """
        if request.grammar is None:
            return None
        try:
            return self.grammars.constraint(request.grammar, request.tenant, is_wanted)
        except BadRequest:
            if request.grammar.is_optional:
                return None
            raise

    def add(self, request: Generate, tokens: list[int], constraint: Constraint | None = None) -> Accepted:
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
                param="prompt" if wanted is None or len(tokens) >= limit else "max_tokens",
            )
        max_total = limit if wanted is None else len(tokens) + wanted
        text = [t for t in tokens if t >= 0] if request.images else tokens  # a picture's ids are no words
        pictures = tokens.pictures if isinstance(tokens, Prompt) else []
        drafter = self._drafter(request, text, constraint)
        border = Border(request.tenant, self.vocabulary.num_public_tokens(request, tokens))
        sequence = Sequence(request, tokens, max_total, time.monotonic(), drafter, pictures, border)
        self._outputs[request.request_id] = Output.of(request, text, constraint, self.model)
        self._sequences[request.request_id] = sequence
        self.scheduler.add(sequence)
        return Accepted(request.request_id, len(tokens))

    def _drafter(self, request: Generate, tokens: list[int], constraint: Constraint | None) -> Drafter | None:
        if (request.speculation or self._speculation) == "off" or not self.model.has_positions:
            return None
        drafter = ConstrainedDrafter(constraint) if constraint else Drafter()
        drafter.extend(tokens)
        return drafter

    def cancel(self, request_id: str) -> Finished | Failed | None:
        """End a request now, its cells free; None when it is not (or no longer) here."""
        sequence = self._sequences.get(request_id)
        try:
            return self._finish(sequence, "cancelled") if sequence else None
        except Exception as error:
            assert sequence is not None
            return self._fault(sequence, error)

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work or self.embedder.has_work

    # ---- the step

    def step(self) -> list[Event]:
        """One step for all sequences; the events to send."""
        if not self.scheduler.has_work:
            return []
        started = time.perf_counter()
        step = self.scheduler.schedule(time.monotonic())
        try:
            events = self._run(step)
        except Exception as error:  # of nobody in particular: who is in this step ends, who waits goes on
            _log.exception("a step failed")
            live = [s.sequence for s in step.slices if s.sequence.request_id in self._sequences]
            events = [self._fail(sequence, unexpected(error)) for sequence in live]
        self.counters.count_step(time.perf_counter() - started)
        return events

    def step_embeddings(self) -> list[Embedded | Failed]:
        """Between two steps, as much as keeps the streams flowing; alone, as much as a batch takes."""
        return self.embedder.step(is_alone=not self.scheduler.has_work) if self.embedder.has_work else []

    def _run(self, step: Step) -> list[Event]:
        """Compute the step: what it gives, or, when it cannot be computed, how the sequences concerned end."""
        self._fill_batch(step)
        picture = step.slices[0].sequence.picture_at(step.slices[0].start) if step.slices else None
        num_reuses = self.model.num_graph_reuses()
        started = time.perf_counter()
        self._want_masks(step)
        try:
            with self._masks.beside():
                fits = (
                    self.model.decode_picture(self._batch, picture.seen) if picture else self.model.decode(self._batch)
                )
        except EngineError as e:
            return [self._fail(s.sequence, e) for s in step.slices]
        seconds = time.perf_counter() - started
        if not fits:
            return self._handle_full_cache(step)
        self.counters.count_decode(step, seconds, self.model.num_graph_reuses() - num_reuses)
        self.scheduler.pacing.observe(step.num_decodes, step.num_prompt_tokens, seconds)
        self.scheduler.commit(step)
        return list(self._postprocess(step))

    def _fill_batch(self, step: Step) -> None:
        now = time.monotonic()
        self._batch.clear()
        for s in step.slices:
            sequence = s.sequence
            if sequence.first_scheduled is None:
                sequence.first_scheduled = now
                self.counters.num_cached_tokens += sequence.num_cached
            tokens = sequence.tokens[s.start : s.start + s.count] + s.draft
            self._batch.add(tokens, s.start, sequence.seq_id, s.num_outputs)

    def _want_masks(self, step: Step) -> None:
        self._masks.clear()
        row = 0
        for s in step.slices:
            row += s.num_outputs
            if s.wants_logits:
                try:
                    self._outputs[s.sequence.request_id].want_masks(self._masks, row - 1 - len(s.draft), s.draft)
                except Exception as error:  # its tokens are in the batch: it ends behind the step
                    s.sequence.fault = error

    def _handle_full_cache(self, step: Step) -> list[Event]:
        """Our count of cells said that it fits, llama.cpp disagrees (a cache with rules of its own): believe it."""
        if self.scheduler.shrink_to_fit():
            return []
        error = EngineError("the KV cache has no room for this request, though nothing else is in it")
        return [self._fail(s.sequence, error) for s in step.slices]

    def _postprocess(self, step: Step) -> Iterator[Event]:
        done = [s for s in step.slices if s.num_outputs]
        if not done:
            return
        is_alone = len(step.slices) == 1
        most_forced = self.model.n_batch if is_alone else self.scheduler.pacing.spare_tokens(step.num_decodes)
        logits = self.model.logits(sum(s.num_outputs for s in done))
        best: list[int] = logits.argmax(axis=1).tolist()
        ends = list(accumulate(s.num_outputs for s in done))  # before a drawn token makes a slice look unfinished
        for s, start, end in zip(done, [0, *ends], ends, strict=False):
            yield from self._isolated(s.sequence, self._take(s, logits[start:end], best[start:end], start, most_forced))

    def _isolated(self, sequence: Sequence, events: Iterator[Event]) -> Iterator[Event]:
        """What goes wrong for one sequence ends that one: all others are none the wiser."""
        has_ended = False
        try:
            for event in events:
                has_ended = isinstance(event, Finished | Failed)
                yield event
        except Exception as error:
            if not has_ended:
                yield self._fault(sequence, error)

    def _take(self, s: Slice, logits: Logits, best: list[int], first_row: int, most_forced: int) -> Iterator[Event]:
        """What a slice has given: `logits` ([num_outputs, n_vocab]), rows of the step from `first_row` on."""
        sequence = s.sequence
        if sequence.fault:
            raise sequence.fault
        if sequence.wants_prompt_logprobs:
            self._outputs[sequence.request_id].prompt_logprobs.add(self.model, sequence, s.start, logits)
        if not s.wants_logits:
            return
        skipped = len(logits) - 1 - len(s.draft)
        yield from self._begin_answer(sequence)
        if sequence.request_id in self._sequences:
            yield from self._draw(s, logits[skipped:], best[skipped:], first_row + skipped)
            yield from self._append_forced(sequence, most_forced)

    def _begin_answer(self, sequence: Sequence) -> Iterator[Event]:
        """The prompt is computed: it comes first if it is wanted, and may be all that is wanted."""
        if sequence.request.echo and not sequence.is_echoed:
            sequence.is_echoed = True
            yield echo(self.model, sequence, self._outputs[sequence.request_id].prompt_logprobs.take())
        if sequence.max_total == sequence.num_prompt:
            yield self._finish(sequence, "length")

    def _draw(self, s: Slice, logits: Logits, best: list[int], first_row: int) -> Iterator[Event]:
        """The next token; where a guess was right, the one behind it too, and so on. `logits`: [num_outputs, n_vocab].

        Each token is drawn from its own logits whatever was guessed, so guesses never change what comes out.
        """
        sequence, num_accepted = s.sequence, 0
        for row, guess in enumerate([*s.draft, -1]):
            token = self._next_token(sequence, logits[row], best[row], first_row + row)
            num_accepted += token == guess
            sequence.num_computed += token == guess
            event = self._append(sequence, token)
            if event:
                yield event
            if token != guess or sequence.status is Status.ENDED:
                break
        if s.draft:
            self._note_guesses(s, num_accepted)

    def _note_guesses(self, s: Slice, num_accepted: int) -> None:
        sequence = s.sequence
        self.counters.num_drafted_tokens += len(s.draft)
        self.counters.num_accepted_tokens += num_accepted
        if sequence.drafter:
            sequence.drafter.report(len(s.draft), num_accepted)
        if num_accepted < len(s.draft) and sequence.status is Status.RUNNING:
            self.model.truncate(sequence.seq_id, sequence.num_computed)

    def _append_forced(self, sequence: Sequence, most: int) -> Iterator[Event]:
        """Up to `most` tokens that the grammar leaves no choice about, for the next step. Not if logits are wanted."""
        output = self._outputs.get(sequence.request_id)
        if output is None or sequence.request.top_logprobs is not None:
            return
        for token in output.forced[:most]:
            if sequence.status is Status.ENDED:
                return
            self._accept(output, token)
            event = self._append(sequence, token)
            if event:
                yield event

    def _next_token(self, sequence: Sequence, logits: Logits, best: int, row: int) -> int:
        """`logits`: [n_vocab]."""
        if logits[best] != logits[best]:
            raise EngineError("the model's logits are not numbers: a damaged model file, or a kernel that went wrong")
        output, request = self._outputs[sequence.request_id], sequence.request
        token = output.next_token(logits, best, self._masks, row)
        self._accept(output, token)
        if request.top_logprobs is not None and not self._ends(request, token):
            output.logprobs.append(token_logprobs(self.model, logits, token, request.top_logprobs))
        return token

    def _accept(self, output: Output, token: int) -> None:
        self.counters.num_forced_tokens += output.accept(token, output.piece(token, self.model))

    def _ends(self, request: Generate, token: int) -> bool:
        return not request.ignore_eos and self.model.is_end(token)

    def _append(self, sequence: Sequence, token: int) -> Event | None:
        """A new token of a sequence: what it gives to show, or how it ends."""
        sequence.first_token = sequence.first_token or time.monotonic()
        sequence.tokens.append(token)
        if sequence.drafter:
            sequence.drafter.extend([token])
        self.counters.num_output_tokens += 1
        output = self._outputs[sequence.request_id]
        output.num_unsent += 1
        if self._ends(sequence.request, token):
            return self._finish(sequence, "stop")
        text = output.text.feed(output.piece(token, self.model))
        if output.text.stopped is not None or output.is_complete:
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
        output = self._forget(sequence, keep=True)
        text += output.text.finish()
        now = time.monotonic()
        started, first = sequence.first_scheduled or now, sequence.first_token or now
        self.queue.note_end(now - started)
        return Finished(
            sequence.request_id,
            reason,
            text,
            prompt_tokens=sequence.num_prompt,
            completion_tokens=sequence.num_output,
            cached_tokens=sequence.num_cached,
            logprobs=output.logprobs,
            stop=output.text.stopped,
            queue_ms=(started - sequence.arrival) * 1e3,
            prefill_ms=(first - started) * 1e3,
            decode_ms=(now - first) * 1e3,
        )

    def _fault(self, sequence: Sequence, error: Exception) -> Failed:
        """Of this sequence alone, after its step was computed: what others share with it is right."""
        if isinstance(error, EngineError):
            return self._fail(sequence, error)
        told = error if isinstance(error, AxionError) else unexpected(error)
        if told is not error:
            _log.error("%s ended by a fault of its own", sequence.request_id, exc_info=error)
        if sequence.request_id in self._sequences:
            self._forget(sequence, keep=False)
        return Failed(sequence.request_id, told.code, told.message, told.param)

    def _fail(self, sequence: Sequence, error: AxionError) -> Failed:
        # Nobody knows what its cells hold, nor those that it has published for others.
        if sequence.request_id in self._sequences:
            self._forget(sequence, keep=False)
        self.scheduler.cache.clear()
        return Failed(sequence.request_id, error.code, error.message, error.param)

    def _forget(self, sequence: Sequence, *, keep: bool) -> Output:
        if sequence.status is not Status.ENDED:
            self.scheduler.end(sequence, keep=keep)
        del self._sequences[sequence.request_id]
        output = self._outputs.pop(sequence.request_id)
        return output

    # ---- seeing it

    def stats(self) -> EngineStats:
        return self.counters.stats(self.scheduler, self._masks, self.model.num_graph_reuses(), self.queue.num_refused)
