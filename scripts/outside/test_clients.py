"""LangChain's ChatOpenAI and LiteLLM as their users use them, against a running server (AXION_OUTSIDE_URL)."""

from __future__ import annotations

import json
import os
from typing import Any

import litellm
import pytest
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

URL = os.environ["AXION_OUTSIDE_URL"]
MODEL = "smollm2"
litellm.telemetry = False
litellm.num_retries = 0


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=150)


@tool
def get_weather(city: str, days: int) -> str:
    """The weather in a city for some days."""
    return f"rain in {city} for {days} days"


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
QUESTION = "What is the weather in Paris for the next 3 days?"


# ---- LangChain


@pytest.fixture
def langchain() -> ChatOpenAI:
    return ChatOpenAI(
        base_url=URL, api_key="none", model=MODEL, temperature=0, max_tokens=200, max_retries=0, timeout=60
    )


def test_langchain_chat(langchain: ChatOpenAI) -> None:
    found = langchain.invoke([SystemMessage("Be brief."), HumanMessage("What is gravity?")])
    assert found.content and found.response_metadata["model_name"] == MODEL
    assert found.usage_metadata is not None and found.usage_metadata["output_tokens"] > 5


def test_langchain_stream(langchain: ChatOpenAI) -> None:
    chunks = list(langchain.stream("What is gravity?"))
    assert len(chunks) > 5
    whole = "".join(str(chunk.content) for chunk in chunks)
    assert whole == langchain.invoke("What is gravity?").content


async def _collect(langchain: ChatOpenAI) -> str:
    return "".join([str(chunk.content) async for chunk in langchain.astream("What is gravity?")])


def test_langchain_async(langchain: ChatOpenAI) -> None:
    import asyncio

    assert asyncio.run(_collect(langchain)) == langchain.invoke("What is gravity?").content


def test_langchain_batch(langchain: ChatOpenAI) -> None:
    questions = [f"Say the number {i}." for i in range(4)]
    assert [m.content for m in langchain.batch(questions)] == [langchain.invoke(q).content for q in questions]


def test_langchain_tools(langchain: ChatOpenAI) -> None:
    bound = langchain.bind_tools([get_weather], tool_choice="get_weather", parallel_tool_calls=False)
    asked = bound.invoke(QUESTION)
    [call] = asked.tool_calls  # type: ignore[attr-defined]
    assert call["name"] == "get_weather" and set(call["args"]) == {"city", "days"}
    result = ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
    assert langchain.invoke([HumanMessage(QUESTION), asked, result]).content


def test_langchain_tools_streamed(langchain: ChatOpenAI) -> None:
    bound = langchain.bind_tools([get_weather], tool_choice="any", parallel_tool_calls=False)
    total = None
    for chunk in bound.stream(QUESTION):
        total = chunk if total is None else total + chunk
    assert total is not None and [c["name"] for c in total.tool_calls] == ["get_weather"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_structured_output(langchain: ChatOpenAI, method: Any) -> None:
    found = langchain.with_structured_output(Person, method=method).invoke("Invent a person.")
    assert isinstance(found, Person)


def test_langchain_json_mode(langchain: ChatOpenAI) -> None:
    found = langchain.with_structured_output(None, method="json_mode").invoke("Answer with a short JSON object.")
    assert isinstance(found, dict)


def test_langchain_logprobs(langchain: ChatOpenAI) -> None:
    found = langchain.bind(logprobs=True, top_logprobs=2).invoke("Hi")
    assert len(found.response_metadata["logprobs"]["content"][0]["top_logprobs"]) == 2


def test_langchain_embeddings() -> None:
    embeddings = OpenAIEmbeddings(base_url=URL, api_key="none", model=MODEL, check_embedding_ctx_length=False)
    first, second = embeddings.embed_documents(["a cat", "a dog"])
    assert len(first) == len(second) == len(embeddings.embed_query("a cat")) and first == embeddings.embed_query(
        "a cat"
    )


# ---- LiteLLM


def litellm_options(**options: Any) -> dict[str, Any]:
    common = {"model": f"openai/{MODEL}", "api_base": URL, "api_key": "none", "temperature": 0, "max_tokens": 200}
    return {**common, "messages": [{"role": "user", "content": QUESTION}], "timeout": 60, **options}


def test_litellm_chat() -> None:
    found = litellm.completion(**litellm_options())
    assert found.choices[0].message.content and found.usage.completion_tokens > 5


def test_litellm_stream() -> None:
    pieces = list(litellm.completion(**litellm_options(stream=True, stream_options={"include_usage": True})))
    text = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
    assert text == litellm.completion(**litellm_options()).choices[0].message.content
    assert pieces[-1].usage.completion_tokens > 5


def test_litellm_tools() -> None:
    found = litellm.completion(**litellm_options(tools=[WEATHER], tool_choice="required", parallel_tool_calls=False))
    [call] = found.choices[0].message.tool_calls
    assert set(json.loads(call.function.arguments)) == {"city", "days"}
    assert found.choices[0].finish_reason == "tool_calls"


def test_litellm_tools_streamed() -> None:
    options = litellm_options(tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, stream=True)
    chunks = list(litellm.completion(**options))
    whole = litellm.stream_chunk_builder(chunks)
    [call] = whole.choices[0].message.tool_calls
    assert call.function.name == "get_weather" and set(json.loads(call.function.arguments)) == {"city", "days"}


def test_litellm_structured_output() -> None:
    found = litellm.completion(**litellm_options(response_format=Person))
    Person.model_validate_json(found.choices[0].message.content)


def test_litellm_errors_are_its_own() -> None:
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**litellm_options(model="openai/nope"))
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**litellm_options(messages=[{"role": "user", "content": "a b " * 20_000}]))


def test_litellm_embeddings() -> None:
    found = litellm.embedding(model=f"openai/{MODEL}", input=["a cat"], api_base=URL, api_key="none")
    assert len(found.data[0]["embedding"]) > 100
