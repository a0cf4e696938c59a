"""The Responses API as the official SDK uses it: create, stream, retrieve, chains, input items, delete."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from axion_llm import errors
from axion_llm.security import keys_file
from axion_llm.security.keys import Key, digest
from axion_llm.servers.response_store import ResponseStore
from tests.fakes.fake_pool import FakePool, Script
from tests.servers.conftest import LiveServer, eventually

ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    *["response.output_text.delta"] * 3,
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


@pytest.mark.behaviour("responses.text")
def test_create(sdk: openai.OpenAI, pool: FakePool) -> None:
    found = sdk.responses.create(model="fake", input="Hi", instructions="Be brief.", stream=False, metadata={"a": "b"})
    assert found.output_text == "Hello world"
    assert (found.object, found.status, found.model, found.error) == ("response", "completed", "fake", None)
    assert (found.metadata, found.instructions, found.tools, found.tool_choice) == ({"a": "b"}, "Be brief.", [], "auto")
    (message,) = found.output
    assert message.type == "message" and message.role == "assistant" and message.id.startswith("msg_")
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.total_tokens) == (6, 3, 9)
    assert found.usage.input_tokens_details.cached_tokens == 0
    assert pool.requests[0].prompt == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_options_reach_the_worker(sdk: openai.OpenAI, pool: FakePool) -> None:
    found = sdk.responses.create(
        model="fake",
        input="Hi",
        stream=False,
        temperature=0.5,
        top_p=0.25,
        max_output_tokens=2,
        top_logprobs=1,
        include=["message.output_text.logprobs"],
        extra_body={"unheard_of": 1},
    )
    request = pool.requests[0]
    assert (request.sampling.temperature, request.sampling.top_p) == (0.5, 0.25)
    assert (request.max_tokens, request.top_logprobs) == (2, 1)
    assert found.status == "incomplete"
    assert found.incomplete_details is not None and found.incomplete_details.reason == "max_output_tokens"
    assert (found.temperature, found.top_p, found.max_output_tokens) == (0.5, 0.25, 2)
    assert found.output[0].type == "message"
    part = found.output[0].content[0]
    assert part.type == "output_text" and part.logprobs is not None
    assert [t.token for t in part.logprobs] == ["Hel", "lo"]
    assert [len(t.top_logprobs) for t in part.logprobs] == [1, 1]


def test_every_form_of_input(sdk: openai.OpenAI, pool: FakePool) -> None:
    items: Any = [
        {"role": "developer", "content": "Short."},
        {"role": "user", "content": [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "three"}]},
        {"role": "user", "content": "four"},
    ]
    sdk.responses.create(model="fake", input=items, stream=False)
    assert pool.requests[0].prompt == (
        "<|im_start|>system\nShort.<|im_end|>\n<|im_start|>user\none\ntwo<|im_end|>\n"
        "<|im_start|>assistant\nthree<|im_end|>\n<|im_start|>user\nfour<|im_end|>\n<|im_start|>assistant\n"
    )


# ---- streams


@pytest.mark.behaviour("responses.text")
def test_the_events_of_a_stream_and_their_order(sdk: openai.OpenAI) -> None:
    with sdk.responses.create(model="fake", input="Hi", stream=True) as stream:
        events = list(stream)
    assert [e.type for e in events] == ORDER
    assert [e.sequence_number for e in events] == list(range(len(ORDER)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "Hello world"
    first, last = events[0], events[-1]
    assert first.type == "response.created" and last.type == "response.completed"
    assert (first.response.status, first.response.output, first.response.usage) == ("in_progress", [], None)
    assert last.response.id == first.response.id
    assert last.response.output_text == "Hello world"
    assert last.response.usage is not None and last.response.usage.output_tokens == 3


def test_the_lines_of_a_stream(http: httpx.Client) -> None:
    """Each event names its type twice, as OpenAI's do, and nothing comes after the last."""
    text = http.post("/v1/responses", json={"model": "fake", "input": "Hi", "stream": True}).text
    events = [event.split("\n", 1) for event in text.strip().split("\n\n")]
    kinds = [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))["type"]) for name, data in events]
    assert kinds == [(kind, kind) for kind in ORDER]


@pytest.mark.behaviour("responses.text")
def test_the_streaming_helper(sdk: openai.OpenAI) -> None:
    with sdk.responses.stream(model="fake", input="Hi", max_output_tokens=100) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == final.output_text == "Hello world"


def test_an_end_for_want_of_tokens(sdk: openai.OpenAI) -> None:
    *_, last = sdk.responses.create(model="fake", input="Hi", stream=True, max_output_tokens=1)
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert last.response.incomplete_details.reason == "max_output_tokens"


def test_an_answer_without_a_word(sdk: openai.OpenAI, pool: FakePool) -> None:
    pool.script = Script(pieces=[])
    events = list(sdk.responses.create(model="fake", input="Hi", stream=True))
    assert [e.type for e in events] == [kind for kind in ORDER if not kind.endswith("delta")]
    assert sdk.responses.create(model="fake", input="Hi", stream=False).output_text == ""


def test_a_failure_in_mid_stream(sdk: openai.OpenAI, http: httpx.Client, pool: FakePool) -> None:
    pool.script = Script(fail=errors.WorkerDied("the worker is gone"), fail_after=2)
    seen = []
    with pytest.raises(openai.APIError, match="the worker is gone"):
        for event in sdk.responses.create(model="fake", input="Hi", stream=True):
            seen.append(event)
    assert seen[-1].type == "response.failed"
    assert seen[-1].response.error is not None and seen[-1].response.error.code == "server_error"
    assert http.post("/v1/responses", json={"model": "fake", "input": "Hi", "stream": True}).text.count("error") >= 3


async def test_leaving_a_stream_cancels_it(async_sdk: openai.AsyncOpenAI, pool: FakePool) -> None:
    pool.script = Script(pieces=["x"] * 1000, delay=0.01)
    async with await async_sdk.responses.create(model="fake", input="Hi", stream=True) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                break
    await asyncio.to_thread(eventually, lambda: pool.num_cancelled == 1 and pool.num_running == 0)


# ---- stored ones


def test_a_stored_response_is_read_again(sdk: openai.OpenAI) -> None:
    created = sdk.responses.create(model="fake", input="Hi", stream=False)
    assert created.store is True
    assert sdk.responses.retrieve(created.id).to_dict() == created.to_dict()
    *_, last = sdk.responses.create(model="fake", input="Hi", stream=True)
    assert last.type == "response.completed"
    assert sdk.responses.retrieve(last.response.id).to_dict() == last.response.to_dict()


@pytest.mark.behaviour("responses.previous")
def test_a_conversation_goes_on(sdk: openai.OpenAI, pool: FakePool) -> None:
    """What was said is put before the new input; instructions are not carried over."""
    first = sdk.responses.create(model="fake", input="one", instructions="Never again.", stream=False)
    second = sdk.responses.create(model="fake", input="two", previous_response_id=first.id, stream=False)
    third = sdk.responses.create(model="fake", input="three", previous_response_id=second.id, stream=False)
    assert third.previous_response_id == second.id
    turn = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    answer = "Hello world<|im_end|>\n"
    expected = turn.format("one") + answer + turn.format("two") + answer + turn.format("three")
    assert pool.requests[-1].prompt == expected


def test_input_items(sdk: openai.OpenAI) -> None:
    items: Any = [{"role": "user", "content": f"{i}"} for i in range(5)]
    created = sdk.responses.create(model="fake", input=items, stream=False)
    found = list(sdk.responses.input_items.list(created.id, limit=2, order="asc"))
    assert [item.content[0].text for item in found if item.type == "message"] == ["0", "1", "2", "3", "4"]  # type: ignore[union-attr]
    newest_first = sdk.responses.input_items.list(created.id, limit=3)
    assert [item.content[0].text for item in newest_first.data] == ["4", "3", "2"]  # type: ignore[union-attr]
    assert newest_first.has_more


def test_delete(sdk: openai.OpenAI) -> None:
    created = sdk.responses.create(model="fake", input="Hi", stream=False)
    sdk.responses.delete(created.id)
    for call in (sdk.responses.retrieve, sdk.responses.delete, sdk.responses.input_items.list):
        with pytest.raises(openai.NotFoundError) as caught:
            call(created.id)
        assert caught.value.code == "response_not_found"
    with pytest.raises(openai.BadRequestError) as previous:
        sdk.responses.create(model="fake", input="Hi", previous_response_id=created.id)
    assert (previous.value.code, previous.value.param) == ("previous_response_not_found", "previous_response_id")


def test_what_shall_not_be_stored_is_not(sdk: openai.OpenAI) -> None:
    created = sdk.responses.create(model="fake", input="Hi", stream=False, store=False)
    assert created.store is False
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(created.id)


def test_a_response_that_failed_is_not_stored(sdk: openai.OpenAI, pool: FakePool) -> None:
    pool.script = Script(fail=errors.WorkerDied("gone"), fail_after=1)
    events: list[Any] = []
    with pytest.raises(openai.APIError):
        for event in sdk.responses.create(model="fake", input="Hi", stream=True):
            events.append(event)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(events[0].response.id)
    with pytest.raises(openai.InternalServerError):
        sdk.responses.create(model="fake", input="Hi", stream=False)


@contextmanager
def started(**settings: object) -> Iterator[tuple[LiveServer, openai.OpenAI]]:
    server = LiveServer(**settings).start()
    with openai.OpenAI(base_url=f"{server.urls['standard']}/v1", api_key="none", max_retries=0, timeout=10) as sdk:
        try:
            yield server, sdk
        finally:
            server.ask_to_stop()
            server.join()


@pytest.mark.behaviour("responses.previous", columns=["standard"])
def test_storing_can_be_switched_off() -> None:
    with started(store_responses=False) as (server, sdk):
        created = sdk.responses.create(model="fake", input="Hi")
        assert created.store is False
        with pytest.raises(openai.NotFoundError, match="keeps no responses"):
            sdk.responses.retrieve(created.id)
        with pytest.raises(openai.BadRequestError, match="send the whole conversation") as previous:
            sdk.responses.create(model="fake", input="Hi", previous_response_id=created.id)
        assert previous.value.param == "previous_response_id"
        with pytest.raises(openai.BadRequestError) as store:
            sdk.responses.create(model="fake", input="Hi", store=True)
        assert store.value.param == "store"
        assert not server.settings.responses_file.exists()


def test_all_ports_have_one_store_that_only_its_owner_can_read(server: LiveServer) -> None:
    urls = list(server.urls.values())
    body = {"model": "fake", "input": "Hi", "stream": False}
    created = httpx.post(f"{urls[0]}/v1/responses", json=body).json()
    assert [httpx.get(f"{url}/v1/responses/{created['id']}").status_code for url in urls] == [200] * len(urls)
    assert stat.S_IMODE(server.settings.responses_file.stat().st_mode) == 0o600


def test_of_two_keys_each_sees_its_own() -> None:
    with started(api_keys="key-of-the-one-00000000,key-of-the-other-0000000") as (_, sdk):
        one = sdk.with_options(api_key="key-of-the-one-00000000")
        other = sdk.with_options(api_key="key-of-the-other-0000000")
        created = one.responses.create(model="fake", input="Hi")
        assert one.responses.retrieve(created.id).id == created.id
        with pytest.raises(openai.NotFoundError):
            other.responses.retrieve(created.id)
        with pytest.raises(openai.NotFoundError):
            other.responses.delete(created.id)
        with pytest.raises(openai.BadRequestError):
            other.responses.create(model="fake", input="Hi", previous_response_id=created.id)


def test_a_new_key_of_an_old_name_reads_nothing_of_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axion_llm.security.keyring.LOOK_SECONDS", 0.0)
    path, use = tmp_path / "keys.toml", frozenset({"use"})
    keys_file.write(path, [Key("alice", digest("key-of-the-old-one"), use)])
    with started(keys_file=path) as (_, sdk):
        created = sdk.with_options(api_key="key-of-the-old-one").responses.create(model="fake", input="Hi")
        keys_file.write(path, [Key("alice", digest("key-of-the-new-one"), use)])
        with pytest.raises(openai.NotFoundError):
            sdk.with_options(api_key="key-of-the-new-one").responses.retrieve(created.id)


def test_a_database_of_before_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "responses.sqlite"
    left = sqlite3.connect(path)
    left.execute("PRAGMA journal_mode = WAL")
    left.execute("CREATE TABLE t (a)")
    files = [path, *(path.with_name(f"{path.name}-{end}") for end in ("wal", "shm"))]
    for file in files:
        file.chmod(0o644)
    ResponseStore(path, 60).close()
    assert {stat.S_IMODE(file.stat().st_mode) for file in files if file.exists()} == {0o600}
    left.close()


@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_stored_says_so(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    """A full disk: an id that is said to be stored is one that can be read again."""

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with started() as (server, sdk):
        kept = sdk.responses.create(model="fake", input="Hi", stream=False)
        assert kept.store is True  # type: ignore[attr-defined]
        monkeypatch.setattr(ResponseStore, "put", full)
        body = {"model": "fake", "input": "Hi", "stream": stream, "store": True}
        answer = httpx.post(f"{server.urls['standard']}/v1/responses", json=body)
        assert answer.status_code == 200
        last = answer.text.strip().splitlines()[-1].removeprefix("data: ")
        found = json.loads(last)
        assert (found["response"] if stream else found)["store"] is False


def test_a_store_that_fails_is_a_503_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with started() as (server, sdk):
        kept = sdk.responses.create(model="fake", input="Hi", stream=False)
        monkeypatch.setattr(ResponseStore, "delete", full)
        answer = httpx.delete(f"{server.urls['standard']}/v1/responses/{kept.id}")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "storage_unavailable"


def test_a_database_that_was_deleted_is_made_anew() -> None:
    with started() as (server, sdk):
        gone = sdk.responses.create(model="fake", input="Hi", stream=False)
        server.settings.responses_file.unlink()
        kept = sdk.responses.create(model="fake", input="Hi", stream=False)
        assert sdk.responses.retrieve(kept.id).id == kept.id
        with pytest.raises(openai.NotFoundError):
            sdk.responses.retrieve(gone.id)


def test_a_database_that_another_process_holds_does_not_hold_up_answers() -> None:
    with started() as (server, sdk):
        sdk.responses.create(model="fake", input="Hi", stream=False)
        other = sqlite3.connect(server.settings.responses_file, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        first = sdk.responses.create(model="fake", input="Hi", stream=False)
        began = time.monotonic()
        rest = [sdk.responses.create(model="fake", input="Hi", stream=False) for _ in range(5)]
        assert time.monotonic() - began < 5  # after the first they do not try for a while
        assert [found.store for found in (first, *rest)] == [False] * 6  # type: ignore[attr-defined]
        other.execute("ROLLBACK")
        other.close()


def test_the_store_forgets_what_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("axion_llm.servers.response_store.time.time", lambda: now[0])
    store = ResponseStore(tmp_path / "new" / "r.sqlite", ttl_seconds=100)
    store.put("", {"id": "old", "previous_response_id": None, "output": []}, [])
    now[0] += 101
    with pytest.raises(errors.ResponseNotFound):
        store.get("", "old")
    store.put("", {"id": "new", "previous_response_id": "old", "output": []}, [{"a": 1}])
    with pytest.raises(errors.PreviousResponseNotFound, match="'old'"):  # a conversation with a gap is none
        store.conversation("", "new")
    store.close()
    again = ResponseStore(tmp_path / "new" / "r.sqlite", ttl_seconds=100)  # it outlives the process
    assert again.get("", "new").items == [{"a": 1}]
    again.close()


def test_the_store_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are stored with what brought them; the oldest go, also those of an earlier process."""
    monkeypatch.setattr("axion_llm.servers.response_store.MAX_BYTES", 100_000)
    path, picture = tmp_path / "r.sqlite", [{"image": "a" * 9_900}]
    for number in range(40):
        store = ResponseStore(path, ttl_seconds=100)
        store.put("", {"id": str(number), "previous_response_id": None, "output": []}, picture)
        store.close()
    store = ResponseStore(path, ttl_seconds=100)
    kept = [number for number in range(40) if is_kept(store, str(number))]
    assert kept == list(range(kept[0], 40)) and 7 <= len(kept) <= 10
    store.delete("", "39")
    assert not is_kept(store, "39")
    store.close()
    assert path.stat().st_size < 200_000


def is_kept(store: ResponseStore, response_id: str) -> bool:
    try:
        return bool(store.get("", response_id))
    except errors.ResponseNotFound:
        return False


# ---- errors


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "narrator", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "c"}, "conversation"),
        ({"reasoning": {"effort": "endless"}}, "reasoning.effort"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"include": ["everything"]}, "include[0]"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"previous_response_id": "resp_unknown"}, "previous_response_id"),
        ({"stream": False, "stream_options": {}}, "stream_options"),
        ({"text": {"verbosity": "endless"}}, "text.verbosity"),
    ],
)
def test_bad_requests_name_the_field(http: httpx.Client, change: dict[str, Any], param: str) -> None:
    found = http.post("/v1/responses", json={"model": "fake", "input": "Hi", **change})
    assert found.status_code == 400
    error = found.json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(param) or "previous" in error["message"].lower()


def test_errors_of_the_model_and_the_pool(sdk: openai.OpenAI, pool: FakePool) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        sdk.responses.create(model="nope", input="Hi")
    assert unknown.value.code == "model_not_found"
    pool.script = Script(reject=errors.ContextLengthExceeded("too long"))
    with pytest.raises(openai.BadRequestError) as too_long:
        sdk.responses.create(model="fake", input="Hi", stream=True)
    assert too_long.value.code == "context_length_exceeded"


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=101", "order=up", "after=nothing"])
def test_bad_queries(http: httpx.Client, query: str) -> None:
    created = http.post("/v1/responses", json={"model": "fake", "input": "Hi", "stream": False}).json()
    found = http.get(f"/v1/responses/{created['id']}/input_items?{query}")
    assert found.status_code == 400
    assert found.json()["error"]["param"] == query.partition("=")[0]
    assert http.get(f"/v1/responses/{created['id']}?stream=true").status_code == 400
