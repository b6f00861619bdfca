"""`manylens cluster`: sort a folder by one interest or several; with --dry-run, say what it would take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from manylens.cli.options import (
    DEFAULTS,
    PLACE,
    check_interests,
    choose_files,
    engine_option,
    gone,
    model_options,
    settings_from,
)
from manylens.settings import CALLS_PER_PICTURE, ModelOptions, listed_names

if TYPE_CHECKING:
    from manylens.engine import Engine


@click.command(
    help="""Sort the pictures in FOLDER by one interest or several.

    An interest is said in plain words: "suit", "color of the object", "kind of place". Give --by several times to
    sort the same pictures several ways in one run; "color and kind of fruit" sorts by each of the two and by both.
    nano, the built-in model, reads an interest in English; it knows objects, places, rooms, weather, actions, moods,
    colors, kinds and quality of pictures and more, and says when it does not understand: it then groups by look. A
    larger --model knows more. No interest in mind? See manylens suggest; manylens preview tries one on 20 pictures.

    FOLDER may also be a zip or tar archive, a CSV, text or Parquet file with pictures, paths or addresses, or an
    address: https://host/list.txt, s3://bucket/photos/ (pip install 'manylens[remote]').

    Results go to the folder --out: report.html to look at; and, per interest, assignments.csv (which picture is in
    which cluster, with what confidence and why), clusters.json, summary.json and vocabulary.json. Pictures are only
    read. The same command with the same --out continues a run that was interrupted, and asks nothing twice.

    \b
    Examples:
      manylens cluster photos/ --by "color of the object"
      manylens cluster cards/ --by suit --by rank --out cards-sorted
      manylens cluster photos/ --by "kind of object" --dry-run
      manylens cluster photos/ --by "kind of object" --level coarse
      manylens cluster parts/ --by "condition of the part" --into "good, scratched, broken"
      manylens cluster photos/ --by "kind of object" --budget-calls 500
      manylens cluster photos/ --by "kind of place" --model qwen2.5vl --base-url http://localhost:11434/v1
    """
)
@click.argument("folder", type=PLACE)
@click.option(
    "--by",
    "interests",
    multiple=True,
    required=True,
    metavar="INTEREST",
    help="What to sort by, in plain words (nano reads English). May be given several times.",
)
@choose_files
@model_options
@engine_option
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results. [default: <FOLDER's name>-manylens]"
)
@click.option("--seed", type=int, help=f"Seed of all randomness. [default: {DEFAULTS.seed}]")
@click.option(
    "--tau",
    type=float,
    help=f"Edges of the similarity graph below it are dropped; in (0, 1). [default: {DEFAULTS.tau}]",
)
@gone("--audit-share", "--effort says how much is asked: pass --effort max in place of --audit-share 1")
@click.option(
    "--effort",
    type=click.Choice(list(CALLS_PER_PICTURE)),
    metavar="HOW",
    help="low, normal, high or max: one corrected picture may cost 3, 7, 15 or 60 questions. "
    f"[default: {DEFAULTS.effort}]",
)
@click.option(
    "--level",
    type=click.Choice(["coarse", "medium", "fine"]),
    metavar="HOW",
    help="coarse, medium or fine clusters; changing it on a finished run asks nothing about pictures. "
    f"[default: {DEFAULTS.level}]",
)
@click.option(
    "--groups", "n_clusters", type=int, metavar="N", help="About this many clusters. [default: as many as are found]"
)
@click.option(
    "--into",
    metavar="NAMES",
    help='The only clusters there may be: --into "good, defective"; what fits none stays unassigned.',
)
@click.option(
    "--compound/--as-one",
    "compound",
    default=None,
    help='"color and kind of fruit" is sorted by each of the two and by both; --as-one: as one question. '
    '--by "breed + pose" says that there are two. [default: --compound]',
)
@click.option(
    "--budget-calls",
    type=int,
    metavar="N",
    help="Hard limit on all model calls of the run; descriptions come first. [default: none]",
)
@click.option(
    "--budget-usd",
    type=float,
    metavar="X",
    help="Hard limit on what the run costs; needs the prices. [default: none]",
)
@click.option("--price-in", type=float, metavar="X", help="US dollars per million tokens that are sent.")
@click.option("--price-out", type=float, metavar="X", help="US dollars per million tokens that come back.")
@click.option(
    "--max-failed",
    type=float,
    metavar="S",
    help=f"Share of calls that may fail for good before the exit code is 1. [default: {DEFAULTS.max_failed}]",
)
@click.option(
    "--links",
    is_flag=True,
    help="Also make a folder of links per cluster; without it, those of an earlier run are removed.",
)
@click.option("--open", "is_opened", is_flag=True, help="Watch it in the browser, and correct it there.")
@click.option(
    "--dry-run", is_flag=True, help="Say what it will take: calls, tokens, minutes, money; ask and write nothing."
)
def cluster(
    folder: str | Path,
    interests: tuple[str, ...],
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    model: str,
    options: ModelOptions,
    engine: Engine,
    out: Path | None,
    seed: int | None,
    tau: float | None,
    effort: str | None,
    level: str | None,
    n_clusters: int | None,
    into: str | None,
    compound: bool | None,
    budget_calls: int | None,
    budget_usd: float | None,
    price_in: float | None,
    price_out: float | None,
    max_failed: float | None,
    links: bool,
    is_opened: bool,
    dry_run: bool,
) -> None:
    settings = settings_from(
        seed=seed,
        tau=tau,
        effort=effort,
        level=level,
        n_clusters=n_clusters,
        into=None if into is None else listed_names(into),
        compound=compound,
        budget_calls=budget_calls,
        budget_usd=budget_usd,
        price_in=price_in,
        price_out=price_out,
        max_failed=max_failed,
    )
    check_interests(interests)
    from manylens import api, progress
    from manylens.cli import render, render_explore

    console = render.open_console()
    if dry_run:
        planned = api.plan(
            folder,
            interests,
            exclude=exclude,
            include=include,
            model=model,
            options=options,
            settings=settings,
            out=out or api.default_out(folder),
        )
        render.print_plan(console, planned, options, settings)
        return
    if is_opened:
        from manylens.web.server import serve_job

        serve_job(
            folder,
            interests,
            exclude=exclude,
            include=include,
            model=model,
            options=options,
            out=out or api.default_out(folder),
            settings=settings,
            links=links,
            say=click.echo,
        )
        return
    with progress.show_progress() as show:
        result = api.cluster(
            folder,
            interests,
            exclude=exclude,
            include=include,
            model=model,
            options=options,
            engine=engine,
            out=out,
            settings=settings,
            links=links,
            on_event=show.event,
        )
    for interest, one in result.items():
        render.print_clustering(console, interest, one)
    render_explore.print_two(console, result)
    render.print_end(console, result, settings)
    if result.problem is not None:
        raise result.problem
