"""A response of /v1/responses on its way: what was asked, what has come so far, and where it is kept."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from axion_llm.api import params
from axion_llm.api.responses.events import ResponseEvents
from axion_llm.api.responses.items import chat_request, input_items, renamed_param
from axion_llm.api.responses.output import ResponseBuilder
from axion_llm.api.responses.schema import ResponsesRequest
from axion_llm.api.schemas import ChatRequest
from axion_llm.config import Settings
from axion_llm.errors import RequestError, StorageUnavailable
from axion_llm.servers.access import Record
from axion_llm.servers.aside import aside
from axion_llm.servers.images import load_images
from axion_llm.servers.response_store import ResponseStore

log = logging.getLogger(__name__)

Json = dict[str, Any]


class ResponseDraft:
    """`chat` is the request as the chat endpoint would have it; `owner` is the key that may read the response again."""

    def __init__(
        self,
        request: ResponsesRequest,
        history: Sequence[Json],
        schema: type[ChatRequest] = ChatRequest,
        *,
        store: ResponseStore | None,
        owner: str,
    ) -> None:
        self._items = input_items(request)
        self._store, self._owner = store, owner
        self.chat: ChatRequest = chat_request(request, [*history, *self._items], schema)
        self.builder = ResponseBuilder(request, is_stored=store is not None)
        self.events = ResponseEvents(self.builder)

    async def check(self, settings: Settings, record: Record, *, is_streamed: bool) -> None:
        """Raises RequestError; gets the images."""
        with our_names():
            await aside(record, params.check, self.chat, is_streamed=is_streamed)
            await load_images(self.chat, settings)

    async def keep(self) -> Json:
        """Stored before the client knows the id: it may use it at once. Returns what the response has to say of it."""
        if self._store is None:
            return {}
        try:
            await self._store.ask(self._store.put, self._owner, self.events.response(), self._items)
        except StorageUnavailable as error:
            log.error("%s is not stored, and says so: %s", self.builder.id, error.message)
            self.builder.is_stored = False
        return {"store": self.builder.is_stored}


@contextmanager
def our_names() -> Iterator[None]:
    """An error about a chat request names what the client of this API has sent."""
    try:
        yield
    except RequestError as error:
        raise renamed(error) from None


def renamed(error: RequestError) -> RequestError:
    param = renamed_param(error.param)
    if param != error.param and error.param and param:
        error.message = error.message.replace(error.param, param, 1)
    error.param = param
    return error
