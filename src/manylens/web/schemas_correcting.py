"""What the server says about corrections, the review and levels: `schemas` goes on.

Out: JSON, as there.
"""

from __future__ import annotations

from typing import Literal

from manylens.settings import Level
from manylens.web.schemas import ImageId, Out, Share


class Corrected(Out):
    """version: of the clustering now. text: what was done, in a sentence. moved: images that are elsewhere now.
    cluster: that was made, or null."""

    version: int
    text: str
    moved: int
    can_undo: bool
    can_redo: bool
    cluster: int | None


class CorrectionOut(Out):
    """One line of the log. at: when, ISO 8601. state: `undone` where it can be redone."""

    number: int
    kind: str
    text: str
    images: int
    at: str
    state: Literal["done", "undone"]


class CorrectionLog(Out):
    corrections: list[CorrectionOut]
    can_undo: bool
    can_redo: bool


class Moved(Out):
    id: ImageId
    before: int | None
    after: int | None
    after_name: str
    probability: float


class ReSorted(Out):
    """touched: images that a question may be asked about. calls: at least and at most; once asked, what was asked.
    is_asked: whether the moves are the model's answers, or what is expected of it."""

    version: int
    moved: list[Moved]
    total: int
    touched: int
    calls: tuple[int, int]
    is_asked: bool
    applied: bool


class ReviewOption(Out):
    cluster: int
    name: str


class ReviewItem(Out):
    """An image that may be misplaced. doubt: the probability that it does not belong in its cluster. gain: images that
    an answer is expected to put right. alike: images of its description in its cluster. options: clusters that it may
    belong to, the likeliest first."""

    id: ImageId
    path: str
    cluster: int | None
    name: str
    confidence: float
    description: str
    doubt: float
    gain: float
    alike: int
    options: list[ReviewOption]


class Review(Out):
    """left: images about which nobody spoke."""

    version: int
    estimate: Share | None
    items: list[ReviewItem]
    left: int


# Levels


class LevelMark(Out):
    """Where on the slider a level is, as near as the tree has it."""

    name: Level
    groups: int


class LeafOut(Out):
    """Images of one cluster that were described alike: what no cut splits."""

    cluster: int
    name: str
    size: int
    exemplars: list[ImageId]


class LevelJoin(Out):
    """Group `gone` becomes part of group `kept`, which is called `name` from then on. A group is called by the number
    of one of its leaves."""

    kept: int
    gone: int
    name: str


class Levels(Out):
    """The tree. Of its leaves, the first `most - n` joins leave n groups. current_groups: of the clustering as it is.
    ids, leaf_of: of each image that is in a cluster, its leaf. is_free: whether a run at another level costs nothing;
    a model behind a server writes new names."""

    version: int
    current: Level
    current_groups: int
    least: int
    most: int
    marks: list[LevelMark]
    is_free: bool
    leaves: list[LeafOut]
    joins: list[LevelJoin]
    ids: list[str]
    leaf_of: list[int]


class LevelCluster(Out):
    """id: its place among the groups, from 1. clusters: ids of the stored clusters that it holds images of."""

    id: int
    name: str
    size: int
    exemplars: list[ImageId]
    clusters: list[int]


class LevelView(Out):
    """The images at another level: of each image of `ids`, the group that it is in."""

    version: int
    groups: list[LevelCluster]
    ids: list[str]
    group_of: list[int]
