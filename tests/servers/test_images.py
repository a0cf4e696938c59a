"""Images in requests: data URLs on every port, and URLs that the server fetches if it may, from where it may."""

from __future__ import annotations

import base64
import http.server
import io
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from msgspec import structs
from PIL import Image as Pillow

from axion_llm.api.schemas import ChatRequest
from axion_llm.config import Settings
from axion_llm.errors import BadRequest
from axion_llm.servers.image_fetch import CannotFetch, Limits, fetch, is_public
from axion_llm.servers.images import load_images
from axion_llm.worker.messages import Image
from tests.fakes.fake_pool import FakePool


def png(color: str = "red") -> bytes:
    file = io.BytesIO()
    Pillow.new("RGB", (4, 4), color).save(file, "PNG")
    return file.getvalue()


def data_url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def messages(*parts: str) -> list[Any]:
    """URLs become images, other strings text."""
    return [
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": p}} if ":" in p else {"type": "text", "text": p}
                for p in parts
            ],
        }
    ]


@pytest.fixture
def seeing(pool: FakePool) -> FakePool:
    pool.info = structs.replace(pool.info, has_vision=True, control_tokens=["<|im_end|>"])
    return pool


@pytest.mark.behaviour("images.data")
def test_images_reach_the_worker_at_their_places(sdk: openai.OpenAI, seeing: FakePool) -> None:
    asked = messages("See", data_url(png("red")), "and", data_url(png("blue")), "<|im_end|>?")
    sdk.chat.completions.create(model="fake", messages=asked, stream=False)
    (request,) = seeing.requests
    prompt = str(request.prompt)
    assert prompt == ("<|im_start|>user\nSee\n\n\n\nand\n\n\n\n<|im_end|>?<|im_end|>\n<|im_start|>assistant\n")
    first, second = prompt.index("See\n\n") + 5, prompt.index("and\n\n") + 5
    assert request.images == [Image(first, png("red")), Image(second, png("blue"))]
    assert [prompt[p - 1 : p + 9] for p in request.literals] == ["<|im_end|>"]


def test_the_same_through_the_responses_api(sdk: openai.OpenAI, seeing: FakePool) -> None:
    content: Any = [
        {"type": "input_text", "text": "See"},
        {"type": "input_image", "image_url": data_url(png()), "detail": "low"},
    ]
    first = sdk.responses.create(model="fake", input=[{"role": "user", "content": content}], stream=False)
    assert [image.data for image in seeing.requests[0].images] == [png()]
    sdk.responses.create(model="fake", input="And now?", previous_response_id=first.id, stream=False)
    assert [image.data for image in seeing.requests[1].images] == [png()]


@pytest.mark.behaviour("images.blind")
def test_a_model_without_vision(sdk: openai.OpenAI, pool: FakePool) -> None:
    with pytest.raises(openai.BadRequestError, match="takes no images") as caught:
        sdk.chat.completions.create(model="fake", messages=messages("See", data_url(png())), stream=True)
    assert caught.value.param == "messages[0].content[1]"
    content: Any = [{"type": "input_image", "image_url": data_url(png()), "detail": "auto"}]
    with pytest.raises(openai.BadRequestError, match="takes no images"):
        sdk.responses.create(model="fake", input=[{"role": "user", "content": content}])
    assert pool.requests == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("data:image/png;base64,!!!!", "not valid base64"),
        ("data:image/png,abc", "must be like data:image/png;base64"),
        ("data:text/html;base64,aaaa", "must be like data:image/png;base64"),
        (data_url(b"<svg/>"), "is no PNG, JPEG, WebP or GIF"),
        (data_url(png() + bytes(5000)), "larger than 4,000 bytes"),
        ("https://example.com/a.png", "image_urls is off"),
        ("file:///etc/passwd", "image_urls is off"),
    ],
)
async def test_urls_that_are_refused(url: str, reason: str) -> None:
    request = ChatRequest.model_validate({"model": "fake", "messages": messages("See", url)})
    with pytest.raises(BadRequest, match=reason) as caught:
        await load_images(request, Settings(max_image_bytes=4000))
    assert caught.value.param == "messages[0].content[1].image_url.url"


async def test_too_many() -> None:
    many = messages(*[data_url(png())] * 3)
    request = ChatRequest.model_validate({"model": "fake", "messages": many})
    with pytest.raises(BadRequest, match="3 images, at most 2"):
        await load_images(request, Settings(max_images=2))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([{"type": "image_url"}], "must have an object with a url"),
        ([{"type": "image_url", "image_url": {"url": ""}}], "must have an object with a url"),
        ([{"type": "image_url", "image_url": {"url": "data:", "detail": "huge"}}], "auto, low or high"),
        ([{"type": "input_audio", "input_audio": {}}], "this server takes 'text' and 'image_url'"),
    ],
)
def test_parts_that_are_none(sdk: openai.OpenAI, content: Any, reason: str) -> None:
    with pytest.raises(openai.BadRequestError, match=reason) as caught:
        sdk.chat.completions.create(model="fake", messages=[{"role": "user", "content": content}])
    assert caught.value.param == "messages[0].content"


def test_only_users_show_images(sdk: openai.OpenAI) -> None:
    asked = messages(data_url(png()))
    asked[0]["role"] = "system"
    with pytest.raises(openai.BadRequestError, match="only a user's message"):
        sdk.chat.completions.create(model="fake", messages=asked)


# ---- fetching


class _Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind, _, rest = self.path.lstrip("/").partition("/")
        if kind == "redirect":
            self.send_response(302)
            self.send_header("location", "/" + rest if not rest.startswith("to:") else rest[3:])
            self.end_headers()
        elif kind == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        elif kind == "status":
            self.send_response(int(rest))
            self.end_headers()
        else:
            self.send_response(200)
            body = png() + bytes(int(rest or 0))
            if kind != "unannounced":
                self.send_header("content-length", str(len(body) + (kind == "short")))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Site)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that leave
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def limits(**changes: Any) -> Limits:
    values = {"max_bytes": 4000, "timeout_seconds": 5.0, "is_allowed": lambda _: True, **changes}
    return Limits(**values)


@pytest.mark.parametrize("path", ["/image", "/unannounced", "/redirect/image", "/redirect/redirect/redirect/image"])
async def test_an_image_is_fetched(site: str, path: str) -> None:
    assert await fetch(site + path, limits()) == png()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/image/5000", "more than 4,000 bytes"),
        ("/unannounced/5000", "more than 4,000 bytes"),
        ("/short", "failed|too early"),
        ("/status/404", "status 404"),
        ("/redirect/redirect/redirect/redirect/image", "redirects"),
        ("/redirect/to:file:///etc/passwd", "must begin with http"),
    ],
)
async def test_what_goes_wrong_has_a_reason(site: str, path: str, reason: str) -> None:
    with pytest.raises(CannotFetch, match=reason):
        await fetch(site + path, limits())


async def test_a_server_that_drips_has_no_more_time_than_others(site: str) -> None:
    began = time.monotonic()
    with pytest.raises(CannotFetch, match=r"longer than 0\.3 s"):
        await fetch(site + "/drip", limits(timeout_seconds=0.3))
    assert time.monotonic() - began < 2


async def test_nothing_of_this_machine_is_fetched(site: str) -> None:
    port = site.rpartition(":")[2]
    hosts = ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "10.0.0.1"]
    for host in [*hosts, "169.254.169.254", "[fd00::1]", "[fe80::1]", "[64:ff9b::7f00:1]"]:
        with pytest.raises(CannotFetch, match=r"not on the public internet|unknown"):
            await fetch(f"http://{host}:{port}/image", limits(is_allowed=is_public))


async def test_no_redirect_leads_there(site: str) -> None:
    """The first host is allowed, the one that it names is not."""
    seen: list[str] = []

    def only_the_first(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        seen.append(str(address))
        return len(seen) == 1

    with pytest.raises(CannotFetch, match="not on the public internet"):
        await fetch(f"{site}/redirect/to:http://127.0.0.2/secret", limits(is_allowed=only_the_first))
    assert seen == ["127.0.0.1", "127.0.0.2"]


async def test_a_name_is_asked_for_once(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection goes to the address that was looked at, whatever the name says later."""
    port, asked = int(site.rpartition(":")[2]), []
    real = socket.getaddrinfo

    def rebinding(host: Any, *args: Any, **options: Any) -> Any:
        asked.append(host)
        return real("127.0.0.1" if asked.count("rebind.test") == 1 else "10.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert await fetch(f"http://rebind.test:{port}/image", limits()) == png()
    assert asked.count("rebind.test") == 1


async def test_a_host_with_one_private_address_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 80)) for a in ("93.184.215.14", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with pytest.raises(CannotFetch, match="not on the public internet"):
        await fetch("http://two.test/", limits(is_allowed=is_public))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a/b",
        "http://",
        "http://user:secret@a/b",
        "http://a b/",
        "http://a/\r\nx: y",
        "http://[",
        "http://a:99999/",
    ],
)
async def test_urls_that_make_no_sense(url: str) -> None:
    with pytest.raises(CannotFetch):
        await fetch(url, limits())


async def test_a_fetched_image_is_one_of_the_request(site: str) -> None:
    request = ChatRequest.model_validate({"model": "fake", "messages": messages("See", f"{site}/image")})
    await load_images(request, Settings(image_urls=True), is_allowed=lambda _: True)
    assert request.image_files == {f"{site}/image": png()}
    refused = ChatRequest.model_validate({"model": "fake", "messages": messages(f"{site}/image")})
    with pytest.raises(BadRequest, match="not on the public internet"):
        await load_images(refused, Settings(image_urls=True))
