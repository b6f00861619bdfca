"""One run's images and clusterings as columns in memory, so that 50,000 images are filtered in milliseconds.

In: a run that is only read. Out: `ImageColumns` (what the collection holds) and `ClusterColumns` (where one interest
puts it). Promise: a row is an image, in id order, the same in both; nothing here reads a picture or writes a file.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from manylens.errors import UsageError
from manylens.settings import Settings
from manylens.text import shown_name
from manylens.types import Clustering, Image

UNASSIGNED, FAILED, NOT_LOOKED = -1, -2, -3
"""In the column of clusters, of images that are in none; clusters are numbered from 1."""

State: TypeAlias = Literal["assigned", "unassigned", "failed", "not looked at"]

STATES: Mapping[int, State] = {UNASSIGNED: "unassigned", FAILED: "failed", NOT_LOOKED: "not looked at"}

KEY_DIGITS = 16
"""Of an image's id, in hex, that the page uses: 64 bits, which a million images share with a chance of 3 in 10^8."""

Rows: TypeAlias = NDArray[np.int64]


def no_such(what: str, got: object, known: str = "") -> UsageError:
    return NotThere(f"{what}, got {shown_name(str(got)[:200])!r}", known or "reload the page")


class NotThere(UsageError):
    """What a request names is not in the run, or not any more."""


@dataclass(frozen=True, slots=True)
class ImageColumns:
    """ids: SHA-256 in hex, sorted. keys: their beginnings, all different. paths: of each image its files. lowered:
    what the search looks at. aspect: width by height. files: of each image, how many."""

    version: int
    ids: tuple[str, ...]
    keys: tuple[str, ...]
    paths: tuple[tuple[str, ...], ...]
    lowered: tuple[str, ...]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    files: NDArray[np.int32]
    by_path: NDArray[np.int64]
    row_of: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, key: str) -> int:
        """Raises NotThere for an image that the collection does not hold."""
        row = self.row_of.get(key)
        if row is None and len(key) > KEY_DIGITS:  # a whole id, or more of it than is needed
            short = self.row_of.get(key[: len(self.keys[0])] if self.keys else "")
            row = short if short is not None and self.ids[short].startswith(key) else None
        if row is None:
            raise no_such("an image is named by an id of this run", key)
        return row

    def whole_ids(self, keys: Sequence[str]) -> list[str]:
        return [self.ids[self.row(key)] for key in dict.fromkeys(keys)]


def image_columns(images: Sequence[Image], version: int) -> ImageColumns:
    ids = tuple(image.id for image in images)  # they come sorted
    digits = KEY_DIGITS
    while len({image_id[:digits] for image_id in ids}) < len(ids):
        digits += 8
    keys = tuple(image_id[:digits] for image_id in ids)
    paths = tuple(image.paths for image in images)
    order = np.array(sorted(range(len(ids)), key=lambda row: paths[row][0]), dtype=np.int64)
    by_path = np.empty(len(ids), np.int64)
    by_path[order] = np.arange(len(ids))
    return ImageColumns(
        version,
        ids,
        keys,
        paths,
        tuple(folded("\n".join(own)) for own in paths),
        np.array([image.width_px for image in images], np.int32),
        np.array([image.height_px for image in images], np.int32),
        np.array([len(own) for own in paths], np.int32),
        by_path,
        {key: row for row, key in enumerate(keys)},
    )


def folded(text: str) -> str:
    """Text to search in, or for: Unicode's forms and cases of a letter are one."""
    return unicodedata.normalize("NFC", text).casefold()


@dataclass(frozen=True, slots=True)
class ClusterColumns:
    """One interest's clustering in the rows of the images. cluster: its number, or one of `STATES`. reason, decided_by
    and description are places in `reasons`, `deciders` and `descriptions`. of: the clustering, without its
    assignments."""

    version: int
    of: Clustering
    settings: Settings
    cluster: NDArray[np.int32]
    confidence: NDArray[np.float32]
    reason: NDArray[np.int32]
    decided_by: NDArray[np.int8]
    description: NDArray[np.int32]
    reasons: tuple[str, ...]
    deciders: tuple[str, ...]
    descriptions: tuple[str, ...]
    lowered: tuple[str, ...]

    def state(self, row: int) -> State:
        return STATES.get(int(self.cluster[row]), "assigned")

    def name(self, number: int | None) -> str:
        """Of a cluster; empty for none, or one that is not there."""
        return next((cluster.name for cluster in self.of.clusters if cluster.id == number), "")

    def rows_of(self, number: int) -> Rows:
        return np.flatnonzero(self.cluster == number)


class _Numbering:
    """Texts that many rows share, each once."""

    def __init__(self) -> None:
        self.place: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.place.setdefault(text, len(self.place))


@dataclass(frozen=True, slots=True)
class Described:
    """Of each image its description, as a place in `texts`; those as the search sees them."""

    of: NDArray[np.int32]
    texts: tuple[str, ...]
    lowered: tuple[str, ...]


def described(looks: Mapping[str, str], images: ImageColumns) -> Described:
    """looks: image id -> description; an image without one has the empty text."""
    texts = _Numbering()
    texts("")
    of = np.array([texts(looks.get(image_id, "")) for image_id in images.ids], np.int32)
    return Described(of, tuple(texts.place), tuple(folded(text) for text in texts.place))


def cluster_columns(
    clustering: Clustering, settings: Settings, looks: Described, images: ImageColumns, version: int
) -> ClusterColumns:
    """Images that are gone are left out; those that came since are not looked at."""
    n = len(images)
    cluster = np.full(n, NOT_LOOKED, np.int32)
    confidence = np.zeros(n, np.float32)
    reason, decided_by = np.zeros(n, np.int32), np.zeros(n, np.int8)
    reasons, deciders = _Numbering(), _Numbering()
    for numbering in (reasons, deciders):
        numbering("")
    row_of = {image_id: row for row, image_id in enumerate(images.ids)}
    not_looked = frozenset(clustering.not_looked)
    for a in clustering.assignments:
        row = row_of.get(a.image_id)
        if row is None:
            continue
        if a.cluster is None:
            cluster[row] = NOT_LOOKED if a.image_id in not_looked else UNASSIGNED
        else:
            cluster[row] = a.cluster
        confidence[row] = a.confidence
        reason[row] = reasons(a.reason)
        decided_by[row] = deciders(a.decided_by)
    for image_id, why in clustering.failed:
        if (row := row_of.get(image_id)) is not None:
            cluster[row] = FAILED
            reason[row] = reasons(f"the look failed: {why}")
    return ClusterColumns(
        version,
        replace(clustering, assignments=()),
        settings,
        cluster,
        confidence,
        reason,
        decided_by,
        looks.of,
        tuple(reasons.place),
        tuple(deciders.place),
        looks.texts,
        looks.lowered,
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which images, and in which order. cluster: a number, or "none". within: other interests' columns, with the
    cluster wanted of each. q: words that the file's name or the description must hold."""

    cluster: int | None = None
    unplaced: bool = False
    sort: str = "-confidence"
    q: str = ""
    within: tuple[tuple[ClusterColumns, int | None], ...] = ()
    decided_by: str | None = None
    least: float = 0.0
    most: float = 1.0


def select(images: ImageColumns, columns: ClusterColumns, wanted: Wanted) -> Rows:
    """The rows that are wanted, in order; ties by id."""
    mask = np.ones(len(images), bool)
    if wanted.unplaced:
        mask &= columns.cluster < 0
    elif wanted.cluster is not None:
        mask &= columns.cluster == wanted.cluster
    for other, number in wanted.within:
        mask &= (other.cluster < 0) if number is None else (other.cluster == number)
    if wanted.decided_by is not None:
        known = columns.deciders.index(wanted.decided_by) if wanted.decided_by in columns.deciders else -1
        mask &= columns.decided_by == known
    if wanted.least > 0 or wanted.most < 1:
        mask &= (columns.confidence >= wanted.least) & (columns.confidence <= wanted.most)
    for word in folded(wanted.q).split():
        mask &= _holding(images, columns, word, mask)
    rows = np.flatnonzero(mask)
    if wanted.sort == "path":
        return rows[np.argsort(images.by_path[rows], kind="stable")]
    keys = columns.confidence[rows]
    return rows[np.argsort(-keys if wanted.sort == "-confidence" else keys, kind="stable")]


def _holding(images: ImageColumns, columns: ClusterColumns, word: str, within: NDArray[np.bool_]) -> NDArray[np.bool_]:
    described = np.array([word in text for text in columns.lowered], bool)[columns.description]
    rows = np.flatnonzero(within & ~described)
    found = described
    found[rows] = [word in images.lowered[row] for row in rows]
    return found


def by_cluster(rows: Rows, columns: ClusterColumns, order: Sequence[int]) -> list[tuple[int | None, Rows]]:
    """The rows in stretches: of each cluster in `order`, then of those in none; empty ones are left out."""
    numbers = columns.cluster[rows]
    place = {number: at for at, number in enumerate(order)}
    rank = np.full(int(max(order, default=0)) + 1, len(order), np.int64)
    for number, at in place.items():
        rank[number] = at
    ranks = np.where(numbers > 0, rank[np.maximum(numbers, 0)], len(order))
    sorted_ = np.argsort(ranks, kind="stable")
    bounds = np.searchsorted(ranks[sorted_], np.arange(len(order) + 2))
    found: list[tuple[int | None, Rows]] = []
    for at in range(len(order) + 1):
        own = rows[sorted_[bounds[at] : bounds[at + 1]]]
        if own.size:
            found.append((order[at] if at < len(order) else None, own))
    return found
