"""The answer of one model to /v1/responses, as an ASGI response."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from axion_llm.api import params
from axion_llm.api.collect import Choice, Head
from axion_llm.api.responses.events import ResponseEvents
from axion_llm.errors import RequestError
from axion_llm.servers.access import Record
from axion_llm.servers.answer import Answer
from axion_llm.servers.response_draft import ResponseDraft, our_names, renamed
from axion_llm.servers.service import Service
from axion_llm.worker.messages import Generate, Loaded


class ResponseAnswer(Answer):
    num_prompts = 1

    def __init__(self, draft: ResponseDraft, service: Service, record: Record, *, is_streamed: bool) -> None:
        self._draft = draft
        super().__init__(service, record, Head.new("resp", draft.chat.model), 1, is_streamed=is_streamed)

    def prepare(self, info: Loaded) -> list[Generate]:
        chat = self._draft.chat
        with our_names():
            plan = params.chat_tools(chat, self.origin(), info)
            self._draft.events.parser = plan.parser() if plan else None
            return params.chat_generates(chat, self.origin(), info)

    def named(self, error: RequestError) -> RequestError:
        return renamed(params.named_as_sent(error, self._draft.chat))

    def chunks(self) -> ResponseEvents:
        return self._draft.events

    def whole(self, choices: list[Choice]) -> dict[str, Any]:
        (choice,) = choices
        last = structs.replace(choice.ending, text=choice.text, logprobs=choice.logprobs)
        self._draft.events.encode([(0, last)])
        return self._draft.events.response()

    async def before_end(self) -> dict[str, Any]:
        return await self._draft.keep()
