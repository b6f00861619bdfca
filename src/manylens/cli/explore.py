"""`manylens suggest`, `manylens preview`, `manylens cross`: questions before a run and after it."""

from __future__ import annotations

from pathlib import Path

import click

from manylens.cli.options import PLACE, check_interests, model_options, settings_from
from manylens.settings import ModelOptions, listed_names

_PICTURES = click.IntRange(2, 1000)
_EXCLUDE = click.option(
    "--exclude", multiple=True, metavar="GLOB", help="Leave out these files or folders, as .gitignore writes them."
)
_INCLUDE = click.option("--include", multiple=True, metavar="GLOB", help="Take only these: --include '*.jpg'.")
_OUT = click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Run folder that keeps what is found out. [default: <FOLDER's name>-manylens]",
)
_CALLS = click.option("--budget-calls", type=int, metavar="N", help="Hard limit on all model calls. [default: none]")


@click.command(
    short_help="Suggest what to sort a folder by.",
    help="""Suggest up to ten interests that FOLDER could be sorted by, with the groups that a sample falls into.

    Only a sample of the pictures is read, spread over the folder. nano, the built-in model, tries the interests that it
    was taught and that fit these pictures, and keeps those that it understands and that split the sample. A larger
    --model describes each picture of the sample from three sides and then proposes interests in its own words.

    Each suggestion comes with the command that sorts all pictures by it. Answers are kept in --out: asking again costs
    nothing, and a run by a suggested interest has that much less to ask.

    \b
    Examples:
      manylens suggest photos/
      manylens suggest photos/ --model qwen2.5vl --base-url http://localhost:11434/v1
    """,
)
@click.argument("folder", type=PLACE)
@_EXCLUDE
@_INCLUDE
@model_options
@_OUT
@click.option("--sample", type=_PICTURES, metavar="N", help="Pictures to look at. [default: 60; of a larger model 20]")
@_CALLS
def suggest(
    folder: str | Path,
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    model: str,
    options: ModelOptions,
    out: Path | None,
    sample: int | None,
    budget_calls: int | None,
) -> None:
    settings = settings_from(budget_calls=budget_calls)
    from manylens import explore, progress
    from manylens.cli import render, render_explore

    with progress.show_progress() as show:
        found = explore.suggest(
            folder,
            exclude=exclude,
            include=include,
            model=model,
            options=options,
            out=out,
            settings=settings,
            sample=sample,
            on_event=show.event,
        )
    render_explore.print_suggestions(render.open_console(), found)


@click.command(
    short_help="Try an interest on 20 pictures first.",
    help="""See on 20 pictures of FOLDER what an interest would make of them, before all are sorted.

    Shows how each picture is described when it is looked at through the interest, the groups that follow, whether the
    model understands the words, and other wordings to try. A run asks for none of these descriptions again; it then
    also asks questions that put right what descriptions get wrong.

    \b
    Examples:
      manylens preview photos/ --by "kind of place"
      manylens preview photos/ --by "color and kind of fruit"
      manylens preview parts/ --by "condition of the part" --into "good, scratched, broken"
    """,
)
@click.argument("folder", type=PLACE)
@click.option("--by", "interest", required=True, metavar="INTEREST", help="What to sort by, in plain words.")
@_EXCLUDE
@_INCLUDE
@model_options
@_OUT
@click.option("--sample", type=_PICTURES, default=20, show_default=True, metavar="N", help="Pictures to look at.")
@click.option("--into", metavar="NAMES", help="The only clusters there may be, as for manylens cluster.")
@click.option(
    "--compound/--as-one",
    "compound",
    default=None,
    help='Whether "color and kind of fruit" is two questions, as for manylens cluster. [default: --compound]',
)
@_CALLS
def preview(
    folder: str | Path,
    interest: str,
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    model: str,
    options: ModelOptions,
    out: Path | None,
    sample: int,
    into: str | None,
    compound: bool | None,
    budget_calls: int | None,
) -> None:
    settings = settings_from(
        budget_calls=budget_calls, into=None if into is None else listed_names(into), compound=compound
    )
    check_interests([interest])
    from manylens import explore, progress
    from manylens.cli import render, render_explore

    with progress.show_progress() as show:
        found = explore.preview(
            folder,
            interest,
            exclude=exclude,
            include=include,
            model=model,
            options=options,
            out=out,
            settings=settings,
            sample=sample,
            on_event=show.event,
        )
    render_explore.print_preview(render.open_console(), found)


@click.command(
    short_help="Which clusters of one interest go with which of another.",
    help="""Count the files in OUT by two of its interests: which places go with which activities, and how closely.

    Says in words and by Cramér's V (0: nothing to do with each other, 1: one follows from the other) how closely the
    two go together, and which pairs stand out. Without names, all pairs of the run's interests are compared, and the
    table of the closest is shown. Asks no model.

    \b
    Examples:
      manylens cross photos-manylens place activity
      manylens cross photos-manylens
    """,
)
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("interests", nargs=-1, metavar="[INTEREST INTEREST]")
def cross(out: Path, interests: tuple[str, ...]) -> None:
    if len(interests) not in (0, 2):
        raise click.UsageError(f"two interests of the run are compared, got {len(interests)}: name both, or none")
    from manylens.cli import render, render_explore
    from manylens.explore import closest, interests_of, table_of
    from manylens.results.cross import cross as cross_tables

    console = render.open_console()
    tables = interests_of(out)
    if interests:
        render_explore.print_cross(console, cross_tables(*(table_of(tables, interest) for interest in interests)))
        return
    compared = closest(tables)
    render_explore.print_cross(console, compared[0])
    for other in compared[1:]:
        render.say(console, other.sentence)
