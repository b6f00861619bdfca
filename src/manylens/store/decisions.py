"""The decisions of a run: clusterings, their levels and clusters, and which image is where, by whom, and why.

In: a `Clustering` and the settings it was made with. Out: the same, for every interest that the folder holds. Promise:
one interest's decisions are replaced whole or not at all; no run replaces what a person said (`constraints`).
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from manylens.settings import Settings
from manylens.text import printable
from manylens.types import Assignment, CallCounts, Cluster, Clustering, Interest, Misplaced, Verdict

LEVEL = "shown"
"""The level that the result files show; the only one for now."""


def write_clustering(connection: sqlite3.Connection, clustering: Clustering, settings: Settings) -> None:
    """In the caller's transaction: replace what was decided about this interest."""
    slug = clustering.interest.slug
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
    level = connection.execute("INSERT INTO levels (clustering, name) VALUES (?, ?)", (number, LEVEL)).lastrowid
    connection.executemany(
        "INSERT INTO clusters VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (level, c.id, printable(c.name), printable(c.definition), printable(c.parent), c.size, _json(c.exemplars),
             _json(None if c.misplaced is None else c.misplaced.to_dict()))
            for c in clustering.clusters
        ],
    )  # fmt: skip
    connection.executemany(
        "INSERT INTO memberships VALUES (?, ?, ?, ?, ?, ?)",
        [
            (level, a.image_id, a.cluster, a.confidence, printable(a.reason), a.decided_by)
            for a in clustering.assignments
        ],
    )  # fmt: skip
    connection.executemany(
        "INSERT INTO not_described VALUES (?, ?, ?)",
        [
            *((number, image_id, printable(reason)) for image_id, reason in clustering.failed),
            *((number, image_id, None) for image_id in clustering.not_looked),
        ],
    )


def read_clusterings(connection: sqlite3.Connection) -> list[tuple[Clustering, Settings]]:
    """Every interest that the folder holds, in the order in which they were first asked."""
    rows = connection.execute("SELECT id, interest, model, settings, account FROM clusterings ORDER BY id").fetchall()
    return [
        (_read(connection, number, interest, model, json.loads(account)), Settings.from_dict(json.loads(settings)))
        for number, interest, model, settings, account in rows
    ]


def _read(
    connection: sqlite3.Connection, number: int, interest: str, model: str, account: dict[str, Any]
) -> Clustering:
    ((level,),) = connection.execute("SELECT id FROM levels WHERE clustering = ? AND name = ?", (number, LEVEL))
    clusters = connection.execute(
        "SELECT id, name, definition, size, exemplars, parent, misplaced FROM clusters WHERE level = ? ORDER BY id",
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
        assignments=tuple(Assignment(*row) for row in memberships),
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
    )


def _misplaced(values: dict[str, float] | None) -> Misplaced | None:
    return None if values is None else Misplaced(**values)


def _json(values: object) -> str:
    return json.dumps(values, sort_keys=True)
