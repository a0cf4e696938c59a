"""Imports point one way: cli -> servers -> consensus -> api -> pool -> worker.client; only a worker has the engine."""

import ast
import subprocess
import sys
from pathlib import Path

import axion_llm

ROOT = Path(axion_llm.__file__).parent

# What each part may import of the package, beside itself.
LEAVES = {"errors", "files", "ranges", "config", "worker.messages"}
ALLOWED = {
    "errors": set(),
    "files": set(),
    "ranges": set(),
    "config": {"errors"},
    "native": {"errors", "config"},
    "kernels.footing": {"config"},
    "kernels": {"errors", "config", "native", "kernels"},
    "worker.messages": set(),
    "models": LEAVES | {"models"},
    "engine": LEAVES | {"native", "engine"},
    "worker.intake": LEAVES | {"engine"},
    "worker.process": LEAVES | {"engine", "worker.pulse", "worker.intake", "worker.side_jobs", "kernels.self_test"},
    "worker.probe": LEAVES | {"engine", "kernels.self_test"},
    "worker": LEAVES | {"worker", "pool.interface"},
    "pool": LEAVES | {"models", "worker", "pool", "kernels.footing", "native"},
    "api": LEAVES | {"models.spec", "pool.interface", "api"},
    "security": LEAVES | {"models.toml_file", "security"},
    "consensus": LEAVES | {"models.spec", "api", "pool.interface", "consensus"},
    "servers": LEAVES
    | {"kernels.footing", "models.spec", "api", "pool.interface", "pool.report", "security", "consensus", "servers"},
    "bench": LEAVES | {"native", "kernels", "engine.binding", "bench", "models", "consensus"},
}
# Their own files are what counts.
PACKAGES = {"kernels", "worker", "models", "engine", "pool", "api", "servers", "bench", "security", "consensus"}
PURE = {
    "engine/scheduler.py",
    "engine/sequence.py",
    "engine/text.py",
    "pool/policy.py",
    "security/limits.py",
    "security/origin.py",
    *(f"consensus/{name}.py" for name in ("attempt", "ballot", "deadlines", "extract", "plan", "route")),
    *(f"consensus/{name}.py" for name in ("strategies", "vote")),
}
EFFECTS = {"asyncio", "ctypes", "socket", "subprocess", "zmq", "threading", "os"}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    return found


def rule_for(name: str) -> set[str] | None:
    parts = name.split(".")
    return next((ALLOWED[p] for p in (".".join(parts[:2]), parts[0]) if p in ALLOWED), None)


def is_within(name: str, allowed: set[str]) -> bool:
    return any(name == a or name.startswith(a + ".") for a in allowed)


def test_imports_point_one_way() -> None:
    known = {module_name(p) for p in ROOT.rglob("*.py")}
    wrong = []
    for path in ROOT.rglob("*.py"):
        rule = rule_for(module_name(path))
        if rule is None:
            continue  # cli may import anything
        inner = {i.removeprefix("axion_llm.") for i in imports(path) if i.startswith("axion_llm.")} & known
        wrong += [f"{module_name(path)} imports {i}" for i in inner - PACKAGES if not is_within(i, rule)]
    assert not wrong


def test_the_pure_parts_have_no_effects() -> None:
    wrong = [f"{name}: {i}" for name in PURE for i in imports(ROOT / name) if i.split(".")[0] in EFFECTS]
    assert not wrong


def test_only_the_binding_imports_llama_cpp() -> None:
    users = [module_name(p) for p in ROOT.rglob("*.py") if any(i.split(".")[0] == "llama_cpp" for i in imports(p))]
    assert users == ["engine.binding"]


def test_only_config_reads_the_environment() -> None:
    users = {module_name(p) for p in ROOT.rglob("*.py") if "os.environ" in p.read_text() or "getenv" in p.read_text()}
    assert users <= {"config", "bench.servers"}, "bench hands its own environment on to the servers it starts"


def test_the_server_process_never_loads_llama_cpp() -> None:
    code = (
        "import axion_llm.cli.main, axion_llm.servers.run, axion_llm.pool.pool, sys; print('llama_cpp' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
