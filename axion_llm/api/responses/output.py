"""The response object, from the request and from what the model has said so far."""

from __future__ import annotations

import time
import uuid
from typing import Any, Literal

from axion_llm.api.errors import Problem
from axion_llm.api.logprobs import chat_logprobs
from axion_llm.api.responses.schema import ResponsesRequest
from axion_llm.worker.messages import Finished, TokenLogprob

Json = dict[str, Any]
Status = Literal["in_progress", "completed", "incomplete", "failed"]


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


class ResponseBuilder:
    """Owns what all snapshots of one response share."""

    def __init__(self, request: ResponsesRequest, *, is_stored: bool) -> None:
        self.request = request
        self.id = new_id("resp")
        self.is_stored = is_stored
        self.output: list[Json] = []
        self.more: Json = {}  # fields of our own
        self._created = int(time.time())
        self._completed: int | None = None

    def snapshot(self, status: Status, finished: Finished | None = None, problem: Problem | None = None) -> Json:
        request = self.request
        is_cut = finished is not None and finished.reason == "length"
        if status == "completed" and self._completed is None:  # once: what is stored is what was sent
            self._completed = int(time.time())
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "completed_at": self._completed if status == "completed" else None,
            "status": status,
            "background": False,
            "error": {"code": "server_error", "message": problem.message} if problem else None,
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "instructions": request.instructions,
            "max_output_tokens": request.max_output_tokens,
            "max_tool_calls": request.max_tool_calls,
            "metadata": request.metadata or {},
            "model": request.model,
            "output": list(self.output),
            "parallel_tool_calls": request.parallel_tool_calls is not False,
            "previous_response_id": request.previous_response_id,
            "prompt_cache_key": request.prompt_cache_key,
            "reasoning": {"effort": None, "summary": None},
            "safety_identifier": request.safety_identifier,
            "service_tier": "default",
            "store": self.is_stored,
            "temperature": request.temperature,
            "text": {"format": _format(request), "verbosity": "medium"},
            "tool_choice": _tool_choice(request),
            "tools": [_tool(tool.model_dump()) for tool in request.tools or ()],
            "top_logprobs": request.top_logprobs or 0,
            "top_p": request.top_p,
            "truncation": "disabled",
            "usage": _usage(finished) if finished else None,
            "user": request.user,
            **self.more,
        }


def ending(finished: Finished) -> Status:
    return "incomplete" if finished.reason == "length" else "completed"


def message_item(item_id: str, content: list[Json], status: Status) -> Json:
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content}


def text_part(text: str, logprobs: list[Json]) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def call_item(item_id: str, call_id: str, name: str, arguments: str, status: Status) -> Json:
    call = {"id": item_id, "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
    return {**call, "status": status}


def logprob_entries(tokens: list[TokenLogprob]) -> list[Json]:
    entries: list[Json] = chat_logprobs(tokens)["content"]
    return entries


def _format(request: ResponsesRequest) -> Json:
    return (request.text.format if request.text else None) or {"type": "text"}


def _tool(tool: Json) -> Json:
    """`strict` is a bool in the answer; a client's null means that it has not asked for it."""
    return {**tool, "strict": bool(tool["strict"])}


def _tool_choice(request: ResponsesRequest) -> str | Json:
    choice = request.tool_choice
    if choice is None:
        return "auto"
    return choice if isinstance(choice, str) else choice.model_dump()


def _usage(finished: Finished) -> Json:
    return {
        "input_tokens": finished.prompt_tokens,
        "input_tokens_details": {"cached_tokens": finished.cached_tokens},
        "output_tokens": finished.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": finished.prompt_tokens + finished.completion_tokens,
    }
