"""One replica of the model, in a process of its own on any machine of the cluster.

In: the model's name or the object, then calls with the pictures that they are about. Out: replies in order. Promises:
knows no run and no store; thumbnails come with each call, so they are the run's own bytes; a larger size is made from
the original file, which every machine finds under the same path and whose bytes are compared.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL.Image import Image as Picture

from manylens.collection.decode import THUMBNAIL_PX
from manylens.collection.find import open_source
from manylens.collection.pictures import StoredImages
from manylens.collection.source import Source
from manylens.errors import ManylensError, ModelError, ModelUnavailable, UsageError
from manylens.models.base import Capabilities, Model, ModelOptions, Reply, Request, ask_verdict, open_model
from manylens.models.registry import load_model
from manylens.types import Image, Verdict


@dataclass(frozen=True, slots=True)
class Shipped:
    """The pictures of one call. images: what the run knows of them. thumbnails: image id -> JPEG bytes."""

    images: tuple[Image, ...] = ()
    thumbnails: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Face:
    """What the driver must know of the replicas to speak for them. All of a run have the same.

    found_out: what the model found out by running (`facts` of the protocol), None where it has none."""

    version: str
    name: str
    identity: str
    capabilities: Capabilities
    has_verdict: bool
    has_embed: bool
    found_out: Mapping[str, Any] | None


class ShippedImages:
    """An `ImageSource` over the pictures that came with the latest call. place: of the collection, opened here when a
    file of it is first needed."""

    def __init__(self, place: str) -> None:
        self._place = place
        self.take(Shipped())

    @cached_property
    def _source(self) -> Source:
        try:
            if "://" not in self._place and not os.path.exists(self._place):
                raise UsageError("there is none")
            return open_source(self._place)
        except UsageError as error:
            raise ModelUnavailable(
                f"every machine of the cluster reads the pictures where the driver does, one has no {self._place}",
                "mount it there under the same path, or pass --image-px 256: thumbnails are sent with each call",
            ) from error

    def take(self, shipped: Shipped) -> None:
        thumbnails = dict(shipped.thumbnails)
        self._held = StoredImages(Path(self._place), shipped.images, thumbnails.__getitem__)

    def thumbnail(self, image_id: str) -> Picture:
        return self._held.thumbnail(image_id)

    def jpeg(self, image_id: str, longest_side_px: int, quality: int = 90) -> bytes:
        if longest_side_px > THUMBNAIL_PX:
            self._held.source = self._source
        return self._held.jpeg(image_id, longest_side_px, quality)


class Replica:
    """place: of the collection. The model comes with `face`: Ray may begin the process anew at any time, and does
    not keep what a constructor was given when the machine that held it is lost."""

    def __init__(self, options: ModelOptions, place: str) -> None:
        self._options = options
        self._images = ShippedImages(place)
        self._loop = asyncio.new_event_loop()
        self._model: Model | None = None

    def face(self, spec: str | Model) -> Face | ManylensError:
        """Loads the model. spec: its name, or the object. Why it cannot be used is a value: Ray changes exceptions."""
        from manylens import __version__

        try:
            if self._model is None:
                self._model = self._load(spec)
            model = self._model
            find_out = getattr(model, "facts", None)
            return Face(
                __version__,
                model.name,
                model.identity,
                model.capabilities,
                hasattr(model, "verdict"),
                hasattr(model, "embed"),
                None if find_out is None else find_out(),
            )
        except ManylensError as error:
            return error

    def _load(self, spec: str | Model) -> Model:
        if isinstance(spec, str):
            return load_model(spec, self._images, None, self._options)
        open_model(spec, self._images)
        return spec

    def answer(self, verb: str, requests: Sequence[Request], shipped: Shipped) -> list[Reply | ModelError] | None:
        """verb: look, embed, judge, choose or complete. None where the process was begun anew and has no model yet."""
        model = self._model
        if model is None:
            return None
        self._images.take(shipped)
        try:
            replies: list[Reply | ModelError] = self._loop.run_until_complete(getattr(model, verb)(requests))
        except ModelError as error:
            return [error] * len(requests)
        return replies

    def verdict(self, interest: str, image_ids: Sequence[str], shipped: Shipped) -> tuple[Verdict | None] | None:
        if self._model is None:
            return None
        self._images.take(shipped)
        return (ask_verdict(self._model, interest, image_ids),)

    def appearance(self, image_ids: Sequence[str], shipped: Shipped) -> Mapping[str, Any] | None:
        model: Any = self._model
        if model is None:
            return None
        self._images.take(shipped)
        found: Mapping[str, Any] = model.appearance(image_ids)
        return found
