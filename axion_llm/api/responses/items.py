"""Items of a response's input (and of the outputs before it) -> chat messages, and the chat request to be run."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from axion_llm.api.errors import problem_for
from axion_llm.api.extensions import Extensions
from axion_llm.api.responses.schema import AllowedTools, ResponsesRequest
from axion_llm.api.schemas import ChatRequest
from axion_llm.errors import BadRequest

Json = dict[str, Any]

_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco"}
# Where a field of chat has another name here; an error must name what the client has sent.
_NAMES = {
    "messages": "input",
    "response_format.json_schema": "text.format",
    "response_format": "text.format",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
}


def input_items(request: ResponsesRequest) -> list[Json]:
    """The input as items, each with an id and a type: as they are stored and listed."""
    if isinstance(request.input, str):
        content = [{"type": "input_text", "text": request.input}]
        return [_with_id({"type": "message", "role": "user", "content": content})]
    return [_with_id(item.model_dump(exclude_none=True)) for item in request.input]


def _with_id(item: Json) -> Json:
    kind = item.get("type") or "message"
    new = {"type": kind, "id": f"{_PREFIXES[kind]}_{uuid.uuid4().hex}", "status": "completed", **item}
    if isinstance(new.get("content"), str):
        part = "output_text" if new["role"] == "assistant" else "input_text"
        new["content"] = [{"type": part, "text": new["content"]}]
    return new


def chat_request(
    request: ResponsesRequest, items: Sequence[Json], schema: type[ChatRequest] = ChatRequest
) -> ChatRequest:
    """`items`: the whole conversation. Raises BadRequest with the names of this API's fields."""
    body: Json = {
        **{name: getattr(request, name) for name in Extensions.model_fields},
        "model": request.model,
        "messages": messages(request.instructions, items),
        "max_completion_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "logprobs": request.wants_logprobs,
        "top_logprobs": request.top_logprobs if request.wants_logprobs else None,
        "parallel_tool_calls": request.parallel_tool_calls,
        "response_format": _response_format(request),
        "tools": [_tool(t.model_dump(exclude_none=True)) for t in request.tools or ()] or None,
        "tool_choice": _tool_choice(request.tool_choice),
        "consensus": getattr(request, "consensus", None),
    }
    try:
        return schema.model_validate({k: v for k, v in body.items() if v is not None})
    except ValidationError as error:
        problem = problem_for(error)
        renamed = renamed_param(problem.param)
        message = problem.message.replace(problem.param or "", renamed or "", 1)
        raise BadRequest(message, param=renamed) from None


def renamed_param(param: str | None) -> str | None:
    for chat, ours in _NAMES.items():
        if param is not None and (param == chat or param.startswith((f"{chat}.", f"{chat}["))):
            return ours if ours == "input" else ours + param[len(chat) :]
    return param.replace(".function", "") if param and param.startswith("tools[") else param


def messages(instructions: str | None, items: Sequence[Json]) -> list[Json]:
    """Calls that follow each other are one assistant's turn."""
    found: list[Json] = [{"role": "system", "content": instructions}] if instructions else []
    for item in items:
        if item["type"] == "message":
            found.append({"role": item["role"], "content": _content(item["content"])})
        elif item["type"] == "function_call_output":
            output = {"role": "tool", "tool_call_id": item["call_id"], "content": _content(item["output"])}
            found.append(output)
        elif found and found[-1]["role"] == "assistant":
            found[-1].setdefault("tool_calls", []).append(_call(item))
        else:
            found.append({"role": "assistant", "content": None, "tool_calls": [_call(item)]})
    return found


def _call(item: Json) -> Json:
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def _content(content: str | list[Json]) -> str | list[Json]:
    return content if isinstance(content, str) else [_part(part) for part in content]


def _part(part: Json) -> Json:
    if part["type"] == "input_image":
        return {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part.get("detail") or "auto"}}
    return {"type": "text", "text": part.get("text", part.get("refusal"))}


def _response_format(request: ResponsesRequest) -> Json | None:
    """{type, name, schema, strict} is {type, json_schema: {name, schema, strict}} in chat."""
    wanted = request.text.format if request.text else None
    if wanted is None or wanted.get("type") != "json_schema":
        return wanted
    return {"type": "json_schema", "json_schema": {k: v for k, v in wanted.items() if k != "type"}}


def _tool(tool: Json) -> Json:
    return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}


def _tool_choice(choice: Any) -> str | Json | None:
    if choice is None or isinstance(choice, str):
        return choice
    if isinstance(choice, AllowedTools):
        tools = [{"type": "function", "function": {"name": tool.name}} for tool in choice.tools]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": tools}}
    return {"type": "function", "function": {"name": choice.name}}
