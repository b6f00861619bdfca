"""Pictures with bytes changed, cut and doubled: each is read, or left out with a reason."""

from __future__ import annotations

import io
import os

import pytest
from chat_server import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from manylens.collection.decode import THUMBNAIL_PX, decode, encode_jpeg
from manylens.errors import ImageUnreadable

FORMATS = ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "JPEG2000", "AVIF"]


def encoded(name: str) -> bytes:
    buffer = io.BytesIO()
    try:
        draw("red", "circle").save(buffer, name)
    except (OSError, KeyError, ValueError):  # this Pillow was built without it
        draw("red", "circle").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.fuzz
@settings(max_examples=int(os.environ.get("MANYLENS_FUZZ", "100")), deadline=None)
@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=6),
    st.floats(0.1, 1),
    st.integers(1, 2),
)
def test_a_changed_picture_is_read_or_left_out(
    name: str, changes: list[tuple[float, bytes]], kept: float, times: int
) -> None:
    data = bytearray(encoded(name))
    for where, new in changes:
        at = int(where * (len(data) - 1))
        data[at : at + len(new)] = new
    data = data[: max(1, int(kept * len(data)))] * times
    try:
        picture, size = decode(io.BytesIO(bytes(data)), THUMBNAIL_PX)
    except ImageUnreadable as error:
        assert error.rule
        return
    assert picture.mode == "RGB" and max(picture.size) <= THUMBNAIL_PX and min(size) >= 1
    with PillowImage.open(io.BytesIO(encode_jpeg(picture, quality=90))) as again:
        assert again.size == picture.size
