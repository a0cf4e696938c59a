"""One log line for each request: what, how many tokens, how fast, how it ended. Never a prompt's text."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from axion_llm.servers.telemetry import ModelMeter, Telemetry

log = logging.getLogger("axion_llm.access")

_SANE_ID = re.compile(r"[A-Za-z0-9._~:@/+=-]{1,128}")
_QUIET_PATHS = ("/health", "/ready", "/metrics", "/admin/status")


def request_id(given: str | None) -> str:
    """The client's own id when it is fit for a header and a log line."""
    return given if given and _SANE_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"


@dataclass
class Record:
    """Filled in as the request goes; written once, at its end. Times are of time.perf_counter()."""

    id: str
    port: str
    method: str
    path: str
    telemetry: Telemetry
    began: float = field(default_factory=time.perf_counter)
    status: int = 0  # 0: the client went away before there was one
    model: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0
    cached: int = 0
    first_token: float | None = None
    finish: str | None = None
    key: str | None = None  # the name of the API key
    meter: ModelMeter | None = None  # of the model that works for it
    charge: Callable[[int], None] | None = None  # tokens, to the key's limit

    def count_prompt(self, num_tokens: int) -> None:
        self.tokens_in += num_tokens
        if self.charge:
            self.charge(num_tokens)

    def count_output(self, num_tokens: int) -> None:
        self.tokens_out += num_tokens
        if self.charge:
            self.charge(num_tokens)
        if self.first_token is None and num_tokens:
            self.first_token = time.perf_counter()
            if self.meter:
                self.meter.ttft.observe(self.first_token - self.began)

    def write(self, endpoint: str) -> None:
        """`endpoint`: the route's pattern, since paths are the clients' choice and without number."""
        self.telemetry.count_request(self.port, endpoint, self.status)
        if self.meter and self.model is not None:
            self.telemetry.count_completion(
                self.model,
                self.port,
                self.finish or "error",
                time.perf_counter() - self.began,
                tokens_in=self.tokens_in,
                cached=self.cached,
                tokens_out=self.tokens_out,
            )
        level = logging.DEBUG if self.path in _QUIET_PATHS and self.status < 400 else logging.INFO
        if log.isEnabledFor(level):
            log.log(level, "%s", self.line(time.perf_counter()))

    def line(self, now: float) -> str:
        parts = [f"{self.method} {_printable(self.path)} {self.status or '-'}", f"port={self.port}"]
        if self.key is not None:
            parts.append(f"key={self.key}")
        if self.model is not None:
            parts += [f"model={_printable(self.model)}", *self._tokens(now)]
        if self.finish is not None:
            parts.append(f"finish={self.finish}")
        return " ".join([*parts, f"ms={(now - self.began) * 1000:.0f}", f"id={self.id}"])

    def _tokens(self, now: float) -> list[str]:
        parts = [f"in={self.tokens_in}", f"cached={self.cached}", f"out={self.tokens_out}"]
        if self.first_token is not None:
            parts.append(f"ttft_ms={(self.first_token - self.began) * 1000:.0f}")
            if self.tokens_out > 1:
                parts.append(f"tps={(self.tokens_out - 1) / max(now - self.first_token, 1e-6):.1f}")
        return parts


def _printable(text: str) -> str:
    """What a client chose, kept to one short word of a log line."""
    return re.sub(r"[^\x21-\x7e]", "?", text[:200])
