"""`manylens add`: pictures that came later join the clusterings of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from manylens.cli.options import PLACE, engine_option, run_model_options, settings_from

if TYPE_CHECKING:
    from manylens.engine import Engine
    from manylens.events import Event
    from manylens.results.result import Result


@click.command(
    short_help="Add pictures that came into FOLDER since it was sorted.",
    help="""Add the pictures that came into FOLDER since it was sorted to the clusterings in OUT.

    Each new picture is looked at once for every interest of the run. Most need no question: earlier pictures that were
    described alike say where they belong. Old placements, names and ids stay; new clusters may appear; pictures that
    are gone leave their clusters. Say the same --model as the run had where it is behind a server.

    \b
    Examples:
      manylens add photos-manylens photos/
      manylens add photos-manylens photos/ --budget-calls 200
      manylens add photos-manylens photos/ --watch
    """,
)
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("folder", type=PLACE)
@run_model_options
@engine_option
@click.option("--budget-calls", type=int, metavar="N", help="Hard limit on the calls of the addition. [default: none]")
@click.option("--max-failed", type=float, metavar="S", help="Share of calls that may finally fail.")
@click.option("--watch", is_flag=True, help="Go on: add what comes into FOLDER until a Ctrl-C.")
def add(
    out: Path,
    folder: str | Path,
    model: str | None,
    options: dict[str, Any],
    engine: Engine,
    budget_calls: int | None,
    max_failed: float | None,
    watch: bool,
) -> None:
    from manylens import api, watching
    from manylens.cli import render
    from manylens.text import shown_name

    settings = settings_from(budget_calls=budget_calls, max_failed=max_failed)
    how: dict[str, Any] = {"model": model, "options": options, "engine": engine, "settings": settings, "progress": True}

    def tell(result: Result) -> None:
        console = render.open_console()
        for interest, one in result.items():
            render.print_clustering(console, interest, one)
        render.print_end(console, result, settings)

    if not watch:
        result = api.add(out, folder, **how)
        tell(result)
        if result.problem is not None:
            raise result.problem
        return
    is_waiting = False

    def begun(event: Event) -> None:
        nonlocal is_waiting
        is_waiting = False

    try:
        for result in watching.watch(out, folder, on_event=begun, **how):
            tell(result)
            is_waiting = True
            click.echo(f"Waiting for changes in {shown_name(str(folder))}; Ctrl-C ends this.", err=True)
    except KeyboardInterrupt:
        if not is_waiting:
            raise
