"""What real models said of real pictures, replayed as a model of one's own: for judging the method without a picture.

In: a table of looks (`<set>.csv.gz`: `image`, `truth`, `short`, perhaps `assigned` and others) with embeddings of the
descriptions (`<set>.npz`: `descriptions`, `embeddings`). Out: `ReplayModel`, whose looks are the real ones and whose
judgements are right but for stated rates. Promise: every answer is a seeded hash of its whole request, so any order of
calls gives the same ones; pictures stand for rows, one to one.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import hashlib
import importlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from manylens.errors import ModelError, UsageError
from manylens.models.base import (
    Capabilities,
    ChooseReply,
    ChooseRequest,
    CompleteReply,
    CompleteRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    Request,
)
from manylens.models.prompts import PLAIN_CONFIDENCE
from manylens.writing import (
    Categories,
    Category,
    GroupDescriptions,
    GroupName,
    MergeCategories,
    MergedCategories,
    NameClusters,
    Names,
)

Judge: TypeAlias = Literal["truth", "assigned", "yes", "first", "random"]
JUDGES: tuple[Judge, ...] = get_args(Judge)

FALSE_NO, FALSE_YES, WRONG_CHOICE = 0.03, 0.01, 0.04
SURE = 0.95
"""The probability of what is answered; the rest is spread evenly over what is not."""

INTERESTS = {"action": "what the person is doing", "stl10": "object"}
SHORT_LOOK = "short"
_NO_ANSWERS = frozenset({"", "none", "n/a", "unknown", "none from the list"})


@dataclass(frozen=True, slots=True, eq=False)
class LookSet:
    """Looks at n images. rows: their numbers in the file. assigned: a published writer's category of each, or None
    where the file has no such column. embeddings: (n, d) float16, unit length."""

    name: str
    rows: tuple[int, ...]
    truth: tuple[str, ...]
    looks: tuple[str, ...]
    assigned: tuple[str, ...] | None
    embeddings: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def interest(self) -> str:
        return INTERESTS.get(self.name, self.name)

    def draw(self, images: int | None, seed: int) -> LookSet:
        """So many images at random, as `sketch.py` beside the looks draws them; None takes all."""
        order = list(range(len(self)))
        random.Random(seed).shuffle(order)
        chosen = order[:images]
        return replace(
            self,
            rows=tuple(self.rows[i] for i in chosen),
            truth=tuple(self.truth[i] for i in chosen),
            looks=tuple(self.looks[i] for i in chosen),
            assigned=None if self.assigned is None else tuple(self.assigned[i] for i in chosen),
            embeddings=self.embeddings[chosen],
        )


def find_sets(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """A folder's tables, by name, or those named. Raises UsageError where there is none, or a name is not there."""
    found = {path.name.removesuffix(".csv.gz"): path for path in sorted(folder.glob("*.csv.gz"))}
    missing = sorted(set(names) - set(found))
    if missing or not found:
        raise UsageError(
            f"looks are files <set>.csv.gz in a folder, {folder} lacks {', '.join(missing) or 'any'}",
            "pass another folder, or the names of sets that it has",
        )
    return [path for name, path in found.items() if not names or name in names]


def read_looks(path: Path, column: str = SHORT_LOOK) -> LookSet:
    """A set from its table; what has no embedding beside it is embedded by the package. Raises UsageError for a column
    that the table lacks."""
    name = path.name.removesuffix(".csv.gz")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = set(rows[0]) if rows else set()
    lacking = sorted({"truth", column} - columns)
    if lacking:
        raise UsageError(f"{path.name} needs the column {lacking[0]!r}, got {sorted(columns)}", "name another column")
    looks = tuple(row[column] for row in rows)
    known = _stored_embeddings(path.with_name(f"{name}.npz")) if column == SHORT_LOOK else {}
    return LookSet(
        name,
        tuple(range(len(rows))),
        tuple(row["truth"] for row in rows),
        looks,
        tuple(row["assigned"] or "" for row in rows) if "assigned" in columns else None,
        _embed(looks, known),
    )


def _stored_embeddings(path: Path) -> dict[str, NDArray[np.float16]]:
    if not path.is_file():
        return {}
    with np.load(path) as stored:
        return dict(zip(stored["descriptions"].tolist(), stored["embeddings"].astype(np.float16), strict=True))


def _embed(looks: Sequence[str], known: Mapping[str, NDArray[np.float16]]) -> NDArray[np.float16]:
    """All by one embedder: where a single description has none stored, those of another space could not be compared."""
    distinct = sorted(set(looks))
    if not all(text in known for text in distinct):
        # By name, because only looks without embeddings need it: it loads an ONNX network.
        embedder = importlib.import_module("manylens.models.text_embedder").TextEmbedder()
        known = dict(zip(distinct, np.asarray(embedder.embed(distinct), np.float16), strict=True))
    return np.stack([known[text] for text in looks])


def write_pictures(folder: Path, rows: Iterable[int]) -> dict[str, int]:
    """One 8 x 8 PNG for each row, whose pixels say which: image id -> row. Noise, so that no two are near duplicates;
    not compressed, so that their bytes and ids are the same everywhere."""
    ids = {}
    for row in rows:
        pixels = np.random.default_rng(row).integers(0, 256, (8, 8, 3), np.uint8)
        pixels.reshape(-1)[:4] = list(row.to_bytes(4, "big"))
        path = folder / f"{row:07d}.png"
        PillowImage.fromarray(pixels).save(path, compress_level=0)
        ids[hashlib.sha256(path.read_bytes()).hexdigest()] = row
    return ids


class ReplayModel:
    """row_of: image id -> row of the file, as `write_pictures` gives it.

    judge: "truth" knows the truth and errs at the stated rates; "assigned" believes the published writer instead; "yes"
    and "first" say yes, and in a choice the first option shown; "random" answers anything. An option's kind is that of
    most of its exemplars, without any the most frequent one among images so described or so assigned.
    writer: whether it writes text; a set without `assigned` has no writer. Its categories are the published ones, the
    level of granularity does not change them. calls: how many requests of each kind it was asked.
    """

    def __init__(
        self,
        looks: LookSet,
        row_of: Mapping[str, int],
        *,
        judge: Judge = "truth",
        writer: bool = True,
        seed: int = 0,
    ) -> None:
        if judge == "assigned" and looks.assigned is None:
            raise UsageError(f"this judge believes `assigned`, the set {looks.name} lacks it", "use another judge")
        place = {row: number for number, row in enumerate(looks.rows)}
        self._place = {image_id: place[row] for image_id, row in row_of.items() if row in place}
        self._looks, self._judge_kind, self._seed = looks, judge, seed
        self._believed = looks.assigned if judge == "assigned" and looks.assigned else looks.truth
        self._kinds_by_name = self._count(self._believed)
        self._categories = {} if looks.assigned is None else self._count(looks.assigned, names=False)
        self._capabilities = Capabilities(writes_text=writer and looks.assigned is not None, sees_exemplars=True)
        self.calls: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return "replay"

    @property
    def identity(self) -> str:
        return f"replay {self._looks.name} {self._judge_kind} seed {self._seed}"

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def render(self, request: Request) -> str:
        return json.dumps([type(request).__name__, dataclasses.asdict(request)], ensure_ascii=False)

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        self.calls["look"] += len(requests)
        places = [self._place[request.image_id] for request in requests]
        # How sure the model was is not in the table.
        return [LookReply(self._looks.looks[i], PLAIN_CONFIDENCE, self._looks.embeddings[i]) for i in places]

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        self.calls["judge"] += len(requests)
        return [JudgeReply(SURE if self._says_yes(request) else 1 - SURE) for request in requests]

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        self.calls["choose"] += len(requests)
        return [self._choice(len(request.options), self._chosen(request)) for request in requests]

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        self.calls["complete"] += len(requests)
        return [self._complete(request) for request in requests]

    def _count(self, kinds: Sequence[str], names: bool = True) -> dict[str, str]:
        """Folded description, and with `names` folded category, -> the most frequent kind of the images with it."""
        counted: dict[str, Counter[str]] = defaultdict(Counter)
        for place, kind in enumerate(kinds):
            said = {_folded(self._looks.looks[place])}
            if names and self._looks.assigned is not None:
                said.add(_folded(self._looks.assigned[place]))
            for words in said:
                counted[words][kind] += 1
        return {words: _most_frequent(of) for words, of in counted.items()}

    def _chance(self, salt: str, request: Request) -> float:
        text = "\x1f".join((str(self._seed), salt, self.render(request)))
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    def _kind(self, name: str, exemplar_ids: Sequence[str]) -> str | None:
        # An insertion-ordered count: among equals, the kind of the most typical exemplar.
        shown = Counter(self._believed[self._place[image_id]] for image_id in exemplar_ids)
        return shown.most_common(1)[0][0] if shown else self._kinds_by_name.get(_folded(name))

    def _says_yes(self, request: JudgeRequest) -> bool:
        chance = self._chance("judge", request)
        if self._judge_kind in ("yes", "first"):
            return True
        if self._judge_kind == "random":
            return chance < 0.5
        own = self._believed[self._place[request.candidate_id]]
        belongs = own == self._kind(request.cluster_name, request.exemplar_ids)
        return belongs != (chance < (FALSE_NO if belongs else FALSE_YES))

    def _chosen(self, request: ChooseRequest) -> int:
        """The option answered, or how many there are for none of them."""
        answers = range(len(request.options) + 1)
        if self._judge_kind in ("yes", "first"):
            return 0
        luck = self._chance("which", request)
        if self._judge_kind == "random":
            return int(luck * len(answers))
        own = self._believed[self._place[request.candidate_id]]
        kinds = [self._kind(option.name, option.exemplar_ids) for option in request.options]
        right = kinds.index(own) if own in kinds else len(kinds)
        if self._chance("wrong", request) >= WRONG_CHOICE:
            return right
        others = [answer for answer in answers if answer != right]
        return others[int(luck * len(others))]

    @staticmethod
    def _choice(options: int, chosen: int) -> ChooseReply:
        rest = (1 - SURE) / options
        return ChooseReply(tuple(SURE if answer == chosen else rest for answer in range(options + 1)))

    def _complete(self, request: CompleteRequest) -> CompleteReply | ModelError:
        if not self._capabilities.writes_text:
            return ModelError(f"the replayed model cannot do {request.task.name!r}", "use a model that writes text")
        match request.task:
            case GroupDescriptions():
                return CompleteReply(self._vocabulary(request.task))
            case MergeCategories():
                return CompleteReply(_reconcile(request.task))
            case NameClusters():
                return CompleteReply(_name_clusters(request.task))
            case _:
                return ModelError(f"the replayed model cannot do {request.task.name!r}", "use a model that does")

    def _vocabulary(self, task: GroupDescriptions) -> Categories:
        spelled = {_folded(name): name for name in task.categories}
        found: dict[str, list[int]] = {}
        no_answer = []
        for number, description in enumerate(task.descriptions, start=1):
            category = self._categories.get(_folded(description), description)
            if _folded(category) in _NO_ANSWERS:
                no_answer.append(number)
            else:
                found.setdefault(spelled.get(_folded(category), category), []).append(number)
        return Categories(tuple(Category(name, tuple(n)) for name, n in found.items()), tuple(no_answer))


def _reconcile(task: MergeCategories) -> MergedCategories:
    groups: dict[str, tuple[str, list[int]]] = {}
    for category in task.categories:
        groups.setdefault(_folded(category.name), (category.name, []))[1].append(category.id)
    return MergedCategories(tuple(Category(name, tuple(ids)) for name, ids in groups.values()))


def _name_clusters(task: NameClusters) -> Names:
    taken = {_folded(name) for name in task.taken}
    named = []
    for cluster in task.clusters:
        words = next((d for d, _ in cluster.descriptions if _folded(d) not in taken), f"group {cluster.id}")
        taken.add(_folded(words))
        named.append(GroupName(cluster.id, words[:60], f"Pictures described as {words}."))
    return Names(tuple(named))


def _folded(text: str) -> str:
    return " ".join(text.casefold().split()).strip(" .")


def _most_frequent(counted: Counter[str]) -> str:
    return min(counted, key=lambda kind: (-counted[kind], kind))
