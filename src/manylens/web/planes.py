"""Planes of a run's interests: at once from memory or the run folder, else a preliminary one while a better is made.

In: an interest's embeddings. Out: points, and whether they are the last word. Promise: each is made once for the same
embeddings, one at a time, in a thread of its own, and kept in `page.sqlite` where that can be written.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from manylens.errors import StoreError
from manylens.web.kept import Kept
from manylens.web.page_store import PageStore
from manylens.web.plane import Points, Vectors, neighbour_plane, principal_plane
from manylens.web.schemas import MapMethod

_AT_ONCE = 400
"""So few images are placed within a second or two, while the page waits."""

_MOST_KEPT = 8


@dataclass(frozen=True, slots=True)
class Plane:
    """points: (n, 2) within -1 to 1. is_final: whether no better one is on its way."""

    points: Points
    method: MapMethod
    is_final: bool


class Planes:
    """Of one run. Every method may be called from any thread."""

    def __init__(self, store: PageStore, *, keeps: bool) -> None:
        self._store, self._keeps = store, keeps
        self._guard = threading.Lock()
        self._worker: ThreadPoolExecutor | None = None
        self._made: dict[tuple[str, str], Points] = {}
        self._under_way: set[tuple[str, str]] = set()
        self._first = Kept[Points](_MOST_KEPT)

    def get(self, slug: str, vectors: Vectors) -> Plane:
        digest = hashlib.blake2b(vectors.tobytes(), digest_size=16).hexdigest()
        key = (slug, digest)
        with self._guard:
            made = self._made.get(key)
        if made is None:
            with contextlib.suppress(StoreError):
                made = self._store.plane(slug, "tsne", digest)
        if made is None and len(vectors) <= _AT_ONCE:
            made = self._make(key, vectors)
        if made is not None and len(made) == len(vectors):
            with self._guard:
                self._made[key] = made
            return Plane(made, "tsne", True)
        with self._guard:
            if key not in self._under_way:
                self._under_way.add(key)
                self._worker = self._worker or ThreadPoolExecutor(1, "manylens-plane")
                self._worker.submit(self._make, key, vectors)
        return Plane(self._first.get(key, lambda: principal_plane(vectors)), "pca", False)

    def _make(self, key: tuple[str, str], vectors: Vectors) -> Points:
        points = neighbour_plane(vectors)
        if self._keeps:
            with contextlib.suppress(StoreError):  # it is made again another time
                self._store.put_plane(key[0], "tsne", key[1], points)
        with self._guard:
            self._made[key] = points
            self._under_way.discard(key)
        return points

    def ready(self) -> set[tuple[str, str]]:
        """(slug, digest) of all that were made."""
        with self._guard:
            return set(self._made)

    def close(self) -> None:
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)
