"""A request's body: read up to the limits of size and time, then checked against its schema."""

from __future__ import annotations

import asyncio
import zlib
from typing import TypeVar

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from axion_llm.api.json_size import has_more_values
from axion_llm.servers.aside import aside
from axion_llm.servers.exchange import ClientGone
from axion_llm.servers.middleware import record_of

# A body may take so long, and longer by its size: a slow line is no attack, a byte a minute is.
BODY_SECONDS = 30.0
MIN_BYTES_PER_SECOND = 16 * 1024

LARGE_BYTES = 64 * 1024  # from here on a request is worked on beside the event loop, which the streams need
MAX_VALUES = 500_000  # of JSON: a prompt's token ids, an embedding batch's, and much beyond any context
MAX_CONTAINERS = 100_000  # arrays and objects in it

Body = TypeVar("Body", bound=BaseModel)


async def parse_body(request: Request, schema: type[Body], max_bytes: int) -> Body:
    """Raises pydantic's ValidationError, which also covers broken JSON."""
    _check_type(request)
    body = await read_body(request, max_bytes)
    record = record_of(request.scope)
    record.is_large = len(body) >= LARGE_BYTES
    return await aside(record, _parsed, body, schema)


def _parsed(body: bytes | bytearray, schema: type[Body]) -> Body:
    if has_more_values(body, MAX_VALUES, MAX_CONTAINERS):
        message = f"the body has more than {MAX_VALUES:,} values, or {MAX_CONTAINERS:,} arrays and objects; split it"
        raise HTTPException(413, message)
    return schema.model_validate_json(body)


def _check_type(request: Request) -> None:
    """A page from elsewhere can make a browser post text/plain without asking; it cannot do so with JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        message = f"the body's content type is {media_type[:80] or 'missing'!r}; send it as application/json"
        raise HTTPException(415, message)


async def read_body(request: Request, max_bytes: int) -> bytearray:
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body, unpack = bytearray(), _unpacker(request)
    try:
        await _read_into(body, request, max_bytes, unpack)
    except ClientDisconnect:
        raise ClientGone from None
    except zlib.error:
        raise HTTPException(400, "the body is not what its content-encoding says: gzip") from None
    return body


class _Gunzip:
    """Never more than is asked for, whatever comes in: a body of a megabyte can be one of gigabytes."""

    def __init__(self) -> None:
        self._gzip = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def __call__(self, part: bytes, most: int) -> bytes:
        return self._gzip.decompress(part, most)

    def end(self) -> None:
        if not self._gzip.eof or self._gzip.unused_data:
            raise zlib.error("cut short, or more than one")


class _Plain:
    def __call__(self, part: bytes, most: int) -> bytes:
        return part

    def end(self) -> None:
        pass


def _unpacker(request: Request) -> _Gunzip | _Plain:
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return _Plain()
    if encoding in ("gzip", "x-gzip"):
        return _Gunzip()
    message = f"the body's content-encoding is {encoding[:80]!r}; this server takes gzip, or none"
    raise HTTPException(415, message, headers={"accept-encoding": "gzip, identity"})


async def _read_into(body: bytearray, request: Request, max_bytes: int, unpack: _Gunzip | _Plain) -> None:
    loop = asyncio.get_running_loop()
    began, parts = loop.time(), aiter(request.stream())
    while True:
        left = BODY_SECONDS + len(body) / MIN_BYTES_PER_SECOND - (loop.time() - began)
        try:
            part = await asyncio.wait_for(anext(parts), max(left, 0.001))
        except StopAsyncIteration:
            return unpack.end()
        except (asyncio.TimeoutError, TimeoutError):
            raise HTTPException(408, f"the body was not complete; {len(body):,} bytes of it came in time") from None
        body += unpack(part, max_bytes + 1 - len(body))
        if len(body) > max_bytes:
            raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> HTTPException:
    return HTTPException(413, f"the body is larger than the {max_bytes:,} bytes that this server takes")
