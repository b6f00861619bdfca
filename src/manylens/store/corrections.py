"""What a person said about a run's clusterings: a log of steps for each interest, with undo and redo.

In: rulings. Out: the steps, in order. Promise: a step is kept whole or not at all; what is undone is kept until
something new is said; no run removes anything here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime

from manylens.types import Ruling, Step


def read_steps(connection: sqlite3.Connection, slug: str) -> tuple[Step, ...]:
    """All steps, those that were undone last."""
    rows = connection.execute(
        "SELECT step, at, undone, said FROM corrections WHERE slug = ? ORDER BY step, id", (slug,)
    ).fetchall()
    steps: dict[int, tuple[str, bool, list[Ruling]]] = {}
    for number, at, undone, said in rows:
        steps.setdefault(number, (at, bool(undone), []))[2].append(Ruling.from_dict(json.loads(said)))
    return tuple(Step(number, at, undone, tuple(said)) for number, (at, undone, said) in steps.items())


def add_step(connection: sqlite3.Connection, slug: str, rulings: Sequence[Ruling]) -> Step:
    """In the caller's transaction: say something new. What was undone can be redone no longer."""
    connection.execute("DELETE FROM corrections WHERE slug = ? AND undone", (slug,))
    (last,) = connection.execute("SELECT MAX(step) FROM corrections WHERE slug = ?", (slug,)).fetchone()
    step = Step((last or 0) + 1, datetime.now(UTC).isoformat(timespec="seconds"), False, tuple(rulings))
    rows = [
        (slug, step.number, step.at, json.dumps(ruling.to_dict(), sort_keys=True, ensure_ascii=True))
        for ruling in rulings
    ]
    connection.executemany("INSERT INTO corrections (slug, step, at, undone, said) VALUES (?, ?, ?, 0, ?)", rows)
    return step


def mark_step(connection: sqlite3.Connection, slug: str, number: int, is_undone: bool) -> None:
    """In the caller's transaction: take a step back, or say it again."""
    connection.execute("UPDATE corrections SET undone = ? WHERE slug = ? AND step = ?", (int(is_undone), slug, number))
