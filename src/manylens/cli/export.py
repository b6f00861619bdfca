"""`manylens export`: a run's clusters in the forms that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import click

from manylens.cli.options import PLACE

_SHOWN_STEPS = 20


@click.command(
    help="""Write what the run in OUT found in a form that other programs read.

    \b
    parquet  one table: every file with every interest's cluster, name, confidence and embedding
    csv      the same without embeddings, for spreadsheets;  json: for programs
    hf       a Hugging Face dataset with the pictures in it
    fiftyone a FiftyOne dataset with embeddings and saved views; with --dest its form on disk
    coco     COCO's JSON: a category for each cluster, its interest the supercategory
    xmp      keywords in XMP side-cars for Lightroom (raw files), digiKam and Immich
    folders  the pictures in a folder for each cluster

    Nothing is asked of a model, no picture is changed, and nothing is overwritten but an earlier export in
    OUT/exports. Folders are made of copies, of links, or by moving the files themselves: --preview says what would go
    where, and --undo takes all of it back. parquet, hf and fiftyone need pip
    install 'manylens[parquet]', 'manylens[hf]', 'manylens[fiftyone]'.

    \b
    Examples:
      manylens export photos-manylens --to csv
      manylens export photos-manylens --to xmp --preview
      manylens export photos-manylens --to folders --dest sorted --by "kind of object"
      manylens export photos-manylens --to folders --dest sorted --by "kind of object" --mode move
      manylens export photos-manylens --to folders --dest sorted --undo
      manylens export photos-manylens --to csv --dest some.csv --only chosen.txt
    """
)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--to",
    required=True,
    type=click.Choice(["parquet", "hf", "fiftyone", "csv", "json", "folders", "xmp", "coco"]),
    help="The form to write.",
)
@click.option(
    "--dest",
    type=click.Path(path_type=Path),
    help="The file or folder to write. [default: in OUT/exports; xmp: beside the pictures; folders: must be said]",
)
@click.option("--by", metavar="INTEREST", help="This interest alone. [default: all that OUT holds]")
@click.option(
    "--only",
    type=click.File("r", encoding="utf-8-sig"),
    metavar="FILE",
    help="These pictures alone: a text file with a path, as in the tables, on each line; - is standard input.",
)
@click.option("--folder", type=PLACE, help="Where the pictures are, if they were moved.")
@click.option(
    "--mode",
    type=click.Choice(["copy", "hardlink", "symlink", "move"]),
    help="How files get into folders. [default: copy]",
)
@click.option("--preview", is_flag=True, help="folders, xmp: say what would be done, and do nothing.")
@click.option("--undo", is_flag=True, help="folders, xmp: take back what an earlier export did.")
def export(
    out: Path,
    to: str,
    dest: Path | None,
    by: str | None,
    only: TextIO | None,
    folder: str | Path | None,
    mode: str | None,
    preview: bool,
    undo: bool,
) -> None:
    from manylens.cli import render
    from manylens.errors import StoreError
    from manylens.results.exports import export_run
    from manylens.text import counted, shown_name

    chosen = None if only is None else [line for line in only.read().splitlines() if line]
    done = export_run(out, to, dest=dest, folder=folder, by=by, only=chosen, mode=mode, preview=preview, undo=undo)
    console = render.open_console()
    for step in done.steps[:_SHOWN_STEPS]:
        render.say(console, shown_name(step))
    if len(done.steps) > _SHOWN_STEPS:
        render.say(console, f"... and {len(done.steps) - _SHOWN_STEPS:,} more")
    for path, reason in done.left[:_SHOWN_STEPS]:
        render.say(console, shown_name(f"{path}: {reason}"))
    if done.unplaced:
        render.say(console, f"In no cluster, and left where they are: {counted(done.unplaced, 'file')}.")
    what = "Nothing is done yet" if preview else "Taken back" if undo else "Written"
    render.say(console, shown_name(f"{what}: {counted(done.files, 'file')}, {done.path}"))
    if done.left and not preview:
        raise StoreError(
            f"an export handles every file, {counted(len(done.left), 'was', 'were')} left alone",
            "see the reasons above; the same command tries again",
        )
