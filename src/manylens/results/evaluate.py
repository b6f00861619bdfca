"""How well a clustering agrees with labels: NMI, RI, ARI, ACC, and the number of clusters found against the truth.

In: labels by image (a CSV file) and the assignments of a run. Out: `Scores` by interest. Promises: an unassigned image
counts as a cluster of its own, so leaving out what was placed rightly lowers every score; images without a label are
left out and counted; nothing is printed, and no label ever reaches a clustering.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import os
import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import lap
import numpy as np
from numpy.typing import NDArray

from manylens.errors import UsageError
from manylens.files import DATABASE_NAME, MOST_TABLE, read_regular
from manylens.method.compound import parts_of
from manylens.text import singular, slug_of
from manylens.types import Interest

FILE_COLUMNS = ("file", "image")
"""What the column that names the files may be called."""

BOOKKEEPING = ("split", "subset", "fold", "partition")
"""Columns of data sets that say how the files are dealt out, not what they show: compared only where asked for."""

ChosenBy: TypeAlias = Literal["asked", "same name", "word", "parts", "every column"]
"""Why a label column was compared with an interest: the person said so, it has the interest's name, its name occurs in
the interest as words, they are those of a compound interest's parts, or none did and all columns were tried."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Agreement of a clustering with labels, each 1.0 where they are the same partition.

    nmi: normalised mutual information, arithmetic mean. ri, ari: (adjusted) Rand index. acc: share of images in the
    cluster matched to their class, one to one (Hungarian). clusters_found counts clusters, not unassigned images.
    """

    nmi: float
    ri: float
    ari: float
    acc: float
    clusters_found: int
    clusters_true: int
    images: int
    unassigned: int


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels as a CSV gives them. attributes: its columns. rows: file -> attribute -> label, empty if unknown."""

    path: str
    attributes: tuple[str, ...]
    rows: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class InterestScores:
    """One interest compared with one label column. unlabeled: images of the clustering that have no label there.
    unused: rows of the labels that name none of its images."""

    interest: str
    slug: str
    column: str
    chosen_by: ChosenBy
    scores: Scores
    unlabeled: int
    unused: tuple[str, ...] = ()


def evaluate_labels(true: Sequence[Hashable], predicted: Sequence[Hashable | None]) -> Scores:
    """Compare a clustering with labels, image by image; None in `predicted` is an unassigned image.

    Raises UsageError where there are no images, ValueError where the lengths differ.
    """
    if len(true) != len(predicted):
        raise ValueError(f"one prediction per label: got {len(true)} labels and {len(predicted)} predictions")
    if not true:
        raise UsageError("a comparison needs at least one labeled image, got none", "check the labels file")
    unassigned = sum(cluster is None for cluster in predicted)
    classes = _numbered(true)
    # Every unassigned image becomes a key that no other image has.
    clusters = _numbered([(i, None) if cluster is None else (None, cluster) for i, cluster in enumerate(predicted)])
    rows, columns, counts = _contingency(classes, clusters)
    ri, ari = _rand(rows, columns, counts)
    return Scores(
        nmi=_normalized_mutual_information(rows, columns, counts),
        ri=ri,
        ari=ari,
        acc=_accuracy(rows, columns, counts),
        clusters_found=int(clusters.max()) + 1 - unassigned,
        clusters_true=int(classes.max()) + 1,
        images=len(true),
        unassigned=unassigned,
    )


_Counts: TypeAlias = NDArray[np.int64]


def _numbered(values: Sequence[Hashable]) -> _Counts:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)


def _contingency(classes: _Counts, clusters: _Counts) -> tuple[_Counts, _Counts, _Counts]:
    """The cells that are not empty: class, cluster, and how many images are in both."""
    width = int(clusters.max()) + 1
    cells, counts = np.unique(classes * width + clusters, return_counts=True)
    return cells // width, cells % width, counts.astype(np.int64)


def _normalized_mutual_information(rows: _Counts, columns: _Counts, counts: _Counts) -> float:
    """I(true; found) over the arithmetic mean of their entropies; 1.0 where both are one single cluster."""
    n = counts.sum()
    a, b = np.bincount(rows, counts), np.bincount(columns, counts)
    information = float((counts / n * np.log(counts * n / (a[rows] * b[columns]))).sum())
    entropies = [-float((sizes / n * np.log(sizes / n)).sum()) for sizes in (a, b)]
    mean = sum(entropies) / 2
    return 1.0 if mean == 0 else min(1.0, max(0.0, information / mean))


def _rand(rows: _Counts, columns: _Counts, counts: _Counts) -> tuple[float, float]:
    """Rand index, and adjusted for chance (Hubert and Arabie 1985), from pair counts in exact integers."""
    n = int(counts.sum())
    together = _pairs(counts)
    in_class = _pairs(np.bincount(rows, counts).astype(np.int64))
    in_cluster = _pairs(np.bincount(columns, counts).astype(np.int64))
    pairs = n * (n - 1) // 2
    if pairs == 0:
        return 1.0, 1.0
    ri = (pairs + 2 * together - in_class - in_cluster) / pairs
    expected = in_class * in_cluster / pairs
    most = (in_class + in_cluster) / 2
    return ri, 1.0 if most == expected else (together - expected) / (most - expected)


def _pairs(sizes: _Counts) -> int:
    return int((sizes * (sizes - 1) // 2).sum())


def _accuracy(rows: _Counts, columns: _Counts, counts: _Counts) -> float:
    """The best one-to-one matching of classes and clusters. Of a class's clusters of one image only one can be matched
    to it, so the others are left out: a thousand unassigned images do not make a table of a thousand columns."""
    single = np.bincount(columns, counts)[columns] == 1
    _, first = np.unique(rows[single], return_index=True)
    kept = np.concatenate([np.flatnonzero(~single), np.flatnonzero(single)[first]])
    clusters, places = np.unique(columns[kept], return_inverse=True)
    table = np.zeros((int(rows.max()) + 1, clusters.size))
    table[rows[kept], places] = counts[kept]
    _, cluster_of, _ = lap.lapjv(table.max() - table, extend_cost=True)
    matched = np.flatnonzero(cluster_of >= 0)
    return float(table[matched, cluster_of[matched]].sum() / counts.sum())


def read_labels(path: str | os.PathLike[str]) -> Labels:
    """Read a CSV file with a `file` (or `image`) column and one column per attribute; `;` and tab work as well.

    Raises UsageError: no such file, no file column, no attribute, or one file twice with different labels.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            # As `images.printable` writes names that are no UTF-8, so that they are found again.
            text = stream.read().encode("utf-8", "backslashreplace").decode("utf-8")
        header_line = text.split("\n", 1)[0]
        if "\0" in text or "\\udc" in header_line:
            raise UsageError(f"labels are read from a CSV file in UTF-8, {path} is none", "save it as CSV, UTF-8")
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text)))
    except OSError as error:
        rule = f"labels are read from a CSV file, cannot read {path}: {error.strerror}"
        raise UsageError(rule, "check --labels") from None
    except csv.Error as error:
        raise UsageError(f"labels are read from a CSV file, {path} is none: {error}", "check --labels") from None
    header = [name.strip() for name in table[0]] if table else []
    file_columns = [i for i, name in enumerate(header) if name.lower() in FILE_COLUMNS]
    if not file_columns:
        names = textwrap.shorten(", ".join(header), 200, placeholder=" ...") or "no columns"
        raise UsageError(
            f"a labels file needs a column named file or image, {path} has {names}",
            "name the column that holds the file names: file",
        )
    if len(set(header)) != len(header):
        raise UsageError(f"columns of a labels file have different names, {path} has {', '.join(header)}", "rename one")
    attributes = {name: i for i, name in enumerate(header) if i != file_columns[0] and name}
    if not attributes:
        raise UsageError(
            f"a labels file needs a column per attribute, {path} has file names only", "add one: file,suit"
        )
    rows: dict[str, dict[str, str]] = {}
    for line, row in enumerate(table[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        cells = row + [""] * (len(header) - len(row))
        file = _normal(cells[file_columns[0]])
        values = {name: cells[i].strip() for name, i in attributes.items()}
        if rows.setdefault(file, values) != values:
            raise UsageError(
                f"a file has one row of labels, {file!r} has another in row {line} of {path}", "remove one"
            )
    return Labels(str(path), tuple(attributes), rows)


def _normal(path: str) -> str:
    """Composed: a Mac decomposes the letters of names, what is typed elsewhere is composed."""
    return unicodedata.normalize("NFC", path).strip().replace("\\", "/").removeprefix("./")


def _unique(names: Iterable[str]) -> dict[str, str]:
    """The names by their letters whatever their case, of those that are the only one."""
    by_letters: dict[str, list[str]] = {}
    for name in names:
        by_letters.setdefault(name.casefold(), []).append(name)
    return {letters: same[0] for letters, same in by_letters.items() if len(same) == 1}


def match_labels(labels: Labels, images: Sequence[str]) -> dict[str, str]:
    """Image -> the file whose row of labels is its: by its path relative to the folder, else by its base name where
    that is unique among the images and among the labels; whatever the case of letters where that leaves one. Images
    without are left out. Raises UsageError where none matches."""

    def base(path: str) -> str:
        return path.rsplit("/", 1)[-1]

    by_name: dict[str, list[str]] = {}
    for file in labels.rows:
        by_name.setdefault(base(file), []).append(file)
    paths = {image: _normal(image) for image in images}
    names = Counter(base(path) for path in paths.values())
    rows, whole = _unique(labels.rows), _unique(paths.values())
    rows_by_name, whole_by_name = _unique(map(base, labels.rows)), _unique(map(base, paths.values()))
    found: dict[str, str] = {}
    for image, path in paths.items():
        name = base(path)
        letters, name_letters = path.casefold(), name.casefold()
        if path in labels.rows:
            found[image] = path
        elif letters in rows and letters in whole:
            found[image] = rows[letters]
        elif names[name] == 1 and len(by_name.get(name, ())) == 1:
            found[image] = by_name[name][0]
        elif name_letters in rows_by_name and name_letters in whole_by_name:
            found[image] = by_name[rows_by_name[name_letters]][0]
    if not found:
        some_image, some_label = next(iter(images), ""), next(iter(labels.rows), "")
        raise UsageError(
            f"labels name the images' files, none of the {len(labels.rows):,} rows of {labels.path} names one of the "
            f"{len(images):,} images (an image: {some_image!r}, a row: {some_label!r})",
            "use paths relative to the folder that was clustered",
        )
    return found


def choose_columns(
    interest: str, slug: str, attributes: Sequence[str], asked: str | None = None
) -> tuple[tuple[str, ...], ChosenBy]:
    """The label columns to compare an interest with. Raises UsageError where the asked one does not exist."""
    if asked is not None:
        if asked not in attributes:
            near = difflib.get_close_matches(asked, attributes) or list(attributes)
            raise UsageError(f"the labels have no column {asked!r}", f"did you mean {' or '.join(near)}?")
        return (asked,), "asked"
    attributes = [name for name in attributes if name.lower() not in BOOKKEEPING]
    if same := tuple(name for name in attributes if slug_of(" ".join(name.split())) == slug):
        return same, "same name"
    words = _words(interest)
    named = {name: size for name in attributes if (size := _occurs(_words(name), words))}
    if named:  # "deck style" beats "style": the longest name says most
        return tuple(name for name in attributes if named.get(name) == max(named.values())), "word"
    return tuple(attributes), "every column"


def _words(text: str) -> list[str]:
    """Words in lower case and the singular, without underscores, so that `suits` finds `suit`."""
    return [singular(word) for word in re.findall(r"[^\W_]+", text.lower())]


def _occurs(name: list[str], words: list[str]) -> int:
    size = len(name)
    return size if size and any(words[i : i + size] == name for i in range(len(words) - size + 1)) else 0


def evaluate_run(
    out: str | os.PathLike[str], labels: Labels, columns: Mapping[str, str] | None = None
) -> tuple[InterestScores, ...]:
    """Compare every clustering of a run with labels, by slug.

    columns: interest (as typed, or its slug) -> label column, where the person names it. Interests beside those are
    then compared only where a column has their name. No interest is compared with a column that has the name of another
    one; a compound one is compared with the columns of its parts together.
    Raises UsageError: no results in `out`, an interest or a column that does not exist, or no label that matches.
    """
    slugs = sorted(path.parent.name for path in Path(out).glob("*/assignments.csv"))
    if not slugs:
        is_run = (Path(out) / DATABASE_NAME).is_file()
        raise UsageError(
            f"evaluation needs the results of a run, {out} has none{' yet' if is_run else ''}",
            "run the command that began it again, to its end" if is_run else "give the --out of `manylens cluster`",
        )
    interests = {slug: _interest(Path(out) / slug) for slug in slugs}
    asked: dict[str, str] = {}
    for interest, column in (columns or {}).items():
        slug = next((slug for slug in slugs if interest in (slug, interests[slug])), None)
        if slug is None:
            near = difflib.get_close_matches(interest, interests.values()) or list(interests.values())
            raise UsageError(f"the run has no interest {interest!r}", f"did you mean {' or '.join(near)}?")
        asked[slug] = column
    columns_of = _columns_of(interests, labels.attributes, asked)
    results: list[InterestScores] = []
    strange: UsageError | None = None
    for slug in slugs:
        assignments = _read_assignments(Path(out) / slug / "assignments.csv")
        try:
            files = match_labels(labels, list(assignments))
        except UsageError as error:  # an interest of an earlier collection in the same run folder
            if slug in asked:
                raise
            strange = strange or error
            continue
        unused = tuple(sorted(labels.rows.keys() - files.values()))
        chosen, chosen_by = columns_of[slug]
        together = _together(interests[slug], columns_of) if chosen_by != "asked" else None
        if together is not None:
            chosen, chosen_by = (PLUS.join(together),), "parts"
        if asked and chosen_by == "every column":
            continue
        for column in chosen:
            wanted = together or (column,)
            labeled = {
                image: PLUS.join(told)
                for image, file in files.items()
                if all(told := [labels.rows[file][name] for name in wanted])
            }
            if not labeled:
                continue
            scores = evaluate_labels(list(labeled.values()), [assignments[image] for image in labeled])
            unlabeled = len(assignments) - len(labeled)
            results.append(InterestScores(interests[slug], slug, column, chosen_by, scores, unlabeled, unused))
    if not results and strange is not None:
        raise strange
    if not results:
        columns_are = f"its columns ({', '.join(labels.attributes)}) are empty or bookkeeping"
        raise UsageError(f"a comparison needs labels, {labels.path} has none: {columns_are}", "fill in a column")
    return tuple(results)


def _columns_of(
    interests: Mapping[str, str], attributes: Sequence[str], asked: Mapping[str, str]
) -> dict[str, tuple[tuple[str, ...], ChosenBy]]:
    """Of each interest, by slug, the columns to compare it with. A column that has an interest's name is the truth of
    that one alone; one that is the only one whose name occurs in an interest is no guess for those without a column."""
    first = {slug: choose_columns(text, slug, attributes, asked.get(slug)) for slug, text in interests.items()}
    named = {column: slug for slug, (chosen, by) in first.items() if by == "same name" for column in chosen}
    found = dict(first)
    for slug, (_, by) in first.items():
        if by in ("word", "every column"):
            found[slug] = choose_columns(interests[slug], slug, [n for n in attributes if named.get(n, slug) == slug])
    is_compound = {slug: bool(_parts(text)) for slug, text in interests.items()}
    occur = {c[0] for slug, (c, by) in found.items() if by == "word" and len(c) == 1 and not is_compound[slug]}
    for slug, (chosen, by) in found.items():
        if by == "every column":
            found[slug] = tuple(column for column in chosen if column not in occur) or chosen, by
    return found


PLUS = " + "
"""Between the columns of a compound interest, and their labels."""


def _together(interest: str, columns_of: Mapping[str, tuple[tuple[str, ...], ChosenBy]]) -> tuple[str, ...] | None:
    """The columns whose labels together are the truth of a compound interest: one of each part, where the run has the
    parts and the labels have a column that fits each; else None."""
    found = [columns_of.get(part.slug, ((), "every column")) for part in _parts(interest)]
    fits = bool(found) and all(len(columns) == 1 for columns, _ in found)
    columns = tuple(columns[0] for columns, _ in found) if fits else ()
    return columns if len(set(columns)) == len(found) > 1 else None


def _parts(interest: str) -> tuple[Interest, ...]:
    try:
        return parts_of(Interest(interest))
    except UsageError:  # the folder of another program
        return ()


def _interest(folder: Path) -> str:
    """The interest as it was typed, or the slug where the summary does not say."""
    try:
        return str(json.loads(read_regular(folder / "summary.json"))["interest"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return folder.name


def _read_assignments(path: Path) -> dict[str, str | None]:
    """Image -> cluster, None where it is unassigned. A spreadsheet may have saved the file in its own way."""
    try:
        content = read_regular(path, most=MOST_TABLE)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}", "run again") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    if not {"image", "cluster"} <= set(rows.fieldnames or ()):
        raise UsageError(f"assignments have the columns image and cluster, {path} has {rows.fieldnames}", "run again")
    return {row["image"]: row["cluster"] or None for row in rows if row["image"]}


def _delimiter(text: str) -> str:
    return max(",;\t", key=text.split("\n", 1)[0].count)
