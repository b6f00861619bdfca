"""`manylens demo`: draw a sample collection, sort it three ways, compare with the truth."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from manylens.cli.options import DEFAULTS

DEMO_INTERESTS = ("suit", "rank", "color")


@click.command(
    help="""Draw a sample collection of playing cards and sort it by suit, rank and color.

    Shows what manylens does, on pictures whose truth is known: it prints each clustering, how well it agrees with
    the truth, and where the report is. The truth is used for that comparison only.

    \b
    Examples:
      manylens demo
      manylens demo --out cards
    """
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("manylens-demo"),
    show_default=True,
    help="Folder for the sample and the results.",
)
def demo(out: Path) -> None:
    from manylens import api
    from manylens.cli import progress, render, sample_cards
    from manylens.results.evaluate import evaluate_run, read_labels
    from manylens.store.run_folder import RunFolder

    console = render.open_console()
    with RunFolder.open(out):
        pass  # the run comes first: a folder that holds other files is not taken for one
    sample = out / "sample"
    labels = sample / "labels.csv"
    with progress.show_progress() as show:
        if not labels.is_file():
            sample_cards.write_sample(sample, progress=lambda done, total: show.count("drawing cards", done, total))
        result = api.cluster(sample / "images", DEMO_INTERESTS, out=out, on_event=show.event)
    scores = evaluate_run(out, read_labels(labels), {interest: interest for interest in DEMO_INTERESTS})
    by_interest = {score.interest: score for score in scores}
    for interest, one in result.items():
        render.print_clustering(console, interest, one)
        score = by_interest[interest]
        render.say(
            console,
            f"against the truth: NMI {score.scores.nmi:.3f}, {score.scores.clusters_found} clusters found "
            f"of {score.scores.clusters_true}",
        )
    render.print_end(console, result, DEFAULTS)
    command = "manylens" if shutil.which("manylens") else os.path.relpath(Path(sys.executable).with_name("manylens"))
    render.say(console, f'Your own pictures: {command} cluster FOLDER --by "..."')
