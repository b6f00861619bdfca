"""Corrections as rows of a table: what a person writes in a file, and what the edits of `assignments.csv` come to.

In: a CSV file. Out: corrections, with the line of each. Promise: a row that cannot be read is an error that names the
line, the value and the cure; nothing is guessed.

    image,cluster            a.jpg,hearts            a picture belongs to a cluster ("#7" is its id)
    image,not,cluster        a.jpg,not,hearts        it does not
                             a.jpg,new,jokers        it belongs to a new cluster of this name
                             a.jpg,yes,              it is right where it is
                             a.jpg,none,             it belongs to no cluster
                             hearts,rename,Herz      a cluster is called otherwise
                             hearts,merge,diamonds   a cluster is part of another one
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from manylens.correcting.rulings import Names, said_in
from manylens.errors import UsageError
from manylens.results.files import csv_bytes, path_cell, text_cell
from manylens.types import Correction, CorrectionKind

_VERBS: Mapping[str, CorrectionKind] = {
    "": "move",
    "in": "move",
    "not": "not",
    "new": "new",
    "yes": "confirm",
    "none": "unassign",
    "rename": "rename",
    "merge": "merge",
}
_WORDS = {kind: verb for verb, kind in _VERBS.items()} | {"move": "in", "split": "new"}

COLUMNS = ("image", "not", "cluster")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file is, as `assignments.csv` says it. cluster, name: None and empty where it is in none."""

    cluster: int | None
    name: str


def read_rows(path: Path, names: Names, known: Sequence[str] = ()) -> tuple[list[Correction], list[str]]:
    """The corrections of a file, and the line of each. known: names of clusters; a new one that is there already is
    moved to. Raises UsageError for a file or a row that is none."""
    lines = _lines(path)
    if lines and [cell.strip().casefold() for cell in lines[0][1]][:1] == ["image"]:
        header = [cell.strip().casefold() for cell in lines[0][1] if cell.strip()]
        if len(header) > 3:
            raise UsageError(
                f"corrections have two or three columns, {path.name} has {len(header)}: {', '.join(header)}",
                "write image,cluster; an edited assignments.csv is taken with --from-edited",
            )
        lines = lines[1:]
    there = set(known)
    found: list[tuple[CorrectionKind, str, list[str], int]] = []
    for number, cells in lines:
        with said_in(f"line {number}"):
            kind, subject, target = _row(cells)
            if kind == "new" and target in there:
                kind = "move"
            if kind in ("rename", "merge"):
                found.append((kind, target, [subject], number))
                continue
            image = names.image(subject)
        if found and found[-1][:2] == (kind, target):
            found[-1][2].append(image)
        else:
            found.append((kind, target, [image], number))
        there |= {target} if kind == "new" else set()
    if not found:
        raise UsageError(f"a file of corrections has at least one row, {path.name} has none", "write image,cluster")
    corrections = [_correction(kind, target, subjects) for kind, target, subjects, _ in found]
    return corrections, [f"line {number}" for *_, number in found]


def _row(cells: Sequence[str]) -> tuple[CorrectionKind, str, str]:
    cells = [cell.strip() for cell in cells]
    while len(cells) > 3 and not cells[-1]:
        cells.pop()
    if not 2 <= len(cells) <= 3 or not cells[0]:
        raise UsageError(
            f"a row is image,cluster or image,not,cluster, got {','.join(cells)!r}", "quote a name that has a comma"
        )
    subject, verb, target = cells[0], cells[1] if len(cells) == 3 else "", _text(cells[-1])
    if verb.casefold() not in _VERBS:
        raise UsageError(
            f"the middle of a row is one of {', '.join(verb for verb in _VERBS if verb)} or empty, got {verb!r}",
            "quote a name that has a comma",
        )
    kind = _VERBS[verb.casefold()]
    if not target and kind not in ("confirm", "unassign", "not"):
        raise UsageError("a row names a cluster, got none", "to take a picture out of every cluster write image,none,")
    return kind, subject, target


def _correction(kind: CorrectionKind, target: str, subjects: Sequence[str]) -> Correction:
    if kind == "rename":
        return Correction(kind, cluster=subjects[0], name=target)
    if kind == "merge":
        return Correction(kind, cluster=subjects[0], into=target)
    if kind == "new":
        return Correction(kind, tuple(subjects), name=target)
    cluster = target or None if kind in ("move", "not") else None
    return Correction(kind, tuple(subjects), cluster)


def rows_of(corrections: Sequence[Correction], path_of: Mapping[str, str]) -> bytes:
    """Corrections as a file that `read_rows` reads. path_of: a path of each image id."""
    rows: list[tuple[str, str, str]] = []
    for one in corrections:
        verb = _WORDS[one.kind]
        cluster = f"#{one.cluster}" if isinstance(one.cluster, int) else one.cluster or ""
        if one.kind == "rename":
            rows.append((cluster, verb, text_cell(one.name)))
        elif one.kind == "merge":
            rows.append((cluster, verb, f"#{one.into}" if isinstance(one.into, int) else one.into or ""))
        else:
            target = text_cell(one.name) if one.kind in ("new", "split") else cluster
            rows += [(path_cell(path_of.get(image, image)), verb, target) for image in one.images]
    return csv_bytes(COLUMNS, rows)


def edits(path: Path, before: Mapping[str, Place], names: Names) -> list[Correction]:
    """What the edits of an `assignments.csv` come to. before: each path's place when the file was written.

    A changed number moves a picture. A changed name renames the cluster where most of its rows have it and no row stays
    as it was; else it moves the picture to the cluster of that name, or to a new one. Both emptied: the picture is in
    no cluster. Rows that are gone say nothing. Raises UsageError for a file without the columns, or a row that is none.
    """
    lines = _lines(path)
    columns = {cell.strip().casefold(): at for at, cell in enumerate(lines[0][1])} if lines else {}
    if "image" not in columns or not {"cluster", "name"} & set(columns):
        raise UsageError(
            f"assignments have the columns image, cluster and name, {path.name} has {', '.join(columns) or 'none'}",
            "edit cells and leave the first row as it is",
        )
    clusters = {place.cluster: place.name for place in before.values() if place.cluster is not None}
    moves: dict[str | int | None, list[str]] = {}
    renamed: dict[tuple[int, str], list[str]] = {}
    sizes = Counter(place.cluster for place in before.values())
    changed: Counter[int] = Counter()
    for number, cells in lines[1:]:
        with said_in(f"line {number}"):
            row = {key: cells[at].strip() if at < len(cells) else "" for key, at in columns.items()}
            where = row["image"] if row["image"] in before else row["image"].removeprefix("./")
            image = names.image(where)
            was = before[where] if where in before else _place_of(image, before, names)
            cluster = row.get("cluster", "" if was.cluster is None else str(was.cluster))
            name = _text(row.get("name", was.name))
            target = _target(cluster, name, was, clusters)
        if target is was:
            continue
        if was.cluster is not None:
            changed[was.cluster] += 1
        if isinstance(target, str) and was.cluster is not None and name == target:
            renamed.setdefault((was.cluster, target), []).append(image)
        else:
            moves.setdefault(target if not isinstance(target, Place) else None, []).append(image)
    found: list[Correction] = []
    names_now = dict(clusters)
    for (cluster_id, name), images in renamed.items():
        is_whole = changed[cluster_id] == sizes[cluster_id] < 2 * len(images)
        if is_whole and name not in clusters.values():
            names_now[cluster_id] = name
            found.append(Correction("rename", cluster=cluster_id, name=name))
        else:
            moves.setdefault(name, []).extend(images)
    for target, images in moves.items():
        inside = tuple(dict.fromkeys(images))
        if target is None:
            found.append(Correction("unassign", inside))
        elif isinstance(target, str) and target not in names_now.values():
            found.append(Correction("new", inside, name=target))
        else:
            found.append(Correction("move", inside, target))
    return found


def _target(cluster: str, name: str, was: Place, clusters: Mapping[int, str]) -> Place | int | str | None:
    """Where an edited row puts its picture: the place it had, a cluster's id, a name, or None for no cluster."""
    same_cluster = cluster == ("" if was.cluster is None else str(was.cluster))
    same_name = name == was.name
    if same_cluster and same_name:
        return was
    if same_cluster:
        return name or None
    if cluster.isdecimal() and int(cluster) in clusters:
        number = int(cluster)
        if same_name or not name or name == clusters[number]:
            return number
        raise UsageError(
            f'a row names one cluster, got number {number}, "{clusters[number]}", and the name "{name}"',
            "change the number or the name",
        )
    if not cluster:
        return None if same_name or not name else name
    if cluster.isdecimal() and same_name:
        raise UsageError(f"a cluster's number is one that is there, got {cluster}", "a new cluster is made by its name")
    return name if cluster.isdecimal() else cluster


def _place_of(image: str, before: Mapping[str, Place], names: Names) -> Place:
    return next(place for path, place in before.items() if names.image(path) == image)


def _text(cell: str) -> str:
    """A name as it was before `text_cell` kept it from being a formula."""
    return cell[1:] if cell.startswith("'") and text_cell(cell[1:]) == cell else cell


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """(line, cells) of rows that hold anything. UTF-8 with or without a mark; commas, semicolons or tabs."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(
            f"corrections are a file, {path} cannot be read ({error.strerror})", "check its name"
        ) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UsageError(
            f"corrections are UTF-8, line {line} of {path.name} is not", 'save it as "CSV UTF-8"'
        ) from None
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    found = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                found.append((reader.line_num, cells))
    except csv.Error as error:
        raise UsageError(
            f"line {reader.line_num}: a row is CSV, {path.name} is not ({error})", "check its quotes"
        ) from None
    return found
