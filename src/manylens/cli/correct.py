"""`manylens correct`: what a person says is wrong; it outranks the model and survives every later run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manylens.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from manylens.correcting.corrector import Change

_SHOWN_MOVES = 20


@click.command(
    short_help="Say what is wrong with a clustering; it holds in every later run.",
    help="""Say what is wrong with a clustering of the run in OUT. It outranks the model, and holds in every later run.

    CORRECTIONS is a CSV file, a row for each thing that you say:

    \b
    a.jpg,hearts            the picture belongs to the cluster (its name, or #7, its number)
    a.jpg,not,hearts        it does not
    a.jpg,new,jokers        it belongs to a new cluster of this name
    a.jpg,yes,              it is right where it is
    a.jpg,none,             it belongs to no cluster
    hearts,rename,Herz      the cluster is called otherwise
    hearts,merge,diamonds   the cluster is part of another one

    A first row image,cluster or image,not,cluster may stand above them. All rows of a file are one step: they are
    taken together or not at all, and --undo takes them back together. Nothing is asked of a model.

    \b
    Examples:
      manylens correct cards-manylens corrections.csv --by suit
      manylens correct cards-manylens corrections.csv --by suit --dry-run
      manylens correct cards-manylens --from-edited --by suit
      manylens correct cards-manylens --undo --by suit
      manylens correct cards-manylens --list
    """,
)
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("corrections", type=click.Path(path_type=Path), required=False)
@click.option("--by", metavar="INTEREST", help="The interest they are about. [default: the only one]")
@click.option("--from-edited", is_flag=True, help="Take the changes that you made in assignments.csv.")
@click.option("--undo", is_flag=True, help="Take the last step back; again, the one before.")
@click.option("--redo", is_flag=True, help="Say again what --undo took back.")
@click.option("--list", "is_list", is_flag=True, help="List what was said, and what of it is undone.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and keep nothing.")
def correct(
    out: Path,
    corrections: Path | None,
    by: str | None,
    from_edited: bool,
    undo: bool,
    redo: bool,
    is_list: bool,
    dry_run: bool,
) -> None:
    from manylens.cli import render
    from manylens.correcting import door

    chosen = [name for name, said in (
        ("CORRECTIONS", corrections is not None), ("--from-edited", from_edited), ("--undo", undo), ("--redo", redo),
        ("--list", is_list),
    ) if said]  # fmt: skip
    if len(chosen) != 1:
        raise click.UsageError(
            "one thing at a time: a file of corrections, --from-edited, --undo, --redo or --list, got "
            + (" and ".join(chosen) or "none")
        )
    if dry_run and (undo or redo or is_list):
        raise click.UsageError(f"--dry-run is for corrections, got {chosen[0]}: leave it out")
    console = render.open_console()

    def notify(text: str) -> None:
        click.echo(text, err=True)

    if is_list:
        for text in door.list_steps(out, by):
            render.say(console, text)
    elif undo or redo:
        change = (door.undo if undo else door.redo)(out, by, notify)
        if change is None:
            render.say(console, f"Nothing to {'undo' if undo else 'redo'}.")
        else:
            _show(console, change, "Taken back" if undo else "Said again")
    elif from_edited:
        changes = door.correct_from_edited(out, by, dry_run=dry_run, notify=notify)
        for change in changes:
            _show(console, change, "Would be taken" if dry_run else "Taken")
        if not changes:
            render.say(console, "The edited file moves no picture.")
    else:
        assert corrections is not None
        change = door.correct_from_file(out, by, corrections, dry_run=dry_run, notify=notify)
        _show(console, change, "Would be taken" if dry_run else "Taken")


def _show(console: Console, change: Change, verb: str) -> None:
    from manylens.cli import render

    before = {cluster.id: cluster.name for cluster in change.before.clusters}
    after = {cluster.id: cluster.name for cluster in change.after.clusters}
    names = before | after
    renamed = [number for number in before if number in after and before[number] != after[number]]
    parts = [counted(len(change.moved), "picture is elsewhere now", "pictures are elsewhere now")]
    parts += [counted(len(renamed), "cluster is called otherwise", "clusters are called otherwise")] if renamed else []
    number = "" if change.step is None else f" step {change.step.number}"
    render.say(console, f"{verb}{number}: {', '.join(parts)}.")
    for cluster in renamed:
        render.say(console, f"  {_name(before, cluster)} is called {_name(after, cluster)}")
    flows: dict[tuple[int | None, int | None], int] = {}
    for one in change.moved:
        flows[one.before, one.after] = flows.get((one.before, one.after), 0) + 1
    for (came, left), many in sorted(flows.items(), key=lambda flow: -flow[1])[:_SHOWN_MOVES]:
        is_new = " (new)" if left is not None and left not in before else ""
        render.say(console, f"  {many:,} from {_name(names, came)} to {_name(names, left)}{is_new}")
    if len(flows) > _SHOWN_MOVES:
        render.say(console, f"  and {len(flows) - _SHOWN_MOVES:,} more moves")
    for place, many in _stayed(change).items():
        render.say(console, f"  {many:,} said to be right in {_name(names, place)}")
    if gone := [number for number in before if number not in after]:
        render.say(console, f"  no more: {', '.join(_name(before, number) for number in gone)}")
    estimate = change.after.estimate
    if estimate is not None:
        render.say(console, f"Misplaced, by estimate: {estimate.share:.1%} of the pictures in clusters.")


def _stayed(change: Change) -> Counter[int | None]:
    """How many pictures a person left where they were, by their cluster."""
    was = {a.image_id: a for a in change.before.assignments}
    return Counter(
        a.cluster
        for a in change.after.assignments
        if a.decided_by == "person"
        and (before := was.get(a.image_id)) is not None
        and (before.cluster, before.decided_by == "person") == (a.cluster, False)
    )


def _name(names: dict[int, str], cluster: int | None) -> str:
    from manylens.text import shown_name

    return "no cluster" if cluster is None else f'"{shown_name(names[cluster])}"'
