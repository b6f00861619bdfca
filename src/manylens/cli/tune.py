"""`manylens tune`: teach a small checkpoint by a larger model's answers."""

from __future__ import annotations

from pathlib import Path

import click

from manylens.cli.options import PLACE, TUNING, check_interests, choose_files, teacher_options
from manylens.errors import UsageError
from manylens.settings import ModelOptions, TuneSettings
from manylens.text import counted


@click.command(
    short_help="Teach a small checkpoint a kind of picture by a larger model's answers.",
    help="""Tune a checkpoint on the pictures in FOLDER, by what a larger model says of a few of them.

    The teacher gets at most --teacher-calls calls, over all interests: 90% describe pictures drawn at random, 5% judge
    pairs, 5% judge whether a picture belongs with a group. A classifier that learned its answers labels the
    other pictures; the student learns from both (LoRA), until the loss on held-out answers stops falling. You need no
    labels.

    The teacher's answers and the adapter go to --out. The same command with the same --out continues a run that was
    interrupted, and asks nothing twice. A GPU helps: on two cores, a step takes ten seconds and more. --device and
    --image-px apply to teacher and student, the other model options to the teacher only. nano cannot be tuned. Needs
    pip install 'manylens[tune]'.

    \b
    Examples:
      manylens tune photos/ --by "kind of place" --student hf:FOLDER --teacher openai:gpt-5-mini \\
        --teacher-calls 300 --out tuned
      manylens cluster photos/ --by "kind of place" --model hf:FOLDER --adapter tuned/adapter
    """,
)
@click.argument("folder", type=PLACE)
@click.option(
    "--by",
    "interests",
    multiple=True,
    required=True,
    metavar="INTEREST",
    help="What to describe the pictures by, in plain words. May be given several times.",
)
@choose_files
@teacher_options
@click.option(
    "--teacher-calls",
    type=click.IntRange(1),
    required=True,
    metavar="N",
    help="Hard limit on the calls to the teacher, over all interests.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the answers and the result.")
@click.option(
    "--student", required=True, metavar="NAME", help="The checkpoint that learns: hf:FOLDER, or hf:ORG/NAME of the hub."
)
@click.option("--steps", type=int, metavar="N", help=f"Steps of training, at most. [default: {TUNING.steps}]")
@click.option("--batch", type=int, metavar="N", help=f"Pictures that one step learns from. [default: {TUNING.batch}]")
@click.option("--seed", type=int, help=f"Seed of all randomness. [default: {TUNING.seed}]")
def tune(
    folder: str | Path,
    interests: tuple[str, ...],
    exclude: tuple[str, ...],
    include: tuple[str, ...],
    options: ModelOptions,
    teacher: str,
    teacher_calls: int,
    out: Path,
    student: str,
    steps: int | None,
    batch: int | None,
    seed: int | None,
) -> None:
    from manylens import api, progress
    from manylens.cli import render

    check_interests(interests)
    given = {"steps": steps, "batch": batch, "seed": seed}
    said = {name: number for name, number in given.items() if number is not None}
    try:
        settings = TuneSettings(**said)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    with progress.show_progress() as show:
        result = api.tune(
            folder,
            interests,
            teacher=teacher,
            teacher_calls=teacher_calls,
            out=out,
            student=student,
            exclude=exclude,
            include=include,
            options=options,
            settings=settings,
            on_event=show.event,
        )
    console = render.open_console()
    losses = dict(result.losses)
    failed = f", {result.failed:,} failed" if result.failed else ""
    render.say(console, f"The teacher was asked {counted(result.calls, 'time')}{failed}")
    render.say(
        console,
        f"Loss on its held-out answers: {losses[0]:.3f} before, {losses[result.best_step]:.3f} after "
        f"{result.best_step:,} of {len(result.learned):,} steps, which are kept",
    )
    if not result.best_step:
        render.say(console, "Tuning made nothing better: the adapter changes nothing. More calls may help.")
    render.say(console, f"--model {result.student} --adapter {result.adapter} uses it.")
