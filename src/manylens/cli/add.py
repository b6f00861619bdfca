"""`manylens add`: pictures that came later join the clusterings of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from manylens.cli.options import engine_option, model_options, settings_from
from manylens.settings import ModelOptions

if TYPE_CHECKING:
    from manylens.engine import Engine


@click.command(
    short_help="Add pictures that came into FOLDER since it was sorted.",
    help="""Add the pictures that came into FOLDER since it was sorted to the clusterings in OUT.

    Each new picture is looked at once for every interest of the run. Most need no question: earlier pictures that were
    described alike say where they belong. Old placements, names and ids stay; new clusters may appear; pictures that
    are gone leave their clusters. Say the same --model as the run had, if it was not nano.

    \b
    Examples:
      manylens add photos-manylens photos/
      manylens add photos-manylens photos/ --budget-calls 200
    """,
)
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@model_options
@engine_option
@click.option("--budget-calls", type=int, metavar="N", help="Hard limit on the calls of the addition. [default: none]")
@click.option("--max-failed", type=float, metavar="S", help="Share of calls that may finally fail.")
def add(
    out: Path,
    folder: Path,
    model: str,
    options: ModelOptions,
    engine: Engine,
    budget_calls: int | None,
    max_failed: float | None,
) -> None:
    from manylens import api, progress
    from manylens.cli import render

    settings = settings_from(budget_calls=budget_calls, max_failed=max_failed)
    with progress.show_progress() as show:
        result = api.add(
            out, folder, model=model, options=options, engine=engine, settings=settings, on_event=show.event
        )
    console = render.open_console()
    for interest, one in result.items():
        render.print_clustering(console, interest, one)
    render.print_end(console, result, settings)
    if result.problem is not None:
        raise result.problem
