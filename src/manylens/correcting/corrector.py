"""A person's corrections of one interest of an open run: say, undo, redo.

In: corrections. Out: what is shown since, and what moved. Promise: what a method has said is in the database when it
returns, whole or not at all; result files are not written here (`correcting.files`), and are known to be out of date.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from manylens.correcting.looks import looks_held
from manylens.correcting.rulings import Names, describe, rulings_of, said_in
from manylens.correcting.settle import active
from manylens.errors import UsageError
from manylens.method.corrections import Table, apply_rulings
from manylens.method.observations import Looks
from manylens.store.run_folder import RunFolder
from manylens.types import Clustering, Correction, Ruling, Step


@dataclass(frozen=True, slots=True)
class Moved:
    """An image that is elsewhere now. before, after: clusters, None for none."""

    image_id: str
    before: int | None
    after: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """What a step did. step: None where nothing was kept (a preview)."""

    step: Step | None
    before: Clustering
    after: Clustering
    moved: tuple[Moved, ...]


class Corrector:
    """One interest's corrections. shown: the clustering with them. steps: the log, what was undone last. settings: of
    the run. Raises UsageError where the run does not hold the interest."""

    def __init__(self, run: RunFolder, slug: str) -> None:
        held = {clustering.interest.slug: (clustering, settings) for clustering, settings in run.clusterings()}
        decided = run.decided(slug)
        if slug not in held or decided is None:
            known = ", ".join(repr(one.interest.text) for one, _ in held.values())
            raise UsageError(
                f"corrections are about an interest of the run, got {slug!r}",
                f"it has {known}" if known else "finish a run first; one of an earlier manylens needs it once more",
            )
        self.run, self.slug = run, slug
        self.shown, self.settings = held[slug]
        self.steps: tuple[Step, ...] = run.steps(slug)
        self.decided = decided
        self._names: Names | None = None
        self._looks: Looks | None = None
        self._table: Table | None = None

    @property
    def looks(self) -> Looks:
        """The looks that the clustering rests on, read once."""
        if self._looks is None:
            self._looks = looks_held(self.run, self.shown)
        return self._looks

    @property
    def names(self) -> Names:
        """The run's images, by id and path."""
        if self._names is None:
            self._names = Names(self.run.images())
        return self._names

    def preview(self, corrections: Sequence[Correction], where: Sequence[str] = ()) -> Change:
        """What `say` would do. Raises UsageError for what cannot be."""
        _, table = self._resolve(corrections, where)
        return _change(None, self.shown, table.result())

    def say(self, corrections: Sequence[Correction], where: Sequence[str] = ()) -> Change:
        """Keep these as one step and apply them. where: of each correction, the place it was said in, for errors.
        Raises UsageError for what cannot be; then nothing is kept."""
        rulings, table = self._resolve(corrections, where)
        change = self._keep(rulings, table.result())
        self._table = table
        return change

    def undo(self) -> Change | None:
        """Take the last step back; None where there is none."""
        steps = [step for step in self.steps if not step.is_undone]
        return self._mark(steps[-1], True) if steps else None

    def redo(self) -> Change | None:
        """Say the step again that was undone last; None where there is none."""
        steps = [step for step in self.steps if step.is_undone]
        return self._mark(steps[0], False) if steps else None

    def take(self, rulings: Sequence[Ruling]) -> Change:
        """Keep rulings that are resolved already: what `resort` proposes."""
        after = apply_rulings(self.decided, [*active(self.steps), *rulings])
        self._table = None
        return self._keep(rulings, after)

    @staticmethod
    def describe(step: Step) -> tuple[str, ...]:
        """What a step says, in words."""
        return tuple(describe(ruling) for ruling in step.rulings)

    def table(self) -> Table:
        """The model's clustering with all that holds applied, to be changed further."""
        table = Table(self.decided)
        for ruling in active(self.steps):
            table.apply(ruling)
        return table

    def _resolve(self, corrections: Sequence[Correction], where: Sequence[str]) -> tuple[list[Ruling], Table]:
        if not corrections:
            raise UsageError("a step says at least one thing, got none", "pass a correction")
        table, self._table = self._table or self.table(), None  # what is refused leaves it half changed
        next_id = self.run.last_cluster_id(self.slug) + 1
        found: list[Ruling] = []
        for number, correction in enumerate(corrections):
            with said_in(where[number] if where else ""):
                said = rulings_of(correction, table, self.names, next_id)
            for ruling in said:
                table.apply(ruling)
            next_id += correction.kind in ("new", "split")
            found += said
        return found, table

    def _keep(self, rulings: Sequence[Ruling], after: Clustering) -> Change:
        before = self.shown
        step = self.run.record_step(self.slug, rulings, before, after)
        self.steps = (*(one for one in self.steps if not one.is_undone), step)
        self.shown = after
        return _change(step, before, after)

    def _mark(self, step: Step, is_undone: bool) -> Change:
        before, self._table = self.shown, None
        marked = Step(step.number, step.at, is_undone, step.rulings)
        steps = tuple(marked if one.number == step.number else one for one in self.steps)
        after = apply_rulings(self.decided, active(steps))
        self.run.mark_step(self.slug, step.number, is_undone, before, after)
        self.steps, self.shown = steps, after
        return _change(marked, before, after)


def _change(step: Step | None, before: Clustering, after: Clustering) -> Change:
    was = {a.image_id: a.cluster for a in before.assignments}
    moved = tuple(
        Moved(a.image_id, was.get(a.image_id), a.cluster) for a in after.assignments if was.get(a.image_id) != a.cluster
    )
    return Change(step, before, after, moved)
