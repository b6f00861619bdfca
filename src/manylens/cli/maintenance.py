"""`manylens doctor`, `verify` and `checkpoint`: is the model fine, is a run folder whole, nano as a checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from manylens.cli.options import model_options
from manylens.errors import StoreError
from manylens.settings import ModelOptions
from manylens.text import counted


@click.command(
    short_help="Say what a model can do here, and what to do about the rest.",
    help="""Say what a model can do here, how fast it is, and what to do about what is missing.

    Asks a model a few small questions about drawn pictures: is the server there, does it know the name and the key,
    does the model see pictures, can it answer in JSON, does it give log-probabilities and embeddings. Stores nothing.
    A key is taken from the environment: OPENAI_API_KEY, or MANYLENS_API_KEY for other servers.

    \b
    Examples:
      manylens doctor
      manylens doctor --model openai:gpt-5-mini
      manylens doctor --model qwen2.5vl --base-url http://localhost:11434/v1
    """,
)
@model_options
def doctor(model: str, options: ModelOptions) -> None:
    from manylens.cli import render
    from manylens.cli.doctor import examine

    diagnosis = examine(model, options)
    console = render.open_console()
    rows = [(finding.what, finding.found, finding.meaning) for finding in diagnosis.findings]
    columns = {"": "left", "here": "left", "what it means": "left"}
    render.print_table(console, f"model {diagnosis.model}", columns, rows)
    if diagnosis.problem is not None:
        raise diagnosis.problem
    rest = (
        "."
        if diagnosis.judges
        else ", for its descriptions: a run tries its choices, and asks no more where they fail."
    )
    render.say(console, f"{diagnosis.model} can be used{rest}")


@click.command(
    help="""Check that the run folder OUT is whole.

    Re-derives the key of every stored answer and checks every row, picture and feature file; says what is damaged.
    With --repair, damaged answers, pictures and features are set aside: the command that made the run then asks or
    reads those again, and nothing else.

    \b
    Examples:
      manylens verify cards-manylens
      manylens verify cards-manylens --repair
    """
)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--repair", is_flag=True, help="Set aside what is damaged, so that the next run makes it anew.")
def verify(out: Path, repair: bool) -> None:
    from manylens.cli import render
    from manylens.store.run_folder import RunFolder

    with RunFolder.open(out, must_exist=True) as run:
        damages = run.verify()
        aside = [damage for damage in damages if damage.can_be_set_aside]
        if repair:
            run.set_aside(aside)
        answers, is_finished = run.extent()
    for damage in damages:
        render.say(render.open_console(), str(damage))
    if repair and aside:
        render.say(render.open_console(), f"Set aside: {counted(len(aside), 'part')}. Run the same command again.")
        damages = [damage for damage in damages if damage not in aside]
    if damages:
        cure = (
            f"manylens verify {out} --repair sets aside what can be made anew"
            if aside and not repair
            else ("the command that made the run writes its results anew; else restore the folder from a copy")
        )
        raise StoreError(
            f"every part of a run folder is whole, of {out} {len(damages):,} "
            + ("is damaged" if len(damages) == 1 else "are damaged"),
            cure,
        )
    if repair and aside:
        return
    state = "" if is_finished else ", no results yet: the command that began the run goes on with it"
    render.say(render.open_console(), f"Everything is whole ({counted(answers, 'answer')}{state}).")


@click.command(
    help="""Write nano as a Hugging Face checkpoint into FOLDER.

    Some 290 MB, a stock architecture that transformers, peft and servers read: to tune it, to serve it, or to compare
    backends. It is asked in nano's own words where it is used as hf:FOLDER, or served under a name that begins with
    manylens-nano. Needs pip install 'manylens[local]'.

    \b
    Examples:
      manylens checkpoint manylens-nano
      manylens cluster photos/ --by "kind of place" --model hf:manylens-nano
    """
)
@click.argument("folder", type=click.Path(path_type=Path))
def checkpoint(folder: Path) -> None:
    from manylens.cli import render
    from manylens.models.registry import write_checkpoint

    write_checkpoint(folder)
    render.say(render.open_console(), f"{folder}: --model hf:{folder} reads it.")
