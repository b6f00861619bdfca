"""`manylens review`: what a person should look at first."""

from __future__ import annotations

from pathlib import Path

import click

_OPTIONS_SHOWN = 3


@click.command(
    short_help="List the pictures that are least certain, the most useful first.",
    help="""List the pictures of the run in OUT about which your answer is expected to put most right.

    With --to they become a file of corrections in which every row says "yes". Look at the pictures, leave the rows that
    are right, write the right cluster into the others (a.jpg,,spades), delete what you do not know, and give the file
    to `manylens correct`. Then ask again: an answer counts for pictures that are like it, too. Asks no model.

    \b
    Examples:
      manylens review cards-manylens --by suit
      manylens review cards-manylens --by suit --limit 50 --to review.csv
      manylens correct cards-manylens review.csv --by suit
    """,
)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--by", metavar="INTEREST", help="The interest. [default: the only one]")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="So many pictures.")
@click.option("--to", type=click.Path(path_type=Path), help="Write them to this file, to be edited.")
def review(out: Path, by: str | None, limit: int, to: Path | None) -> None:
    from manylens.cli import render
    from manylens.correcting import door

    found, rows = door.review_rows(out, by, limit)
    console = render.open_console()
    if to is not None:
        door.write_review(to, rows)
        render.say(console, f"{len(rows):,} pictures written to {to}: edit it, then manylens correct {out} {to}")
    else:
        columns = {"picture": "left", "is in": "left", "doubt": "right", "alike": "right", "or in": "left"}
        shown = [
            (
                row.path,
                row.cluster or "no cluster",
                f"{row.doubt:.0%}",
                f"{row.alike:,}",
                ", ".join([name for name in row.options if name != row.cluster][:_OPTIONS_SHOWN]),
            )
            for row in rows
        ]
        render.print_table(console, "least certain first", columns, shown)
    if found.estimate is not None:
        render.say(console, f"Misplaced, by estimate: {found.estimate.share:.1%} of the pictures in clusters.")
