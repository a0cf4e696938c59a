"""The body of POST /v1/responses. Tags that begin with ~ choose among forms of a value; error paths leave them out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from axion_llm.api.extensions import Extensions
from axion_llm.api.fields import (
    Effort,
    ModelName,
    Strict,
    Temperature,
    TokenCount,
    TopLogprobs,
    TopP,
    Verbosity,
    invalid,
    only,
    unsupported,
)

MAX_METADATA = 16


def _metadata(value: dict[str, str]) -> dict[str, str]:
    if len(value) > MAX_METADATA or any(len(k) > 64 or len(v) > 512 for k, v in value.items()):
        raise invalid(f"up to {MAX_METADATA} entries, keys of up to 64 characters, values of up to 512")
    return value


def _form(value: Any) -> str:
    return "~text" if isinstance(value, str) else "~list"


# ---- input


class TextPart(Strict):
    type: Literal["input_text", "output_text", "text"]
    text: str


class RefusalPart(Strict):
    type: Literal["refusal"]
    refusal: str


class ImagePart(Strict):
    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto", "low", "high"] | None = None
    file_id: Annotated[Any, only()] = None


class OtherPart(Strict):
    type: Annotated[str, AfterValidator(lambda kind: _refuse(kind, "input_text, output_text and input_image"))]


def _refuse(kind: str, supported: str) -> str:
    raise unsupported(f"type {kind[:40]!r} is not supported by this server (supported: {supported})")


def _kind(known: dict[str, str], default: str) -> Discriminator:
    def kind(value: Any) -> str:
        given = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        if given is None:
            return default
        return known.get(given, "~other") if isinstance(given, str) else "~other"

    return Discriminator(kind)


_PARTS = {
    "input_text": "~text",
    "output_text": "~text",
    "text": "~text",
    "refusal": "~refusal",
    "input_image": "~image",
}
Part = Annotated[
    Annotated[TextPart, Tag("~text")]
    | Annotated[RefusalPart, Tag("~refusal")]
    | Annotated[ImagePart, Tag("~image")]
    | Annotated[OtherPart, Tag("~other")],
    _kind(_PARTS, "~other"),
]
Content = Annotated[
    Annotated[str, Tag("~text")] | Annotated[list[Part], Tag("~list")],
    Discriminator(_form),
]


class MessageItem(Strict):
    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    id: str | None = None
    status: str | None = None


class CallItem(Strict):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None


class CallOutputItem(Strict):
    type: Literal["function_call_output"]
    call_id: str
    output: Content
    id: str | None = None
    status: str | None = None


class OtherItem(Strict):
    type: Annotated[str, AfterValidator(lambda kind: _refuse(kind, "message, function_call and function_call_output"))]


_ITEMS = {"message": "~message", "function_call": "~call", "function_call_output": "~output"}
Item = Annotated[
    Annotated[MessageItem, Tag("~message")]
    | Annotated[CallItem, Tag("~call")]
    | Annotated[CallOutputItem, Tag("~output")]
    | Annotated[OtherItem, Tag("~other")],
    _kind(_ITEMS, "~message"),
]
Input = Annotated[
    Annotated[str, Tag("~text")] | Annotated[list[Item], Tag("~list"), Field(min_length=1)],
    Discriminator(_form),
]


# ---- the rest


class Reasoning(Strict):
    """Taken, since clients send it by habit: these models do not reason before they answer."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed", "none"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class TextOptions(Strict):
    format: dict[str, Any] | None = None
    verbosity: Verbosity | None = None


class FunctionTool(Strict):
    type: Literal["function"]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class OtherTool(Strict):
    type: Annotated[str, AfterValidator(lambda kind: _refuse(kind, "function"))]


Tool = Annotated[
    Annotated[FunctionTool, Tag("~function")] | Annotated[OtherTool, Tag("~other")],
    _kind({"function": "~function"}, "~other"),
]


class NamedTool(Strict):
    type: Literal["function"]
    name: str


class AllowedTools(Strict):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1)]


def _choice(value: Any) -> str:
    if isinstance(value, str):
        return "~text"
    given = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "~allowed" if given == "allowed_tools" else "~named"


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("~text")]
    | Annotated[AllowedTools, Tag("~allowed")]
    | Annotated[NamedTool, Tag("~named")],
    Discriminator(_choice),
]
Include = Literal[
    "message.output_text.logprobs",
    # About things that no answer of this server has, so nothing is left out:
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


class ResponseStreamOptions(Strict):
    include_obfuscation: Annotated[Any, only(False)] = None


class ResponsesRequest(Extensions):
    model: ModelName
    input: Input
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None  # None: as the server is set up
    stream: bool | None = None  # None: the port's default
    stream_options: ResponseStreamOptions | None = None
    max_output_tokens: TokenCount | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_logprobs: TopLogprobs | None = None
    include: list[Include] | None = None
    text: TextOptions | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    metadata: Annotated[dict[str, str], AfterValidator(_metadata)] | None = None
    user: str | None = None

    # Labels and hints: they change nothing in the answer.
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    max_tool_calls: int | None = None  # of tools that a server runs; this one runs none

    background: Annotated[Any, only(False)] = None
    conversation: Annotated[Any, only()] = None
    prompt: Annotated[Any, only()] = None
    reasoning: Reasoning | None = None
    service_tier: Annotated[Any, only("auto", "default")] = None
    truncation: Annotated[Any, only("disabled")] = None

    @property
    def without_effect(self) -> list[str]:
        """See ChatRequest."""
        effort, verbosity = self.reasoning and self.reasoning.effort, self.text and self.text.verbosity
        asked = {"reasoning": effort not in (None, "none"), "text.verbosity": verbosity not in (None, "medium")}
        return [name for name, is_asked in asked.items() if is_asked]

    @property
    def wants_logprobs(self) -> bool:
        return bool(self.top_logprobs) or "message.output_text.logprobs" in (self.include or ())
