"""`manylens demo`: sort the sample collection three ways, compare with the truth, say what that is worth."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import click

from manylens.cli.options import DEFAULTS

DEMO_INTERESTS = ("suit", "rank", "color")

WORTH = (
    "These scores flatter nano, the built-in model: it was trained on other cards drawn by the same program.",
    "Of your own pictures expect less. nano reads English, knows many kinds of picture, and says when it "
    "does not understand an interest; a larger model, named with --model, knows more.",
)


@click.command(
    help="""Sort 312 pictures of playing cards by suit, rank and color.

    Shows what manylens does, on pictures whose truth is known: it prints each clustering, how well it agrees with
    the truth, and where the report is. The truth is used for that comparison only. nano, the built-in model, was
    trained on other cards drawn by the same program, so expect less of other pictures.

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
    help="Folder for the pictures and the results.",
)
def demo(out: Path) -> None:
    from manylens import api, progress
    from manylens.cli import render
    from manylens.cli.sample import LABELS, write_sample
    from manylens.results.evaluate import evaluate_run, read_labels
    from manylens.store.run_folder import RunFolder

    console = render.open_console()
    with RunFolder.open(out):
        pass  # the run comes first: a folder that holds other files is not taken for one
    sample = out / "sample"
    labels = sample / LABELS
    if not labels.is_file():
        write_sample(sample)
    with progress.show_progress() as show:
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
    console.print()
    for line in WORTH:
        render.say(console, line)
    render.say(console, f'Try a folder of your own: {command} cluster FOLDER --by "kind of object"')
