"""What the page asks for: the bodies of its requests, typed.

In: JSON. Out: values. Promise: what is not known, too long or out of range is refused with its place and the rule.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from manylens.settings import Effort, Level
from manylens.types import MAX_INTEREST_CHARACTERS
from manylens.web.schemas import ImageId

MOST_IMAGES_AT_ONCE = 100_000
"""Images of one correction: more than a person selects, few enough to be one transaction."""

Name: TypeAlias = Annotated[str, Field(min_length=1, max_length=200)]


class In(BaseModel):
    """A request: what is not known is refused, and not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)


_Images: TypeAlias = Annotated[list[ImageId], Field(min_length=1, max_length=MOST_IMAGES_AT_ONCE)]


class Move(In):
    kind: Literal["move"]
    images: _Images
    to: int


class New(In):
    kind: Literal["new"]
    images: _Images
    name: Name


class Merge(In):
    """The first stays, and takes the images of the others."""

    kind: Literal["merge"]
    clusters: Annotated[list[int], Field(min_length=2, max_length=10_000)]
    name: Name | None = None


class Split(In):
    """These images leave their cluster for a new one."""

    kind: Literal["split"]
    cluster: int
    images: _Images
    name: Name | None = None


class Rename(In):
    kind: Literal["rename"]
    cluster: int
    name: Name


class NotThis(In):
    """These images do not belong to this cluster, wherever else they do."""

    kind: Literal["not"]
    images: _Images
    cluster: int


class Unassign(In):
    kind: Literal["unassign"]
    images: _Images


class Confirm(In):
    """These images are right where they are."""

    kind: Literal["confirm"]
    images: _Images
    cluster: int


AboutImages: TypeAlias = Literal["move", "new", "split", "not", "unassign", "confirm"]

Correction: TypeAlias = Annotated[
    Move | New | Merge | Split | Rename | NotThis | Unassign | Confirm, Field(discriminator="kind")
]


class ReSort(In):
    """apply: whether to carry it out, or to say what it would change."""

    apply: bool = False


class AskReSort(In):
    """What asking may cost, and where a model behind a server answers."""

    budget_calls: Annotated[int | None, Field(ge=0, le=2**53)] = None
    budget_usd: Annotated[float | None, Field(ge=0, le=1e9)] = None
    price_in: Annotated[float | None, Field(ge=0, le=1e6)] = None
    price_out: Annotated[float | None, Field(ge=0, le=1e6)] = None
    base_url: Annotated[str | None, Field(max_length=500)] = None


class NewJob(In):
    """A run to begin. by: interests. groups, into and level say how fine; the budgets are hard limits. kind: `suggest`
    looks for interests on a sample, `preview` at one interest on it, `add` puts pictures that came since into the
    clusterings that there are."""

    kind: Literal["cluster", "add", "suggest", "preview"] = "cluster"
    by: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_INTEREST_CHARACTERS)]], Field(max_length=20)
    ] = []  # pydantic copies it
    level: Level | None = None
    groups: Annotated[int | None, Field(ge=1, le=100_000)] = None
    into: list[Name] | None = None
    effort: Effort | None = None
    model: Annotated[str, Field(min_length=1, max_length=200)] = "nano"
    base_url: Annotated[str | None, Field(max_length=500)] = None
    budget_calls: Annotated[int | None, Field(ge=0, le=2**53)] = None
    budget_usd: Annotated[float | None, Field(ge=0, le=1e9)] = None
    price_in: Annotated[float | None, Field(ge=0, le=1e6)] = None
    price_out: Annotated[float | None, Field(ge=0, le=1e6)] = None


class NewExport(In):
    to: Literal["parquet", "hf", "fiftyone", "csv", "json", "folders", "xmp", "coco"]
    images: Annotated[_Images | None, Field(description="These alone; by default all.")] = None
    by: Annotated[str | None, Field(max_length=MAX_INTEREST_CHARACTERS)] = None
    dest: Annotated[str | None, Field(max_length=4096)] = None
    mode: Literal["copy", "hardlink", "symlink", "move"] | None = None
    preview: bool = False
