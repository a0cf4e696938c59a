"""`consensus ask`, `calibrate` and `eval` against a live service with a fake pool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from axion_llm.cli.main import cli
from axion_llm.consensus.weights_file import read_weights
from axion_llm.errors import AxionError, ServiceError
from axion_llm.worker.messages import Generate
from tests.fakes.fake_pool import FakePool, Script
from tests.servers.conftest import LiveServer


def call(server: LiveServer, *arguments: str, **environ: str) -> Result:
    arguments = ("consensus", *arguments, "--url", server.urls["consensus"])
    return CliRunner().invoke(cli, arguments, env=environ, catch_exceptions=True)


def clever(request: Generate) -> Script:
    """Adds correctly."""
    prompt = str(request.prompt)
    numbers = [int(word) for word in prompt.replace("?", " ").split() if word.isdigit()]
    return Script(pieces=[f"The answer is {sum(numbers)}."])


def test_ask(server: LiveServer, pool: FakePool) -> None:
    pool.script = Script(pieces=["4", "2"])
    result = call(server, "ask", "How many?", "--strategy", "vote", "--show-experts")
    assert result.exit_code == 0
    assert result.stdout.startswith("42\n")
    for part in ("fake", "org/other", "agreement 100%", "vote was asked for"):
        assert part in " ".join(result.stdout.split())


def test_ask_as_json(server: LiveServer, pool: FakePool) -> None:
    result = call(server, "ask", "How many?", "--expert", "fake", "-n", "2", "--strategy", "self", "--json")
    found = json.loads(result.stdout)
    assert found["answer"] == "Hello world"
    assert len(found["consensus"]["experts"]) == 2


def test_the_services_own_words(server: LiveServer, pool: FakePool) -> None:
    result = call(server, "ask", "Hi", "--expert", "nobody")
    assert isinstance(result.exception, AxionError)
    assert "nobody" in result.exception.message


def test_nobody_listens() -> None:
    result = CliRunner().invoke(cli, ["consensus", "ask", "Hi", "--url", "http://127.0.0.1:1"])
    assert isinstance(result.exception, ServiceError)
    assert "axion-llm serve" in result.exception.message


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    file = tmp_path / "sums.jsonl"
    items = ({"prompt": f"What is {a} + 3 ?", "answer": a + 3, "domain": "math"} for a in range(8))
    file.write_text("\n".join(json.dumps(item) for item in items))
    return file


def test_calibrate_writes_what_the_service_reads(
    server: LiveServer, pool: FakePool, tmp_path: Path, sums: Path
) -> None:
    pool.scripts = {"fake": clever, "org/other": lambda request: Script(pieces=["5"])}
    weights = tmp_path / "weights.json"
    environ = {"AXION_CONSENSUS_WEIGHTS_FILE": str(weights)}
    result = call(server, "calibrate", "--set", str(sums), "-n", "1", **environ)
    assert result.exit_code == 0, result.output
    found = read_weights(weights)
    assert found.accuracy("fake", "math") == 1.0
    assert found.accuracy("org/other", "math") == 1 / 8
    assert found.weight("fake", "math") > found.weight("org/other", "math")
    assert str(weights) in result.stdout


def test_eval_asks_nothing_twice(server: LiveServer, pool: FakePool, tmp_path: Path, sums: Path) -> None:
    pool.scripts = {"fake": clever, "org/other": clever}
    arguments = ("eval", "--set", str(sums), "-n", "4", "--cache", str(tmp_path / "cache.jsonl"), "--json")
    first = json.loads(call(server, *arguments).stdout)
    num_asked = len(pool.requests)
    assert num_asked == 8 * 2 * 4
    assert json.loads(call(server, *arguments).stdout) == first
    assert len(pool.requests) == num_asked
    by_name = {row["name"]: row for row in first["rows"]}
    assert by_name["vote"]["accuracy"] == by_name["self"]["accuracy"] == 1.0
    assert first["foretold"]["seen"] == 1.0


def test_eval_with_a_synthesis_and_a_judge(server: LiveServer, pool: FakePool, sums: Path) -> None:
    def script(request: Generate) -> Script:
        return Script(pieces=["A"]) if "Which answer" in str(request.prompt) else clever(request)

    pool.scripts = {"fake": script, "org/other": script}
    result = call(
        server, "eval", "--set", str(sums), "-n", "1", "--aggregator", "fake", "--judge", "org/other", "--json"
    )
    found = json.loads(result.stdout)
    assert "synthesize" in {row["name"] for row in found["rows"]}
    assert found["judged"] == 0.5, "a judge that always says A follows the order, and counts for nobody"
