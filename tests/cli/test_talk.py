"""`run` and `chat` against a live service with a fake pool: what is sent, what is printed, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from axion_llm.cli.chat_cmd import _read
from axion_llm.cli.main import cli
from axion_llm.errors import AxionError, ServiceError, WorkerDied
from tests.fakes.fake_pool import FakePool, Script
from tests.servers.conftest import LiveServer


def call(server: LiveServer, *arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, [*arguments, "--url", server.urls["standard"]], input=stdin)


def prompts(pool: FakePool) -> list[str]:
    return [str(request.prompt) for request in pool.requests]


def test_run(server: LiveServer, pool: FakePool) -> None:
    result = call(server, "run", "fake", "Hi there", "--system", "Be brief.", "--temperature", "0", "--max-tokens", "9")
    assert (result.exit_code, result.stdout) == (0, "Hello world\n")
    assert "Be brief." in prompts(pool)[0] and "Hi there" in prompts(pool)[0]
    assert pool.requests[0].max_tokens == 9
    assert pool.requests[0].sampling.temperature == 0


@pytest.mark.parametrize(
    ("prompt", "piped", "asked"),
    [(["Sum up"], "a\nb\n", "Sum up\n\na\nb"), ([], "only this\n", "only this"), (["only that"], "", "only that")],
)
def test_run_takes_a_pipe(server: LiveServer, pool: FakePool, prompt: list[str], piped: str, asked: str) -> None:
    assert call(server, "run", "fake", *prompt, stdin=piped).exit_code == 0
    assert f"user\n{asked}<|im_end|>" in prompts(pool)[0]


def test_run_with_nothing_to_ask(server: LiveServer) -> None:
    result = call(server, "run", "fake", stdin="  \n")
    assert result.exit_code == 2
    assert "axion-llm chat" in result.output


def test_run_json(server: LiveServer, pool: FakePool) -> None:
    result = call(server, "run", "fake", "Hi", "--json", "--stats")
    document = json.loads(result.stdout)
    assert document["text"] == "Hello world"
    assert (document["model"], document["finish_reason"], document["completion_tokens"]) == ("fake", "stop", 3)
    assert document["ttft_seconds"] > 0
    assert "tokens in, 3 out" in result.stderr


@pytest.mark.parametrize(
    ("script", "problem"),
    [(Script(reject=WorkerDied("it is gone")), "it is gone"), (Script(fail=WorkerDied("half"), fail_after=1), "half")],
)
def test_run_fails(server: LiveServer, pool: FakePool, script: Script, problem: str) -> None:
    pool.script = script
    result = call(server, "run", "fake", "Hi")
    assert isinstance(result.exception, ServiceError)  # main() makes exit code 1 of it
    assert problem in result.exception.message


def test_run_an_unknown_model(server: LiveServer, pool: FakePool) -> None:
    result = call(server, "run", "nope", "Hi")
    assert isinstance(result.exception, AxionError)
    assert "There is no model 'nope'" in result.exception.message


def test_nobody_at_the_url() -> None:
    result = CliRunner().invoke(cli, ["run", "m", "Hi", "--url", "http://127.0.0.1:1"])
    assert isinstance(result.exception, AxionError)
    assert "axion-llm serve" in result.exception.message


def test_chat(server: LiveServer, pool: FakePool, tmp_path: Path) -> None:
    lines = ["Hi", "/set temperature 0", "And", "/oops", "/retry", f"/save {tmp_path}/x.json", "/exit", "not reached"]
    result = call(server, "chat", stdin="\n".join(lines) + "\n")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"fake {server.urls['standard']}")
    assert result.stdout.count("Hello world\n") == 3
    assert "no command /oops" in result.stdout
    first, second, third = pool.requests
    assert "Hello world" not in str(first.prompt) and "Hello world" in str(second.prompt)
    assert second.prompt == third.prompt and second.sampling.temperature == 0
    saved = json.loads((tmp_path / "x.json").read_text())["messages"]
    assert [m["role"] for m in saved] == ["user", "assistant"] * 2


def test_chat_goes_on_after_an_error(server: LiveServer, pool: FakePool) -> None:
    pool.script = Script(reject=WorkerDied("it is gone"))
    result = call(server, "chat", "fake", stdin="Hi\n/save\n")
    assert result.exit_code == 0
    assert "it is gone" in result.stderr
    assert "/save FILE" in result.stdout


def test_chat_with_a_model_that_is_not_there(server: LiveServer, pool: FakePool) -> None:
    result = call(server, "chat", "nope")
    assert isinstance(result.exception, ServiceError)


@pytest.mark.parametrize(
    ("lines", "text"),
    [(["one"], "one"), (["one\\", "two\\", "three"], "one\ntwo\nthree"), (['"""', "a", "", "b", '"""'], "a\n\nb")],
)
def test_messages_of_several_lines(lines: list[str], text: str) -> None:
    rest = iter(lines)
    assert _read(lambda prompt: next(rest)) == text
    assert list(rest) == []
