"""`manylens resort`: sort again what corrections touch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manylens.cli.options import PLACE, run_model_options, settings_from
from manylens.text import counted, shown_name

if TYPE_CHECKING:
    from manylens.correcting.resort import Resorted

_SHOWN_FLOWS = 20


@click.command(
    short_help="Sort again what your corrections touch.",
    help="""Sort again what your corrections of the run in OUT touch: they teach what is alike.

    Pictures described like one that you moved, and those that look misplaced in the light of what you said, are put to
    the model again. Without an option nothing is asked: it says what is expected to move and to be asked. --ask asks
    and says what would move; answers are stored. --apply also takes the moves over, as one step that `manylens correct
    --undo` takes back. What you placed yourself never moves. Without --model it is the run's own that is asked.

    \b
    Examples:
      manylens resort cards-manylens --by suit
      manylens resort cards-manylens --by suit --ask --budget-calls 100
      manylens resort cards-manylens --by suit --apply
    """,
)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--by", metavar="INTEREST", help="The interest. [default: the only one]")
@click.option("--ask", is_flag=True, help="Ask the model, and say what would move.")
@click.option("--apply", "is_applied", is_flag=True, help="Ask, and take the moves over.")
@click.option("--folder", type=PLACE, help="Where the pictures are, if they were moved.")
@run_model_options
@click.option("--budget-calls", type=int, metavar="N", help="Hard limit on calls. [default: none]")
def resort(
    out: Path,
    by: str | None,
    ask: bool,
    is_applied: bool,
    folder: str | Path | None,
    model: str | None,
    options: dict[str, Any],
    budget_calls: int | None,
) -> None:
    from manylens import api, progress
    from manylens.cli import render
    from manylens.correcting import door

    settings = settings_from(budget_calls=budget_calls)
    with progress.show_progress() as show:
        done = api.resort(
            out,
            by,
            ask=ask,
            apply=is_applied,
            folder=folder,
            model=model,
            options=options,
            settings=settings,
            on_event=show.event,
        )
    console = render.open_console()
    for line in _lines(done, door.cluster_names(out, by), is_applied):
        render.say(console, line)


def _lines(done: Resorted, names: dict[int, str], is_applied: bool) -> list[str]:
    low, high = done.calls
    pictures = counted(len(done.moves), "picture")
    if not done.is_asked:
        calls = f"{low:,} to {high:,} questions" if high else "no question"
        lines = [f"Expected to move: {pictures}, with {calls}. --ask asks, --apply takes the moves over."]
        if not done.touched:
            lines = ["Nothing to sort again: no picture was moved by a person."]
    else:
        verb = "Moved" if is_applied else "Would move"
        lines = [f"{verb}: {pictures}, after {counted(high, 'question')}."]
    flows = Counter((one.before, one.after) for one in done.moves)
    for (before, after), many in flows.most_common(_SHOWN_FLOWS):
        source = "no cluster" if before is None else f'"{shown_name(names.get(before, str(before)))}"'
        lines.append(f'  {many:,} from {source} to "{shown_name(names.get(after, str(after)))}"')
    return lines
