"""What every file of routes needs: the run that is shown, filters of requests, errors as the page reads them."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeAlias

from fastapi import Depends, Path, Query, Request

from manylens.web.columns import ClusterColumns, ImageColumns, NotThere, Wanted, no_such
from manylens.web.schemas import Problem, Sort
from manylens.web.shown import ShownRun

PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem, "description": what}
    for code, what in (
        (400, "What was asked for cannot be."),
        (401, "The token is missing or wrong."),
        (403, "Not from there, or not here: the run is only shown."),
        (404, "What is named is not in the run."),
        (409, "Not now: another process is at work on the run."),
        (422, "The request is malformed."),
        (503, "The run folder cannot be read or written."),
    )
}


def shown_run(request: Request) -> ShownRun:
    run: ShownRun = request.app.state.run
    return run


RunDep: TypeAlias = Annotated[ShownRun, Depends(shown_run)]

SlugPath: TypeAlias = Annotated[str, Path(max_length=240, description="Of an interest: its folder's name.")]

KeyPath: TypeAlias = Annotated[str, Path(pattern="^[0-9a-f]{16,64}$", description="Of an image: by its content.")]

_WITHIN = re.compile(r"([^:]{1,240}):([0-9]{1,9}|none)")


class Filters:
    """Which images of an interest, as the address says it."""

    def __init__(
        self,
        cluster: Annotated[
            str | None, Query(pattern="^([0-9]{1,9}|none)$", description="A cluster's id; none: those in none.")
        ] = None,
        sort: Annotated[Sort, Query(description="Confidence falling (-confidence) or rising, or by path.")] = (
            "-confidence"
        ),
        q: Annotated[str, Query(max_length=500, description="Words of file names and descriptions.")] = "",
        within: Annotated[
            list[str] | None,
            Query(alias="with", max_length=50, description="slug:cluster of other interests; slug:none."),
        ] = None,
        decided_by: Annotated[str | None, Query(max_length=20)] = None,
        min_confidence: Annotated[float, Query(ge=0, le=1)] = 0.0,
        max_confidence: Annotated[float, Query(ge=0, le=1)] = 1.0,
    ) -> None:
        self.cluster, self.sort, self.q, self.within = cluster, sort, q, tuple(within or ())
        self.decided_by, self.least, self.most = decided_by, min_confidence, max_confidence

    def key(self) -> tuple[object, ...]:
        return (self.cluster, self.sort, self.q, self.within, self.decided_by, self.least, self.most)

    def wanted(self, run: ShownRun) -> Wanted:
        """Raises NotThere for an interest or a cluster that is none."""
        others: list[tuple[ClusterColumns, int | None]] = []
        for pair in self.within:
            match = _WITHIN.fullmatch(pair)
            if match is None:
                raise no_such("another interest's cluster is written slug:id, or slug:none", pair)
            columns = run.columns(match[1])
            others.append((columns, None if match[2] == "none" else int(match[2])))
        number = int(self.cluster) if self.cluster not in (None, "none") else None
        return Wanted(
            number, self.cluster == "none", self.sort, self.q, tuple(others), self.decided_by, self.least, self.most
        )


FiltersDep: TypeAlias = Annotated[Filters, Depends()]


def keys_of(images: ImageColumns, ids: tuple[str, ...]) -> list[str]:
    """The page's ids of these images; those that are gone are left out."""
    found = []
    for image_id in ids:
        try:
            found.append(images.keys[images.row(image_id)])
        except NotThere:
            continue
    return found
