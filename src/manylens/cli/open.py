"""`manylens open`: the page of a run, in the browser."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    "open",
    short_help="Show a run in the browser, and correct it there.",
    help="""Show the run in PLACE in the browser: look at its clusters, correct them, ask for more.

    PLACE is the folder with the results of an earlier run, or a folder of pictures to begin with: the page then asks
    what to sort by, and the results go to --out. With OTHER, another run folder, the two can be compared.

    The page is served on this computer alone, at an address with a secret in it; --host opens it to others. It runs
    until Ctrl-C; what was begun from the page goes on, and all of it is kept in the run folder.

    \b
    Examples:
      manylens open photos-manylens
      manylens open photos/
      manylens open photos-manylens photos-with-another-model
      manylens open photos-manylens --read-only
    """,
)
@click.argument("place", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), help="For a folder of pictures: where the results go.")
@click.option("--read-only", is_flag=True, help="Show, and change nothing.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="N", help="Port to listen at. [default: 8672 or so]")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Who may come: this computer.")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
def open_page(
    place: Path, other: Path | None, out: Path | None, read_only: bool, port: int | None, host: str, no_browser: bool
) -> None:
    from manylens.web.server import serve, show

    run = show(place, other, out, read_only=read_only)
    serve(run, host=host, port=port, browse=not no_browser, say=click.echo)
