"""Data URLs are decoded in pieces, with the outcome of decoding them whole."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axion_llm.api import images
from axion_llm.api.images import decode_data_url
from axion_llm.errors import BadRequest

HEAD = "data:image/png;base64,"
WHOLE = re.compile("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
PNG = b"\x89PNG\r\n\x1a\n"


@given(st.binary(max_size=60), st.sampled_from([4, 8, 12]))
def test_every_length_comes_back(data: bytes, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "DECODED_CHARS", size)
        url = HEAD + base64.b64encode(PNG + data).decode()
        assert decode_data_url(url, "url", 1000) == PNG + data


@given(st.text(st.sampled_from("ABab01+/=\n é"), max_size=24), st.sampled_from([4, 8]))
def test_what_is_no_base64_is_refused_wherever_it_stands(text: str, size: int) -> None:
    text = base64.b64encode(PNG + b"x").decode() + text  # 12 characters: whole groups without padding
    expected = base64.b64decode(text) if WHOLE.fullmatch(text) else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "DECODED_CHARS", size)
        if expected is None:
            with pytest.raises(BadRequest, match="base64"):
                decode_data_url(HEAD + text, "url", 1000)
        else:
            assert decode_data_url(HEAD + text, "url", 1000) == expected
