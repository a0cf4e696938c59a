"""The bodies of /v1/chat/completions and /v1/completions: strict types and ranges, errors that name a field.

Unknown fields are ignored. A field OpenAI has and this version does not honour is declared with `only`:
the values that ask for nothing special pass, every other one is refused, never dropped.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError, PydanticKnownError

from axion_llm.api.extensions import Extensions
from axion_llm.api.fields import (
    Effort,
    FrequencyPenalty,
    ModelName,
    PresencePenalty,
    Strict,
    Temperature,
    TokenCount,
    TopLogprobs,
    TopP,
    Verbosity,
    invalid,
    null_is,
    only,
    unsupported,
)
from axion_llm.ranges import SAMPLING

MAX_CHOICES = 128  # of one request: n, or n times the number of prompts
MAX_PROMPTS = 2048
MAX_MESSAGES = 10_000  # each takes some tokens of a context
MAX_STOP_STRINGS = 4
MAX_TOKEN_ID = 2**31 - 1
MAX_BIASES = 4096

_TOKEN_ID = re.compile(r"[0-9]{1,10}")


def _parts(value: Any) -> str | list[dict[str, Any]]:
    """An array of text parts as one string; with images, as parts."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise PydanticKnownError("string_type")
    parts = [_part(i, part) for i, part in enumerate(value)]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _part(i: int, part: Any) -> dict[str, Any]:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise invalid(f"part {i} must be an object with a type")
    if part["type"] == "image_url":
        return {"type": "image_url", "image_url": {"url": _image_url(i, part.get("image_url"))}}
    if part["type"] != "text":
        raise unsupported(f"part {i} has type {part['type'][:40]!r}; this server takes 'text' and 'image_url'")
    if not isinstance(part.get("text"), str):
        raise invalid(f"part {i} must have a string as its text")
    return {"type": "text", "text": part["text"]}


def _image_url(i: int, value: Any) -> str:
    url = value.get("url") if isinstance(value, dict) else None
    if not isinstance(url, str) or not url:
        raise invalid(f"part {i} must have an object with a url as its image_url")
    if value.get("detail") not in (None, "auto", "low", "high"):  # these models know one size only
        raise invalid(f"part {i}: image_url.detail must be auto, low or high")
    return url


def _drawn(seed: int) -> int | None:
    """-1 is no seed, as llama-server and vLLM have it."""
    return None if seed == -1 else seed


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _is_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(type(t) is int and 0 <= t <= MAX_TOKEN_ID for t in value)


def _prompts(value: Any) -> list[str | list[int]]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value:
        if _is_tokens(value):
            return [value]
        if len(value) > MAX_PROMPTS:
            raise invalid(f"must not have more than {MAX_PROMPTS} prompts, has {len(value)}")
        if all(isinstance(p, str) for p in value) or all(p and _is_tokens(p) for p in value):
            return value
    raise invalid("must be a string, an array of strings, of token ids or of arrays of them; none empty")


def _bias_by_id(value: Any) -> dict[int, float]:
    if not isinstance(value, dict):
        raise invalid("must be an object of token ids (as strings) and biases")
    if len(value) > MAX_BIASES:
        raise invalid(f"must not have more than {MAX_BIASES} entries")
    return {_token_id(key): _one_bias(key, bias) for key, bias in value.items()}


def _token_id(key: str) -> int:
    if not _TOKEN_ID.fullmatch(key) or int(key) > MAX_TOKEN_ID:
        raise invalid(f"the key {key[:32]!r} is not a token id")
    return int(key)


def _one_bias(key: str, bias: Any) -> float:
    low, high = SAMPLING["logit_bias"].low, SAMPLING["logit_bias"].high
    if isinstance(bias, bool) or not isinstance(bias, int | float) or not low <= bias <= high:
        raise invalid(f"the bias of {key} must be a number from {low:g} to {high:g}")
    return float(bias)


def _arguments(text: str) -> str:
    """Of a call in the history. Templates walk through them as an object; no arguments are written in several ways."""
    if text.strip() in ("", "null"):
        return "{}"
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is JSON, and no text
    except (ValueError, RecursionError):
        raise invalid("must be JSON, as the model has written it") from None
    if not isinstance(value, dict):
        raise invalid("must be an object of JSON")
    return text


StopStrings = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=1000)]],
    BeforeValidator(_as_list, json_schema_input_type=str | list[str]),
    Field(max_length=MAX_STOP_STRINGS),
]
LogitBias = Annotated[dict[int, float], PlainValidator(_bias_by_id, json_schema_input_type=dict[str, float])]
Prompts = Annotated[
    list[str | list[int]],
    PlainValidator(_prompts, json_schema_input_type=str | list[str] | list[int] | list[list[int]]),
]
Content = Annotated[
    str | list[dict[str, Any]], PlainValidator(_parts, json_schema_input_type=str | list[dict[str, Any]])
]


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, only(False)] = None


class CalledFunction(Strict):
    name: Annotated[str, Field(min_length=1, max_length=64)]
    arguments: Annotated[str, null_is("{}"), AfterValidator(_arguments)] = "{}"  # JSON, as the model has written it


class ToolCall(Strict):
    id: str
    type: Annotated[Literal["function"], null_is("function")] = "function"
    function: CalledFunction


class Function(Strict):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None  # a JSON Schema
    strict: bool | None = None


class Tool(Strict):
    type: Literal["function"]
    function: Function


class Message(Strict):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None  # of an earlier turn
    tool_call_id: str | None = None
    audio: Annotated[Any, only()] = None
    function_call: Annotated[Any, only()] = None

    @model_validator(mode="after")
    def _only_an_assistant_may_say_nothing(self) -> Message:
        if self.role != "assistant" and "content" not in self.model_fields_set:
            raise PydanticCustomError("missing", "content is required")
        if self.role == "tool" and not self.tool_call_id:
            raise PydanticCustomError("missing", "tool_call_id is required")
        if self.role != "user" and isinstance(self.content, list):
            raise invalid("only a user's message may have images")
        return self

    @property
    def text(self) -> str:
        """What is said, without the images."""
        if isinstance(self.content, list):
            return "\n".join(part["text"] for part in self.content if part["type"] == "text")
        return self.content or ""


class Generation(Extensions):
    """What chat and text completions have in common. None: the model's default, see ModelSpec.sampling."""

    model: ModelName
    stream: bool | None = None  # None: the port's default
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1), AfterValidator(_drawn)] | None = None
    stop: StopStrings | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    presence_penalty: PresencePenalty | None = None
    frequency_penalty: FrequencyPenalty | None = None
    logit_bias: LogitBias | None = None
    max_tokens: TokenCount | None = None
    response_format: dict[str, Any] | None = None  # see structured.py
    user: str | None = None  # a label: changes nothing in the answer

    @property
    def max_new_tokens(self) -> int | None:
        """None: up to the end of the context."""
        return next((limit for limit in self.token_limits if limit not in (None, -1)), None)

    @property
    def token_limits(self) -> list[int | None]:
        """All the fields that say it; they have to agree."""
        return [self.n_predict, self.max_tokens]


class ChatRequest(Generation):
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None

    # Labels and cache hints: they change nothing in the answer.
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None

    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None  # see tools/choice.py
    parallel_tool_calls: bool | None = None

    audio: Annotated[Any, only()] = None
    function_call: Annotated[Any, only("none", "auto")] = None
    functions: Annotated[Any, only([])] = None
    modalities: Annotated[Any, only(["text"])] = None
    moderation: Annotated[Any, only()] = None
    prediction: Annotated[Any, only()] = None
    reasoning_effort: Effort | None = None
    service_tier: Annotated[Any, only("auto", "default")] = None
    store: bool | None = None  # chats are not kept
    verbosity: Verbosity | None = None
    web_search_options: Annotated[Any, only()] = None

    _image_files: dict[str, bytes] = PrivateAttr(default_factory=dict)

    @property
    def image_files(self) -> dict[str, bytes]:
        """By URL; whoever takes the request loads them."""
        return self._image_files

    @property
    def without_effect(self) -> list[str]:
        """Fields that clients send by habit, and that change nothing here: a warning header names them."""
        asked = {
            "reasoning_effort": self.reasoning_effort not in (None, "none"),
            "verbosity": self.verbosity not in (None, "medium"),
            "store": bool(self.store),
        }
        return [name for name, is_asked in asked.items() if is_asked]

    @property
    def token_limits(self) -> list[int | None]:
        return [*super().token_limits, self.max_completion_tokens]


class CompletionRequest(Generation):
    prompt: Prompts
    # OpenAI's default; null: up to the end of the context; 0: nothing but the prompt, with echo
    max_tokens: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = 16
    echo: bool | None = None
    logprobs: TopLogprobs | None = None
    best_of: int | None = None
    suffix: Annotated[Any, only("")] = None  # none of these models is run with its infill tokens

    def is_echoed_by_worker(self, prompt: str | list[int]) -> bool:
        """Who echoes: a text alone is at hand here, tokens' text and log probabilities are not."""
        return bool(self.echo) and (self.logprobs is not None or not isinstance(prompt, str))

    @property
    def token_limits(self) -> list[int | None]:
        return [self.n_predict, self.max_tokens if "max_tokens" in self.model_fields_set else None]

    @property
    def max_new_tokens(self) -> int | None:
        return self.max_tokens if self.n_predict is None else super().max_new_tokens
