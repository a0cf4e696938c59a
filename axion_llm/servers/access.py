"""One log line for each request: what, how many tokens, how fast, how it ended. Never a prompt's text."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from axion_llm.servers.telemetry import ModelMeter, Telemetry
from axion_llm.servers.transcript import Transcript

log = logging.getLogger("axion_llm.access")

_SANE_ID = re.compile(r"[A-Za-z0-9._~:@/+=-]{1,128}")
# And what is below them: asked again and again, by the chat page too (of /v1/models there are only GETs).
_QUIET_PATHS = ("/health", "/ready", "/metrics", "/admin/status", "/web/", "/v1/models")


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
    owner: str = ""  # of what it stores: the key's id; "": a service without keys
    tenant: str = ""  # whom it shares caches with
    without_effect: list[str] = field(default_factory=list)  # fields of the body, for a warning header
    is_large: bool = False  # so that work on it belongs into a thread
    meter: ModelMeter | None = None  # of the model that works for it
    charge: Callable[[int], None] | None = None  # tokens, to the key's limit
    charged: int = 0
    stations: list[tuple[str, float, float]] = field(default_factory=list)  # of the first choice: begin and end
    transcript: Transcript | None = None  # when texts are to be logged

    def count_prompt(self, num_tokens: int) -> None:
        self.tokens_in += num_tokens
        self._settle()

    def count_output(self, num_tokens: int) -> None:
        self.tokens_out += num_tokens
        self._settle()
        if self.first_token is None and num_tokens:
            self.first_token = time.perf_counter()
            if self.meter:
                self.meter.ttft.observe(self.first_token - self.began)

    def note_stations(self, **milliseconds: float) -> None:
        """The stations that end now, in their order, each with its duration."""
        end = time.perf_counter() - sum(milliseconds.values()) / 1e3
        for name, duration in milliseconds.items():
            begin, end = end, end + duration / 1e3
            self.stations.append((name, begin, end))

    def write(self, endpoint: str) -> None:
        """`endpoint`: the route's pattern, since paths are the clients' choice and without number."""
        self._settle()
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
        level = logging.DEBUG if self.path.startswith(_QUIET_PATHS) and self.status < 400 else logging.INFO
        if log.isEnabledFor(level):
            now = time.perf_counter()
            log.log(level, "%s", self.line(now), extra={"fields": self.fields(now)})

    def _settle(self) -> None:
        """Charge what has been counted since the last time, by whomever."""
        if self.charge is not None:
            self.charge(self.tokens_in + self.tokens_out - self.charged)
            self.charged = self.tokens_in + self.tokens_out

    def fields(self, now: float) -> dict[str, object]:
        """The same as `line`, for logs of JSON."""
        found: dict[str, object] = {
            "method": self.method,
            "path": self.path[:200],
            "status": self.status or None,
            "port": self.port,
            "ms": round((now - self.began) * 1e3, 1),
            "request_id": self.id,
        }
        if self.key is not None:
            found["key"] = self.key
        if self.model is not None:
            found |= {"model": self.model[:200], "finish": self.finish}
            found |= {"tokens_in": self.tokens_in, "tokens_cached": self.cached, "tokens_out": self.tokens_out}
        if self.first_token is not None:
            found["ttft_ms"] = round((self.first_token - self.began) * 1e3, 1)
            if self.tokens_out > 1:
                found["tokens_per_second"] = round(self._speed(now), 2)
        return found | {f"{name}_ms": round((end - begin) * 1e3, 1) for name, begin, end in self.stations}

    def _speed(self, now: float) -> float:
        """Of the tokens behind the first."""
        assert self.first_token is not None
        return (self.tokens_out - 1) / max(now - self.first_token, 1e-6)

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
                parts.append(f"tps={self._speed(now):.1f}")
        return parts


def _printable(text: str) -> str:
    """What a client chose, kept to one short word of a log line."""
    return re.sub(r"[^\x21-\x7e]", "?", text[:200])
