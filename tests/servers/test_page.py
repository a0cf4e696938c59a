"""The chat page's files: what is sent, under which rules, and that nothing else is."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from hatchling.builders.wheel import WheelBuilder

from axion_llm.servers.page import ROOT, page_files

FILES = page_files()


@pytest.mark.parametrize("path", FILES)
def test_each_file(http: httpx.Client, path: str) -> None:
    response = http.get(path)
    assert response.status_code == 200
    assert response.content == FILES[path].content
    assert response.headers["content-type"] == FILES[path].media_type
    assert response.headers["x-content-type-options"] == "nosniff"
    assert http.head(path).headers["content-length"] == str(len(response.content))


def test_the_policy_is_strict(http: httpx.Client) -> None:
    policy = http.get("/").headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == rules["trusted-types"] == "'none'"
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy


def test_it_is_kept_by_the_browser_and_never_stale(http: httpx.Client) -> None:
    first = http.get("/")
    assert first.headers["cache-control"] == "no-cache"
    again = http.get("/", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"]
    assert http.get("/", headers={"if-none-match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/web/", "/web/js", "/web/index.html", "/web/../config.py", "/web/%2e%2e/config.py", "/web/js//main.js"]
)
def test_nothing_but_its_files(http: httpx.Client, path: str) -> None:
    response = http.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


def test_no_asset_from_elsewhere_and_no_code_in_the_page() -> None:
    html = (ROOT / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", html)
    for path in ROOT.rglob("*"):
        if path.suffix in (".html", ".css", ".js"):
            text = path.read_text()
            assert not re.search(
                r"(src|href)=[\"']?(https?:)?//|url\(|@import|import\(|\.innerHTML|insertAdjacentHTML", text
            )


def test_all_modules_are_asked_for_at_once() -> None:
    html = (ROOT / "index.html").read_text()
    named = set(re.findall(r'"(/web/[^"]+)"', html))
    assert named == {path for path in FILES if path != "/"}


def test_each_file_is_small() -> None:
    assert [p.name for p in ROOT.rglob("*.*") if len(p.read_text().splitlines()) > 300] == []
    assert sum(len(f.content) for f in FILES.values()) < 150_000


def test_a_wheel_has_them_all() -> None:
    project = ROOT.parent.parent
    found = {file.distribution_path for file in WheelBuilder(str(project)).recurse_included_files()}
    assert {f"axion_llm/web/{path.relative_to(ROOT).as_posix()}" for path in ROOT.rglob("*.*")} <= found


def test_every_import_is_of_a_file_that_is_there() -> None:
    for path in ROOT.rglob("*.js"):
        for name in re.findall(r'from "([^"]+)"', path.read_text()):
            assert Path(path.parent, name).resolve().is_file(), (path.name, name)
