"""Python's work on one request, where it does not hold the streams up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from axion_llm.servers.access import Record

P = ParamSpec("P")
T = TypeVar("T")


async def aside(record: Record, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """In a thread when the request is large: the event loop gets a turn every 5 ms then (sys.getswitchinterval)."""
    if record.is_large:
        return await asyncio.to_thread(work, *args, **kwargs)
    return work(*args, **kwargs)
