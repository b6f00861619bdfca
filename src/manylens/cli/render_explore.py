"""What the command line prints of suggestions, previews and cross-tables.

In: what `explore` returns. Out: text on standard output. Promise: as that of `render`; tables are bounded, and say what
they leave out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from manylens.cli.render import print_table, say
from manylens.method.compound import parts_of
from manylens.results.cross import UNASSIGNED, CrossTable
from manylens.results.result import Result
from manylens.results.sampled import Group, Part, Preview, Suggestions
from manylens.text import counted, sure_share

if TYPE_CHECKING:
    from rich.console import Console

MOST_GROUPS, MOST_ROWS, MOST_COLUMNS = 6, 15, 7
"""Groups named in a line; rows and columns of a cross-table: what fits in a terminal of usual width."""


def print_suggestions(console: Console, found: Suggestions) -> None:
    if not found:
        console.print()
        say(console, f"No interest of {found.model} splits {_sample(len(found.pictures), found.found)}.")
        say(console, "Say one in your own words: manylens preview tries it; a larger --model knows more.")
        return
    for number, one in enumerate(found, start=1):
        console.print()
        say(console, f"{number:>2}. {one.interest}")
        silent = f"; no answer for {1 - one.answered:.0%}" if one.answered < 0.995 else ""
        say(console, f"    {_listed(one.groups)}{silent}")
        say(console, f"    {one.command}")
    console.print()
    say(console, f"From {_sample(len(found.pictures), found.found)}; a run finds the groups of all of them.")
    if len(found) > 1:
        say(console, f"The first {min(3, len(found))} in one run: {found.command}")
    say(console, _calls(found.calls_asked, found.calls_kept))


def print_preview(console: Console, found: Preview) -> None:
    for part in found.parts:
        _print_part(console, part)
    if len(found.parts) > 1:
        _print_groups(console, f"by {found.interest}", found.combinations)
    for part in found.parts:
        if part.wordings:
            console.print()
            say(console, f'In place of "{part.interest}" you could try:')
            for one in part.wordings:
                about = one.why or ", ".join(one.groups[:MOST_GROUPS]) + (
                    ", ..." if len(one.groups) > MOST_GROUPS else ""
                )
                word = f" ({one.verdict})" if one.verdict else ""
                say(console, f"  {one.interest}{word}: {about}")
    if found.hints:
        console.print()
    for hint in found.hints:
        say(console, hint)
    console.print()
    say(
        console, f"Seen on {_sample(sum(_size(part) for part in found.parts[:1]), found.found)}, by descriptions alone."
    )
    say(console, _calls(found.calls_asked, found.calls_kept))
    say(console, f"Sort all: {found.command}")


def _print_part(console: Console, part: Part) -> None:
    if part.verdict is not None:
        console.print()
        say(console, part.verdict.line)
    by_path = {picture.path: picture for picture in part.pictures}
    rows = []
    for name, paths in [*((group.name, group.pictures) for group in part.groups), ("(no answer)", part.unanswered)]:
        for at, path in enumerate(sorted(paths)):
            seen = by_path[path]
            rows.append((name if at == 0 else "", path, seen.description, sure_share(seen.confidence)))
    rows += [("(failed)", path, reason, "") for path, reason in part.failed]
    columns = {"group": "left", "picture": "left", "described as": "left", "sure": "right"}
    print_table(console, f"by {part.interest}", columns, rows)


def _print_groups(console: Console, title: str, groups: Sequence[Group]) -> None:
    rows = [(group.name, f"{len(group.pictures):,}", ", ".join(group.pictures[:3])) for group in groups]
    print_table(console, title, {"group": "left", "pictures": "right", "for example": "left"}, rows)


def print_cross(console: Console, table: CrossTable) -> None:
    """The largest rows and columns; the rest together."""
    columns, turned = _bounded(table.columns, list(zip(*table.counts, strict=True)), MOST_COLUMNS)
    row_names, counts = _bounded(table.rows, list(zip(*turned, strict=True)), MOST_ROWS)
    rows = [
        (name, *(f"{count:,}" if count else "·" for count in row), f"{sum(row):,}")
        for name, row in zip(row_names, counts, strict=True)
    ]
    heads = [table.row_interest, *columns, "all"]
    print_table(
        console,
        f"{table.row_interest}, by {table.column_interest}",
        {_unique(heads, at): "right" if at else "left" for at in range(len(heads))},
        rows,
    )
    say(console, table.sentence)
    for pair in table.pairs[:3]:
        more = f"{counted(pair.count, 'file')}, {pair.expected:.0f} if it were chance"
        say(console, f"  {pair.row} with {pair.column}: {more}")


def _bounded(
    names: Sequence[str], lines: Sequence[Sequence[int]], most: int
) -> tuple[list[str], list[tuple[int, ...]]]:
    """At most so many lines of a table: the first, then the others together, then the unassigned."""
    shown, counts = list(names), [tuple(line) for line in lines]
    loose = int(bool(shown) and shown[-1] == UNASSIGNED)
    if len(shown) <= most:
        return shown, counts
    first, last = most - 1 - loose, len(shown) - loose
    others = tuple(map(sum, zip(*counts[first:last], strict=True)))
    return [*shown[:first], f"{last - first} others", *shown[last:]], [*counts[:first], others, *counts[last:]]


def print_two(console: Console, result: Result) -> None:
    """Of a run by two interests how these go together: the table where that tells something."""
    parts = {part.slug for one in result.values() for part in parts_of(one.clustering.interest)}
    slugs = {text: one.clustering.interest.slug for text, one in result.items()}
    plain = [text for text in result if slugs[text] in parts or not parts_of(result[text].clustering.interest)]
    if len(plain) != 2:
        return
    table = result.cross(*plain)
    if table.is_telling:
        print_cross(console, table)
    elif table.cramers_v is not None:
        console.print()
        say(console, table.sentence)


def _unique(heads: Sequence[str], at: int) -> str:
    """A heading, told apart from an equal one by blanks: a table keeps its columns by their headings."""
    return heads[at] + "\u200b" * heads[:at].count(heads[at])


def _listed(groups: Sequence[Group]) -> str:
    shown = ", ".join(f"{group.name} {len(group.pictures)}" for group in groups[:MOST_GROUPS])
    rest = len(groups) - MOST_GROUPS
    return f"{shown}, {rest:,} more" if rest > 0 else shown


def _sample(pictures: int, found: int) -> str:
    return counted(found, "picture") if pictures >= found else f"{pictures:,} of {counted(found, 'picture')}"


def _calls(asked: int, kept: int) -> str:
    earlier = f"; {counted(kept, 'answer')} were there already" if kept else ""
    return f"{counted(asked, 'model call')}{earlier}"


def _size(part: Part) -> int:
    return len(part.pictures) + len(part.failed)
