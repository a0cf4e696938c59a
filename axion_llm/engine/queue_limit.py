"""How many requests may wait for a model, and what one that is refused is told."""

from __future__ import annotations

from axion_llm.engine.scheduler import Scheduler
from axion_llm.errors import Overloaded
from axion_llm.worker.messages import Generate

CHARS_PER_TOKEN = 3  # a guess on the low side for most languages: refusing must not cost the tokenising
NEWEST = 0.2  # weight of the newest request in the average


class QueueLimit:
    """Looks at a request before it is tokenised. `note_end` keeps the average that Retry-After is computed from."""

    def __init__(self, scheduler: Scheduler, max_requests: int, max_tokens: int) -> None:
        self._scheduler = scheduler
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._run_seconds = 0.0  # of a request, from its first step to its end
        self.num_refused = 0

    def check(self, request: Generate, tokenizing: list[Generate]) -> None:
        """Raises Overloaded. `tokenizing`: accepted before this one, and not in the scheduler's queue yet."""
        num_requests = len(self._scheduler.waiting) + len(tokenizing) - self._scheduler.num_free_places
        num_tokens = sum(len(s.tokens) for s in self._scheduler.waiting) + sum(map(num_tokens_about, tokenizing))
        if num_requests < self._max_requests and (
            num_requests <= 0 or num_tokens + num_tokens_about(request) <= self._max_tokens
        ):
            return
        self.num_refused += 1
        raise Overloaded(
            f"{num_requests} requests with about {num_tokens} tokens of prompt are waiting for this model "
            f"(limits: {self._max_requests} and {self._max_tokens}); try again later",
            retry_after_seconds=self.wait_seconds(num_requests, num_tokens),
        )

    def note_end(self, run_seconds: float) -> None:
        self._run_seconds += (NEWEST if self._run_seconds else 1.0) * (run_seconds - self._run_seconds)

    def wait_seconds(self, num_requests: int, num_tokens: int) -> float:
        """Until those that wait now have left the queue: the longer of their prompts' and their places' time."""
        places = max(1, len(self._scheduler.running))
        for_places = num_requests / places * self._run_seconds
        return max(1.0, for_places, self._scheduler.pacing.prefill_seconds(num_tokens))


def num_tokens_about(request: Generate) -> int:
    prompt = request.prompt
    return len(prompt) if isinstance(prompt, list) else len(prompt) // CHARS_PER_TOKEN + 1
