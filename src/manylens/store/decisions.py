"""The decisions of a run: clusterings, their levels and clusters, and which image is where, by whom, and why.

In: a `Clustering` and the settings it was made with. Out: the same, for every interest that the folder holds. Promise:
one interest's decisions are replaced whole or not at all; no run replaces what a person said (`store.corrections`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from manylens.settings import Settings
from manylens.store.schema import bump_revision
from manylens.text import printable
from manylens.types import Assignment, CallCounts, Cluster, Clustering, Interest, Misplaced, Verdict

LEVEL, MODEL_LEVEL = "shown", "model"
"""The level that the result files show; and, where a person corrected it, what the model decided."""


def write_clustering(
    connection: sqlite3.Connection, clustering: Clustering, settings: Settings, decided: Clustering | None = None
) -> None:
    """In the caller's transaction: replace what was decided about this interest. decided: by the model, where a person
    corrected it."""
    slug = clustering.interest.slug
    bump_revision(connection, slug)
    last_id = last_cluster_id(connection, slug)
    account = {
        "calls": clustering.calls.to_dict(),
        "density": clustering.density,
        "estimate": None if clustering.estimate is None else clustering.estimate.to_dict(),
        "vocabulary": dict(clustering.vocabulary),
        "notes": clustering.notes,
        "counting_notes": clustering.counting_notes,
        "is_partial": clustering.is_partial,
        "foreseen_calls": clustering.foreseen_calls,
        "verdict": None if clustering.verdict is None else clustering.verdict.to_dict(),
        "edge": clustering.edge,
        "identity": clustering.identity,
        "decided_estimate": None if decided is None or decided.estimate is None else decided.estimate.to_dict(),
        "last_id": max([last_id, *(c.id for one in (clustering, decided) if one is not None for c in one.clusters)]),
    }
    about = (clustering.interest.text, clustering.model, _json(settings.to_dict()), _json(account), slug)
    changed = connection.execute(
        "UPDATE clusterings SET interest = ?, model = ?, settings = ?, account = ? WHERE slug = ?", about
    )
    if not changed.rowcount:  # an interest keeps its place among the others
        connection.execute(
            "INSERT INTO clusterings (interest, model, settings, account, slug) VALUES (?, ?, ?, ?, ?)", about
        )
    ((number,),) = connection.execute("SELECT id FROM clusterings WHERE slug = ?", (slug,)).fetchall()
    connection.execute("DELETE FROM levels WHERE clustering = ?", (number,))
    connection.execute("DELETE FROM not_described WHERE clustering = ?", (number,))
    _write_level(connection, number, LEVEL, clustering)
    if decided is not None:
        _write_level(connection, number, MODEL_LEVEL, decided)
    connection.executemany(
        "INSERT INTO not_described VALUES (?, ?, ?)",
        [
            *((number, image_id, printable(reason)) for image_id, reason in clustering.failed),
            *((number, image_id, None) for image_id in clustering.not_looked),
        ],
    )


def _write_level(connection: sqlite3.Connection, number: int, name: str, clustering: Clustering) -> None:
    level = connection.execute("INSERT INTO levels (clustering, name) VALUES (?, ?)", (number, name)).lastrowid
    _write_clusters(connection, level, clustering)
    reasons: dict[str, str] = {}
    for a in clustering.assignments:
        if a.reason not in reasons:  # many images share one
            reasons[a.reason] = printable(a.reason)
    connection.executemany(
        "INSERT INTO memberships VALUES (?, ?, ?, ?, ?, ?)",
        ((level, a.image_id, a.cluster, a.confidence, reasons[a.reason], a.decided_by) for a in clustering.assignments),
    )


def _write_clusters(connection: sqlite3.Connection, level: int | None, clustering: Clustering) -> None:
    connection.executemany(
        "INSERT INTO clusters VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (level, c.id, printable(c.name), printable(c.definition), printable(c.parent), c.size, _json(c.exemplars),
             _json(None if c.misplaced is None else c.misplaced.to_dict()))
            for c in clustering.clusters
        ],
    )  # fmt: skip


def write_corrected(connection: sqlite3.Connection, slug: str, before: Clustering, after: Clustering) -> None:
    """In the caller's transaction: what is shown is `after`, no longer `before`. What the model decided is kept."""
    bump_revision(connection, slug)
    number, account = _account(connection, slug)
    levels = dict(connection.execute("SELECT name, id FROM levels WHERE clustering = ?", (number,)).fetchall())
    level = levels[LEVEL]
    if MODEL_LEVEL not in levels:
        cursor = connection.execute("INSERT INTO levels (clustering, name) VALUES (?, ?)", (number, MODEL_LEVEL))
        for table, columns in (
            ("clusters", "id, name, definition, parent, size, exemplars, misplaced"),
            ("memberships", "image_id, cluster, confidence, reason, decided_by"),
        ):
            connection.execute(
                f"INSERT INTO {table} (level, {columns}) SELECT ?, {columns} FROM {table} WHERE level = ?",
                (cursor.lastrowid, level),
            )
        account["decided_estimate"] = account["estimate"]
    connection.execute("DELETE FROM clusters WHERE level = ?", (level,))
    _write_clusters(connection, level, after)
    was = {a.image_id: a for a in before.assignments}
    connection.executemany(
        "UPDATE memberships SET cluster = ?, confidence = ?, reason = ?, decided_by = ? "
        "WHERE level = ? AND image_id = ?",
        [
            (a.cluster, a.confidence, printable(a.reason), a.decided_by, level, a.image_id)
            for a in after.assignments
            if was.get(a.image_id) != a
        ],
    )
    account["estimate"] = None if after.estimate is None else after.estimate.to_dict()
    account["last_id"] = max([account.get("last_id", 0), *(cluster.id for cluster in after.clusters)])
    connection.execute("UPDATE clusterings SET account = ? WHERE id = ?", (_json(account), number))


def last_cluster_id(connection: sqlite3.Connection, slug: str) -> int:
    """The highest id that a cluster of this interest ever had; 0 where there is no clustering yet."""
    row = connection.execute("SELECT id, account FROM clusterings WHERE slug = ?", (slug,)).fetchone()
    if row is None:
        return 0
    (most,) = connection.execute(
        "SELECT MAX(clusters.id) FROM clusters JOIN levels ON levels.id = clusters.level WHERE clustering = ?",
        (row[0],),
    ).fetchone()
    return max(int(json.loads(row[1]).get("last_id", 0)), most or 0)


def _account(connection: sqlite3.Connection, slug: str) -> tuple[int, dict[str, Any]]:
    ((number, account),) = connection.execute("SELECT id, account FROM clusterings WHERE slug = ?", (slug,)).fetchall()
    return number, json.loads(account)


def read_clusterings(
    connection: sqlite3.Connection, without: Collection[str] = (), slug: str | None = None
) -> list[tuple[Clustering, Settings]]:
    """Every interest that the folder holds, but for those of these slugs, in the order in which they were first
    asked; or the one of `slug`."""
    query = (
        "SELECT slug, id, interest, model, settings, account FROM clusterings WHERE ? IS NULL OR slug = ? ORDER BY id"
    )
    rows = connection.execute(query, (slug, slug)).fetchall()
    return [
        (
            _read(connection, number, interest, model, json.loads(account), LEVEL),
            Settings.from_dict(json.loads(settings)),
        )
        for slug, number, interest, model, settings, account in rows
        if slug not in without
    ]


def read_decided(connection: sqlite3.Connection, slug: str) -> Clustering | None:
    """The interest as the model decided it, without what a person said; None where the folder does not hold it."""
    query = "SELECT id, interest, model, account FROM clusterings WHERE slug = ?"
    for number, interest, model, text in connection.execute(query, (slug,)).fetchall():
        account = json.loads(text)
        names = [name for (name,) in connection.execute("SELECT name FROM levels WHERE clustering = ?", (number,))]
        if MODEL_LEVEL not in names:
            return _read(connection, number, interest, model, account, LEVEL)
        account["estimate"] = account["decided_estimate"]
        return _read(connection, number, interest, model, account, MODEL_LEVEL)
    return None


def _read(
    connection: sqlite3.Connection, number: int, interest: str, model: str, account: dict[str, Any], name: str
) -> Clustering:
    ((level,),) = connection.execute("SELECT id FROM levels WHERE clustering = ? AND name = ?", (number, name))
    clusters = connection.execute(
        "SELECT id, name, definition, size, exemplars, parent, misplaced FROM clusters WHERE level = ? "
        "ORDER BY size DESC, id",
        (level,),
    )
    memberships = connection.execute(
        "SELECT image_id, cluster, confidence, reason, decided_by FROM memberships WHERE level = ? ORDER BY image_id",
        (level,),
    )
    absent = connection.execute(
        "SELECT image_id, reason FROM not_described WHERE clustering = ? ORDER BY image_id", (number,)
    ).fetchall()
    return Clustering(
        interest=Interest(interest),
        model=model,
        clusters=tuple(
            Cluster(
                id_, name, definition, size, tuple(json.loads(exemplars)), parent, _misplaced(json.loads(misplaced))
            )
            for id_, name, definition, size, exemplars, parent, misplaced in clusters
        ),
        assignments=tuple(_assignments(memberships)),
        failed=tuple((image_id, reason) for image_id, reason in absent if reason is not None),
        calls=CallCounts.from_dict(account["calls"]),
        density=account["density"],
        estimate=_misplaced(account["estimate"]),
        vocabulary=account["vocabulary"],
        notes=tuple(account["notes"]),
        counting_notes=tuple(account.get("counting_notes", ())),
        not_looked=tuple(image_id for image_id, reason in absent if reason is None),
        is_partial=account["is_partial"],
        foreseen_calls=tuple(account["foreseen_calls"]),
        verdict=None if account.get("verdict") is None else Verdict.from_dict(account["verdict"]),
        edge=None if account.get("edge") is None else (account["edge"][0], account["edge"][1]),
        identity=str(account.get("identity", "")),
    )


def _assignments(rows: Iterable[tuple[Any, ...]]) -> Iterator[Assignment]:
    """Equal reasons are one object."""
    reasons: dict[str, str] = {}
    for image_id, cluster, confidence, reason, decided_by in rows:
        yield Assignment(image_id, cluster, confidence, reasons.setdefault(reason, reason), decided_by)


def _misplaced(values: dict[str, Any] | None) -> Misplaced | None:
    return None if values is None else Misplaced(**values)


def _json(values: object) -> str:
    return json.dumps(values, sort_keys=True)
