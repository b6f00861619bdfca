"""`manylens evaluate`: compare a finished run with labels."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    help="""Compare the clusterings in OUT with known labels.

    Prints normalised mutual information (NMI), Rand index (RI), adjusted Rand index (ARI), accuracy under the best
    matching (ACC), and the number of clusters found against the true one. An unassigned picture counts as a cluster
    of its own, so leaving out what was placed rightly lowers every score.

    labels.csv has a column `file` (or `image`) and one column per attribute. An interest is compared with the column
    of its name, or the one whose name occurs in it; where there is none, with every column that has no other interest's
    name (nor is called split, subset, fold or partition). "color and kind of fruit" is compared with the columns of its
    two parts together. --column says otherwise, and leaves out the interests that have no column.

    \b
    Examples:
      manylens evaluate cards-manylens --labels labels.csv
      manylens evaluate cards-manylens --labels labels.csv --column "value on the card=rank"
    """
)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--labels", required=True, type=click.Path(path_type=Path), help="CSV file: file,<attribute>,...")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="INTEREST=COLUMN",
    help="Compare this interest with this column. May be given several times.",
)
def evaluate(out: Path, labels: Path, columns: tuple[str, ...]) -> None:
    from manylens.cli import render
    from manylens.results.evaluate import evaluate_run, read_labels

    asked: dict[str, str] = {}
    for pair in columns:
        interest, equals, column = pair.rpartition("=")
        if not (interest and equals and column):
            raise click.UsageError(f'--column takes INTEREST=COLUMN, got {pair!r}: say --column "suit=card_suit"')
        if interest.strip() in asked:
            raise click.UsageError(
                f"--column names an interest once, {interest.strip()!r} is there twice: leave one out"
            )
        asked[interest.strip()] = column.strip()
    scores = evaluate_run(out, read_labels(labels), asked)
    console = render.open_console()
    render.print_scores(console, scores)
