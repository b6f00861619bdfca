"""Drawn pictures, requests about them and a model behind a `ChatServer`: what the tests of served models share."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, draw
from PIL import Image as PillowImage
from replies import request_of

from manylens.collection.decode import encode_jpeg
from manylens.models.base import (
    ChooseRequest,
    CompleteRequest,
    JudgeRequest,
    LookRequest,
    ModelOptions,
    Option,
    Request,
    look_whole,
)
from manylens.models.openai_compatible import probe
from manylens.models.openai_compatible.model import OpenAICompatible

pytest.importorskip("openai")

SECRET = "sk-test-51c9secret77"
LOOK = LookRequest("color", "red square")
YES = JudgeRequest("color", "red", "Images described as red.", ("red circle", "red triangle"), "red square")
NO = JudgeRequest("color", "red", "Images described as red.", ("red circle", "red triangle"), "blue square")
REDS = Option("red", "Images described as red.", ("red circle", "red triangle"))
BLUES = Option("blue", "Images described as blue.", ("blue circle", "blue triangle"))
BLUE = ChooseRequest("color", (REDS, BLUES), "blue square")
NEITHER = ChooseRequest("color", (REDS, BLUES), "green square")
WORDS_ALONE = ChooseRequest("color", (REDS, Option("blue")), "blue square")
NAMES = request_of("name_clusters", {"clusters": [{"id": 1, "size": 3, "descriptions": {"red": 3}}]})
VOCABULARY, CLOSED = (
    request_of(
        "vocabulary",
        {"closed": closed, "categories": ["red"], "descriptions": ["scarlet", "dark blue", "Navy", "n/a"]},
    )
    for closed in (False, True)
)
RECONCILE = request_of(
    "reconcile",
    {
        "level": "coarse",
        "categories": [
            {"id": 1, "name": "dark blue", "examples": ["dark blue", "navy"]},
            {"id": 2, "name": "Navy", "examples": []},
            {"id": 3, "name": "red", "examples": ["scarlet"]},
        ],
    },
)
SUGGEST = request_of("suggest", {"pictures": [["a red car", "a street"], ["a blue car"], ["a red bird", "a tree"]]})
REWORD = request_of("reword", {"seen": [["red", 3], ["navy", 1]]})
SYNONYMS = {"scarlet": "red", "dark blue": "blue", "navy": "blue"}
SERVERS: dict[str, dict[str, Any]] = {
    "all it could offer": {},
    "no logprobs": {"logprobs": "ignores"},
    "rejects logprobs": {"logprobs": "rejects"},
    "rejects formats": {"structured": "rejects"},
    "ignores formats": {"structured": "ignores"},
    "json mode only": {"structured": "json_object"},
    "embeds pictures": {"embeddings": "messages"},
    "embeds nothing": {"embeddings": "none"},
    "reasoning": {"reasoning": True},
    "thinks aloud": {"think": True},
    "four pictures": {"most_images": 4},
    "one picture": {"most_images": 1},
    "keeps no list": {"lists_models": False},
    "plain words": {"structured": "ignores", "writes_json": False},
    "plain words without logprobs": {"structured": "ignores", "writes_json": False, "logprobs": "ignores"},
}


class Drawn:
    """An `ImageSource` of drawn pictures, named by what they show: `red square`."""

    def __init__(self, side_px: int = 128) -> None:
        self.side_px = side_px
        self.encoded: list[tuple[str, int]] = []

    def thumbnail(self, image_id: str) -> PillowImage.Image:
        color, shape = image_id.split()[:2]
        return draw(color, shape, side_px=self.side_px)

    def jpeg(self, image_id: str, longest_side_px: int, quality: int = 90) -> bytes:
        self.encoded.append((image_id, longest_side_px))
        picture = self.thumbnail(image_id)
        picture.thumbnail((longest_side_px, longest_side_px))
        return encode_jpeg(picture, quality=quality)


@pytest.fixture
def no_keys_and_no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "MANYLENS_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(probe, "PATIENCE_S", 0.01)


def at(
    server: ChatServer, images: Drawn | None = None, recorded: Path | None = None, model: str = "fake", **how: Any
) -> OpenAICompatible:
    options = ModelOptions(base_url=server.url, **{"timeout_s": 10.0, **how})
    return OpenAICompatible(model, model, images or Drawn(), options, recorded=recorded)


def run(model: OpenAICompatible, *requests: Request) -> list[Any]:
    """The replies, asked one by one in one event loop."""

    async def ask() -> list[Any]:
        replies: list[Any] = []
        for request in requests:
            match request:
                case LookRequest():
                    replies += await look_whole(model, [request])
                case JudgeRequest():
                    replies += await model.judge([request])
                case ChooseRequest():
                    replies += await model.choose([request])
                case CompleteRequest():
                    replies += await model.complete([request])
        await model.close()
        return replies

    return asyncio.run(ask())


def bodies(server: ChatServer, kind: str) -> list[Any]:
    return [served.body for served in server.log if served.kind == kind]
