"""Images on the page: chosen, pasted, made smaller, sent as data URLs to models that see, and to no others."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Page, expect

from tests.fakes.fake_pool import FakePool, spec
from tests.web.conftest import say

PASTE = """([data, name]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type: "image/png" }));
  const event = new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true });
  document.querySelector("#message").dispatchEvent(event);
}"""


def picture(name: str = "red.png", size: tuple[int, int] = (40, 20)) -> FilePayload:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": buffer.getvalue()}


def size_of(url: str) -> tuple[int, int]:
    head, _, data = url.partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return Image.open(io.BytesIO(base64.b64decode(data))).size


@pytest.fixture
def seeing(page: Page, pool: FakePool) -> Page:
    pool.specs = [spec("fake", mmproj="projector.gguf"), spec("blind")]
    page.reload()
    expect(page.get_by_role("button", name="Add images")).to_be_visible()
    return page


def sent(page: Page, text: str) -> list[dict[str, Any]]:
    with page.expect_request("**/v1/chat/completions") as request:
        say(page, text)
    parts: list[dict[str, Any]] = request.value.post_data_json["messages"][-1]["content"]
    return parts


def test_an_image_goes_with_the_message(seeing: Page) -> None:
    seeing.locator("#file").set_input_files([picture("a.png"), picture("b.png")])
    expect(seeing.get_by_role("list", name="Images to send").get_by_role("listitem")).to_have_count(2)
    seeing.get_by_role("button", name="Remove a.png").click()
    image, text = sent(seeing, "What is it?")
    assert text == {"type": "text", "text": "What is it?"}
    assert image["type"] == "image_url" and size_of(image["image_url"]["url"]) == (40, 20)
    expect(seeing.locator(".question img")).to_have_attribute("alt", "b.png")
    expect(seeing.locator("#pictures")).to_be_hidden()


def test_an_image_can_be_pasted_and_sent_without_words(seeing: Page) -> None:
    seeing.evaluate(PASTE, [base64.b64encode(picture()["buffer"]).decode(), "pasted.png"])
    expect(seeing.get_by_role("button", name="Remove pasted.png")).to_be_visible()
    [image] = sent(seeing, "")
    assert image["type"] == "image_url"


def test_a_large_image_is_made_smaller(seeing: Page) -> None:
    seeing.locator("#file").set_input_files(picture("large.png", (4000, 1000)))
    expect(seeing.get_by_role("button", name="Remove large.png")).to_be_visible()
    image, _ = sent(seeing, "What is it?")
    assert size_of(image["image_url"]["url"]) == (1344, 336)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ({"name": "text.txt", "mimeType": "text/plain", "buffer": b"x"}, "text.txt: not an image"),
        ({"name": "bad.png", "mimeType": "image/png", "buffer": b"not a png"}, "bad.png: this browser cannot read"),
    ],
)
def test_a_file_that_is_no_image(seeing: Page, file: FilePayload, message: str) -> None:
    seeing.locator("#file").set_input_files(file)
    expect(seeing.locator("#notice")).to_contain_text(message)
    expect(seeing.locator("#pictures")).to_be_hidden()


def test_a_model_that_does_not_see_gets_none(seeing: Page) -> None:
    seeing.locator("#file").set_input_files(picture())
    expect(seeing.get_by_role("button", name="Remove red.png")).to_be_visible()
    seeing.get_by_label("Model", exact=True).select_option("blind")
    expect(seeing.get_by_role("button", name="Add images")).to_be_hidden()
    expect(seeing.locator("#composer-hint")).to_contain_text("does not see images")
    say(seeing, "What is it?")
    expect(seeing.locator(".message")).to_have_count(0)
    seeing.get_by_role("button", name="Remove red.png").click()
    say(seeing, "What is it?")
    expect(seeing.locator(".answer")).to_have_count(1)
