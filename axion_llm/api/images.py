"""Images in chat messages: which there are, data URLs to files, and their places in the prompt."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

from axion_llm.api.literal import Marks
from axion_llm.errors import BadRequest
from axion_llm.worker.messages import Image

_DATA_URL = re.compile(r"data:image/[a-zA-Z0-9.+-]+;base64,")
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")

DECODED_CHARS = 512 * 1024  # at a time; whole groups of four
Json = dict[str, Any]


def image_urls(messages: list[Json]) -> Iterator[tuple[str, str]]:
    """Each image's URL, and the field it is in."""
    for i, message in enumerate(messages):
        content = message.get("content")
        for j, part in enumerate(content if isinstance(content, list) else ()):
            if part["type"] == "image_url":
                yield part["image_url"]["url"], f"messages[{i}].content[{j}].image_url.url"


def is_data_url(url: str) -> bool:
    return url[:5].lower() == "data:"


def decode_data_url(url: str, param: str, max_bytes: int) -> bytes:
    """Raises BadRequest; takes a while for megabytes."""
    head = _DATA_URL.match(url)
    if head is None:
        raise BadRequest(f"{param}: must be like data:image/png;base64,…", param=param)
    if (len(url) - head.end()) * 3 // 4 > max_bytes + 2:
        raise too_large(param, max_bytes)
    try:
        data = _decoded(url, head.end())
    except (binascii.Error, ValueError):
        raise BadRequest(f"{param}: is not valid base64", param=param) from None
    return checked(data, param)


def _decoded(url: str, start: int) -> bytes:
    """In pieces: decoding keeps the interpreter, and streams have to get a turn."""
    if (len(url) - start) % 4:  # Python 3.10 would let padding pass that is not needed
        raise ValueError("not in groups of four")
    data = bytearray()
    for at in range(start, len(url), DECODED_CHARS):
        if len(data) % 3:
            raise ValueError("something behind the padding")
        data += base64.b64decode(url[at : at + DECODED_CHARS], validate=True)
    return bytes(data)


def too_large(param: str, max_bytes: int) -> BadRequest:
    return BadRequest(f"{param}: the image is larger than {max_bytes:,} bytes", param=param)


def checked(data: bytes, param: str) -> bytes:
    """By its first bytes; whether it can be decoded is seen where it is."""
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if not is_webp and not data.startswith(_BEGINNINGS):
        raise BadRequest(f"{param}: is no PNG, JPEG, WebP or GIF", param=param)
    return data


class Gallery:
    """Of one request: puts a mark for each image into the messages, finds their places in the prompt."""

    def __init__(self, data: Mapping[str, bytes]) -> None:
        self._data = data
        self._urls: list[str] = []

    def marked(self, message: Json, marks: Marks) -> Json:
        """Its parts as one text: images stand apart by an empty line, as gemma3's own processor has it."""
        content = message.get("content")
        if not isinstance(content, list):
            return message
        text = ""
        for part in content:
            if part["type"] == "text":
                text += ("\n" if text and not text.endswith("\n\n") else "") + part["text"]
                continue
            text += ("\n\n" if text and not text.endswith("\n\n") else "") + marks.image(len(self._urls)) + "\n\n"
            self._urls.append(part["image_url"]["url"])
        return {**message, "content": text}

    def placed(self, places: list[tuple[int, int]]) -> list[Image]:
        """`places`: characters of the prompt and the number of the image that belongs there."""
        if len(places) < len(self._urls):
            raise BadRequest("messages: the model's chat template has no place for these images", param="messages")
        return [Image(at, self._data[self._urls[number]]) for at, number in places]
