"""Rate limits of one key: requests and tokens per minute, as buckets that fill up again all the time.

A request enters when one request is left and its prompt, estimated from the body's length, fits what is left of
the tokens. What it then really uses is charged as it comes, prompt and output alike: a request is never cut
off, but what it took beyond the limit is a debt that the next ones wait for. So the mean rate keeps the limit,
whatever the requests. Pure bookkeeping: the caller brings the time, in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from axion_llm.errors import RateLimited

BYTES_PER_TOKEN = 4  # of a body, for the estimate; images are less, so it is at most half of the limit
MINUTE = 60.0


@dataclass
class Bucket:
    """Full at first; `per_minute` is both how much it holds and what flows in."""

    per_minute: int
    level: float
    at: float

    @classmethod
    def full(cls, per_minute: int, now: float) -> Bucket:
        return cls(per_minute, per_minute, now)

    def refill(self, now: float) -> None:
        self.level = min(self.per_minute, self.level + (now - self.at) * self.per_minute / MINUTE)
        self.at = now

    def seconds_until(self, amount: float) -> float:
        return max(0.0, amount - self.level) * MINUTE / self.per_minute

    @property
    def remaining(self) -> int:
        return max(0, int(self.level))


class Budget:
    """Both buckets of one key; a limit of 0 is none."""

    def __init__(self, requests_per_minute: int, tokens_per_minute: int, now: float) -> None:
        self._requests = Bucket.full(requests_per_minute, now) if requests_per_minute else None
        self._tokens = Bucket.full(tokens_per_minute, now) if tokens_per_minute else None

    def admit(self, body_bytes: int, now: float) -> None:
        """Takes one request, or raises RateLimited and takes nothing."""
        self._refill(now)
        if self._requests and (wait := self._requests.seconds_until(1)):
            raise _refusal("requests", self._requests, wait)
        if self._tokens:
            estimate = max(1, min(self._tokens.per_minute // 2, body_bytes // BYTES_PER_TOKEN))
            if wait := self._tokens.seconds_until(estimate):
                raise _refusal("tokens", self._tokens, wait)
        if self._requests:
            self._requests.level -= 1

    def charge(self, num_tokens: int) -> None:
        if self._tokens:
            self._tokens.level -= num_tokens

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """As OpenAI names them; `reset` is the time until all of the limit is there again."""
        self._refill(now)
        found = []
        for name, bucket in (("requests", self._requests), ("tokens", self._tokens)):
            if bucket:
                reset = _duration(bucket.seconds_until(bucket.per_minute))
                values = {"limit": bucket.per_minute, "remaining": bucket.remaining, "reset": reset}
                found += [(f"x-ratelimit-{k}-{name}".encode(), str(v).encode()) for k, v in values.items()]
        return found

    def _refill(self, now: float) -> None:
        for bucket in (self._requests, self._tokens):
            if bucket:
                bucket.refill(now)


def _refusal(what: str, bucket: Bucket, wait: float) -> RateLimited:
    message = f"Rate limit reached: {bucket.per_minute:,} {what} per minute. Try again in {_duration(wait)}."
    return RateLimited(message, retry_after_seconds=wait)


def _duration(seconds: float) -> str:
    """As OpenAI writes it: 250ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    if round(seconds, 1) < MINUTE:
        return f"{round(seconds, 1):g}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s"
