"""How the log looks: a line of text or of JSON for each record, with the id of the request it belongs to.

Text for people and journals, JSON for machines: one object a line, with time (UTC), level, logger, message,
request_id, and what else the record has to say as fields of their own.
"""

from __future__ import annotations

import json
import logging
import math
from contextvars import ContextVar
from datetime import datetime, timezone

from rich.console import Console
from rich.logging import RichHandler

from axion_llm.config import CHOICES

LEVELS, FORMATS = CHOICES["log_level"], CHOICES["log_format"]

REPEAT_SECONDS = 60.0
MAX_REPEATED = 200

# Set by RequestScope; the tasks of a request inherit it, so a load has the id of the request that asked for it.
current_request: ContextVar[str | None] = ContextVar("current_request", default=None)


def log_to_stderr(level: str, format: str) -> None:
    """From now on, all loggers of the process. `level` and `format` are of LEVELS and FORMATS."""
    handler = _handler(format)
    handler.addFilter(_note_request)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger().level))
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("asyncio").addFilter(Repeated())


class Repeated(logging.Filter):
    """Lets a message through once, and again after a while with how often it has come meanwhile.

    For a logger that a failure in a loop can make write a line for each turn of it, such as asyncio's when the process
    has no file descriptor left for a connection.
    """

    def __init__(self, seconds: float = REPEAT_SECONDS) -> None:
        super().__init__()
        self._seconds = seconds
        self._seen: dict[str, tuple[float, int]] = {}  # when it was let through, and how many were not since

    def filter(self, record: logging.LogRecord) -> bool:
        key = record.getMessage().partition("\n")[0]
        at, count = self._seen.get(key, (-math.inf, 0))
        if record.created - at < self._seconds:
            self._seen[key] = at, count + 1
            return False
        if len(self._seen) >= MAX_REPEATED:
            self._seen.clear()
        self._seen[key] = record.created, 0
        if count:
            record.msg, record.args = f"{key} ({count} more times in {record.created - at:.0f} s)", ()
        return True


def _handler(format: str) -> logging.Handler:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if format == "auto" and console.is_terminal:
        rich = RichHandler(console=console, show_path=False, rich_tracebacks=False)
        rich.setFormatter(TextFormatter("%(message)s"))
        return rich
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter() if format == "json" else TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    return handler


def _note_request(record: logging.LogRecord) -> bool:
    record.request_id = current_request.get()
    return True


class TextFormatter(logging.Formatter):
    """Ends a line of a request with its id, unless the line has it already."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text, found = super().formatMessage(record), getattr(record, "request_id", None)
        return f"{text} id={found}" if found and f"id={found}" not in text else text


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if found := getattr(record, "request_id", None):
            entry["request_id"] = found
        entry |= getattr(record, "fields", {})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)
