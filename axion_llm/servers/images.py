"""Gets the images of a chat request: out of data URLs, or fetched where the settings allow that."""

from __future__ import annotations

import asyncio

from axion_llm.api.images import checked, decode_data_url, image_urls, is_data_url
from axion_llm.api.schemas import ChatRequest
from axion_llm.config import Settings
from axion_llm.errors import BadRequest
from axion_llm.servers.image_fetch import CannotFetch, IsAllowed, Limits, fetch, is_public


async def load_images(request: ChatRequest, settings: Settings, is_allowed: IsAllowed = is_public) -> None:
    """Fills `image_files`. Raises BadRequest that names the part of the message."""
    if all(not isinstance(message.content, list) for message in request.messages):
        return
    found = list(image_urls([m.model_dump() for m in request.messages]))
    if len(found) > settings.max_images:
        raise BadRequest(f"messages: {len(found)} images, at most {settings.max_images} are taken", param="messages")
    files = await asyncio.gather(*(_load(url, param, settings, is_allowed) for url, param in dict(found).items()))
    request.image_files.update(zip(dict(found), files, strict=True))


async def _load(url: str, param: str, settings: Settings, is_allowed: IsAllowed) -> bytes:
    if is_data_url(url):
        return await asyncio.to_thread(decode_data_url, url, param, settings.max_image_bytes)
    if not settings.image_urls:
        message = f"{param}: this server fetches no images (image_urls is off); send it as data:image/png;base64,…"
        raise BadRequest(message, param=param)
    try:
        limits = Limits(settings.max_image_bytes, settings.image_timeout_seconds, is_allowed)
        return checked(await fetch(url, limits), param)
    except CannotFetch as reason:
        raise BadRequest(f"{param}: the image cannot be fetched: {reason}", param=param) from None
