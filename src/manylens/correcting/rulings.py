"""From what a person says to what the log keeps: names become ids and anchors, and what cannot be is refused.

In: corrections, with images by id or path and clusters by id or name, and where each image is. Out: rulings. Promise:
nothing is guessed: an image or a cluster that is not there is an error that names what is most like it.
"""

from __future__ import annotations

import contextlib
import difflib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence

from manylens.errors import UsageError
from manylens.method.corrections import MOST_MEMBERS, Table
from manylens.method.observations import normalise_description
from manylens.text import counted, shown_name
from manylens.types import Anchor, Correction, Image, Ruling

MAX_NAME_CHARACTERS = 200
"""Of a cluster: what a heading and the name of a folder can bear."""

_KINDS = ("move", "new", "split", "merge", "rename", "not", "unassign", "confirm")


class Names:
    """Images by id and by path. Paths that differ only in how letters are composed are one, where that is clear."""

    def __init__(self, images: Iterable[Image]) -> None:
        self._ids: set[str] = set()
        self._paths: dict[str, str] = {}
        self._folded: dict[str, set[str]] = {}
        for image in images:
            self._ids.add(image.id)
            for path in image.paths:
                self._paths[path] = image.id
                self._folded.setdefault(unicodedata.normalize("NFC", path), set()).add(image.id)

    def image(self, said: str) -> str:
        """An image's id. Raises UsageError where none or several are meant."""
        if not isinstance(said, str):
            raise UsageError(f"an image is named by its path or id, got {said!r}", "pass a text")
        path = said.removeprefix("./").replace("\\", "/") if said not in self._paths else said
        if said in self._ids:
            return said
        if path in self._paths:
            return self._paths[path]
        found = self._folded.get(unicodedata.normalize("NFC", path), set())
        if len(found) == 1:
            return next(iter(found))
        if found:
            raise UsageError(
                f"an image's path names one image, {shown_name(said)!r} names {len(found)} that differ in how their "
                "letters are composed",
                "pass its id, the column sha256 of an export",
            )
        raise UsageError(f"a correction is about a picture of the run, got {shown_name(said)!r}", self._like(path))

    def _like(self, path: str) -> str:
        # Names that end alike first: comparing with all of a million paths would take minutes.
        end = path.rpartition("/")[2]
        same = [known for known in self._paths if known.rpartition("/")[2] == end]
        near = same[:3] or difflib.get_close_matches(path, list(self._paths)[:20_000], 1)
        meant = " or ".join(repr(shown_name(one)) for one in near)
        return f"did you mean {meant}?" if meant else "paths are those in assignments.csv"


@contextlib.contextmanager
def said_in(place: str) -> Iterator[None]:
    """An error names the place in which the person said what cannot be."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{place}: {error.rule}", error.hint) if place else error from None


def find_cluster(said: int | str | None, clusters: Mapping[int, str]) -> int:
    """A cluster's id. clusters: id -> name. Text is a name first, then "#7", or 7, an id."""
    if isinstance(said, int) and not isinstance(said, bool) and said in clusters:
        return said
    if isinstance(said, str) and said.strip():
        folds = (
            lambda name: name,
            lambda name: unicodedata.normalize("NFC", " ".join(name.split())).casefold(),
            normalise_description,
        )
        for fold in folds:
            found = [number for number, name in clusters.items() if fold(name) == fold(said)]
            if len(found) == 1:
                return found[0]
        digits = said.strip().removeprefix("#")
        if digits.isdecimal() and int(digits) in clusters:
            return int(digits)
    near = difflib.get_close_matches(str(said), list(clusters.values()), 1)
    names = ", ".join(f'"{shown_name(name)}"' for name in list(clusters.values())[:8])
    cure = f'did you mean "{shown_name(near[0])}"' if near else f"say one of {names}"
    raise UsageError(
        f"a correction names a cluster that is there, got {said!r}", f"{cure}, or make a new one by the word new"
    )


def rulings_of(correction: Correction, table: Table, names: Names, next_id: int) -> list[Ruling]:
    """What the log keeps of a correction. table: as it is now. next_id: of a new cluster.

    Raises UsageError for what cannot be.
    """
    kind = correction.kind
    if kind not in _KINDS:
        raise UsageError(f"a correction is one of {', '.join(_KINDS)}, got {kind!r}", "choose one of these")
    clusters = {number: cluster.name for number, cluster in table.clusters.items()}
    if kind == "rename":
        cluster = find_cluster(correction.cluster, clusters)
        name = _free_name(correction.name, {n: c for n, c in clusters.items() if n != cluster})
        return [Ruling(kind, cluster=table.anchor(cluster), name=name)]
    if kind == "merge":
        one, into = find_cluster(correction.cluster, clusters), find_cluster(correction.into, clusters)
        if one == into:
            raise UsageError(f'two clusters are merged, got "{clusters[one]}" twice', "name another one")
        inside = tuple(sorted(image for image, at in table.place.items() if at == one))
        return [Ruling(kind, inside, table.anchor(one), table.anchor(into))]
    images = _images(correction.images, kind, table, names)
    if kind == "unassign":
        return [Ruling(kind, images)]
    if kind == "move":
        return [Ruling(kind, images, table.anchor(find_cluster(correction.cluster, clusters)))]
    if kind in ("new", "split"):
        return [_new(correction, images, table, clusters, next_id)]
    if kind == "not" and correction.cluster is not None:
        return [Ruling(kind, images, table.anchor(find_cluster(correction.cluster, clusters)))]
    return _where_they_are(kind, images, table)


def _where_they_are(kind: str, images: Sequence[str], table: Table) -> list[Ruling]:
    """ "not" and "confirm" of images in several clusters."""
    inside: dict[int | None, list[str]] = {}
    for image in images:
        inside.setdefault(table.place[image], []).append(image)
    loose = inside.pop(None, [])
    if loose and kind == "not":
        raise UsageError(
            f'"not" is said of pictures in a cluster, {counted(len(loose), "picture is", "pictures are")} in none',
            "move them to one, or leave them out",
        )
    found = [Ruling("unassign", tuple(loose))] if loose else []
    for cluster, own in sorted(inside.items(), key=lambda entry: entry[0] or 0):
        assert cluster is not None
        found.append(Ruling("not" if kind == "not" else "confirm", tuple(own), table.anchor(cluster)))
    return found


def _new(
    correction: Correction, images: tuple[str, ...], table: Table, clusters: Mapping[int, str], next_id: int
) -> Ruling:
    name = correction.name
    if correction.kind == "split":
        homes = {table.place[image] for image in images}
        of = homes.pop() if correction.cluster is None else find_cluster(correction.cluster, clusters)
        if homes - {of} or of is None:
            raise UsageError("a cluster is split by some of its own pictures, got others", "make a new cluster of them")
        if len(images) == table.sizes[of]:
            raise UsageError(
                f'a cluster is split by some of its pictures, got all {len(images):,} of "{clusters[of]}"',
                "choose fewer, or rename it",
            )
        name = name or f"{clusters[of]} ({next_id})"
    name = _free_name(name, clusters)
    anchor = Anchor(next_id, name, len(images), images[:MOST_MEMBERS])
    return Ruling(correction.kind, images, anchor, name=name)


def _images(said: Sequence[str], kind: str, table: Table, names: Names) -> tuple[str, ...]:
    if isinstance(said, str) or not said:
        raise UsageError(f"{kind!r} is about at least one image, got {said!r}", "pass paths or ids")
    images = tuple(dict.fromkeys(names.image(one) for one in said))
    unseen = [image for image in images if image not in table.place]
    if unseen:
        raise UsageError(
            f"corrections are about pictures that were looked at, {counted(len(unseen), 'of these', 'of these')} not",
            "run the command that made the run again: it looks at what is missing",
        )
    return images


def _free_name(said: str, clusters: Mapping[int, str]) -> str:
    """A name that no other cluster has."""
    name = " ".join(said.split()) if isinstance(said, str) else ""
    if not name or len(name) > MAX_NAME_CHARACTERS:
        raise UsageError(
            f"a cluster's name has 1 to {MAX_NAME_CHARACTERS} characters, got {len(name)}", "name it in a few words"
        )
    for other in clusters.values():
        if normalise_description(other) == normalise_description(name):
            raise UsageError(
                f'clusters have different names, "{shown_name(other)}" is there', "move the pictures to it, or merge"
            )
    return name


def describe(ruling: Ruling) -> str:
    """A ruling in words, for the list of what was said."""
    pictures = counted(len(ruling.images), "picture")
    name = "" if ruling.cluster is None else f'"{ruling.cluster.name}"'
    into = "" if ruling.into is None else f'"{ruling.into.name}"'
    words = {
        "move": f"{pictures} moved to {name}",
        "new": f"{name} made of {pictures}",
        "split": f"{name} split off, {pictures}",
        "merge": f"{name} merged into {into}, {pictures}",
        "rename": f'{name} renamed "{ruling.name}"',
        "not": f"{pictures} not in {name}",
        "unassign": f"{pictures} taken out of every cluster",
        "confirm": f"{pictures} confirmed in {name}",
        "judged": f"{counted(len(ruling.judged), 'picture')} sorted again to {name or 'no cluster'}",
    }
    return words[ruling.kind]
