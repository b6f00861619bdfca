"""The command line: parse, call, exit code; `tables` and `progress` show what comes of it.

In: arguments. Out: tables on standard output, progress and messages on standard error.
Exit codes: 0 done, 1 ended with an error that is explained, 2 wrong usage, 130 interrupted.
Promise: `--help` is quick, because everything heavy is reached through `manylens.<name>`, which imports when used; and
names of files are shown as text, never as markup or terminal codes.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import click

import manylens
from manylens.errors import ManylensError, StoreError, UsageError
from manylens.plural import counted
from manylens.records import (
    CALLS_PER_PICTURE,
    MODEL_OPTION_BOUNDS,
    ModelOptions,
    Settings,
    TuneSettings,
    listed_names,
)

if TYPE_CHECKING:
    import manylens.api
    import manylens.doctor
    import manylens.evaluate
    import manylens.models
    import manylens.progress
    import manylens.report
    import manylens.sample
    import manylens.store
    import manylens.tables

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130

_DEFAULTS, _TUNING = Settings(), TuneSettings()
DEMO_INTERESTS = ("suit", "rank", "color")


_Command: TypeAlias = Callable[..., None]


def _bounds(option: str) -> tuple[int, int]:
    least, most = MODEL_OPTION_BOUNDS[option]
    return int(least), int(most)


def _gone(option: str, cure: str) -> Callable[[_Command], _Command]:
    """An option of earlier versions: hidden, and whoever passes it is told what there is instead."""

    def refuse(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(f"{option} is gone: {cure}")

    return click.option(option, hidden=True, expose_value=False, callback=refuse)


def _about_models(named: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """`named`, the option that names a model, and what can be said about it; the command gets `options` of it."""
    return functools.partial(_with_options, named)


def _with_options(named: Callable[[_Command], _Command], command: _Command) -> _Command:
    defaults = {field.name: field.default for field in dataclasses.fields(ModelOptions)}

    def with_options(**given: Any) -> None:
        said = {name: given.pop(name) for name in defaults}
        command(options=ModelOptions(**{name: value for name, value in said.items() if value is not None}), **given)

    add: list[Callable[[_Command], _Command]] = [
        named,
        click.option(
            "--base-url", metavar="URL", help="Where an OpenAI-compatible server answers: http://localhost:8000/v1."
        ),
        click.option(
            "--image-px",
            type=click.IntRange(*_bounds("image_px")),
            metavar="N",
            help=f"Longest side of the pictures that a server or checkpoint gets. [default: {defaults['image_px']}]",
        ),
        click.option(
            "--concurrency",
            type=click.IntRange(*_bounds("concurrency")),
            metavar="N",
            help=f"Calls that may be under way at once. [default: {defaults['concurrency']}]",
        ),
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(*MODEL_OPTION_BOUNDS["timeout_s"]),
            metavar="SECONDS",
            help=f"How long one call may take. [default: {defaults['timeout_s']:g}]",
        ),
        click.option(
            "--embedding-model", metavar="NAME", help="The server's model that embeds. [default: one that it offers]"
        ),
        click.option("--embedding-url", metavar="URL", help="Where that one answers. [default: --base-url]"),
        click.option(
            "--device",
            metavar="NAME",
            help="Where an hf: checkpoint runs: cpu, cuda, ... [default: a GPU if there is one]",
        ),
        click.option("--adapter", metavar="FOLDER", help="A LoRA adapter for an hf: checkpoint."),
        _gone("--judge-together", "every question is about one picture now, and there are fewer of them: leave it out"),
    ]
    decorated: _Command = functools.wraps(command)(with_options)
    for option in reversed(add):
        decorated = option(decorated)
    return decorated


_model_options = _about_models(
    click.option(
        "--model",
        default="nano",
        show_default=True,
        metavar="NAME",
        help="The model that reads the pictures: nano, nano:FOLDER, hf:FOLDER, openai:NAME, or with --base-url any "
        "NAME a server knows.",
    )
)
_teacher_options = _about_models(
    click.option(
        "--teacher",
        required=True,
        metavar="NAME",
        help="The model that says what it sees: openai:NAME, hf:FOLDER, or with --base-url any NAME a server knows.",
    )
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 an error that is explained, 2 wrong usage, 130 interrupted.",
    help="""Sort a folder of pictures by what you are interested in, said in plain words.

    You name an interest; a multi-modal model reads every picture through it and sorts the collection into named,
    explained clusters. The number of clusters is found; it can be asked for. Another interest, and the same pictures
    fall apart another way. The built-in model, nano, runs on this computer: no key, no GPU, no network.

    \b
    Examples:
      manylens demo
      manylens cluster photos/ --by "color of the object"
      manylens cluster cards/ --by suit --by rank --out cards-sorted
      manylens cluster photos/ --by "kind of object" --dry-run
      manylens evaluate cards-sorted --labels labels.csv
    """,
)
@click.version_option(manylens.__version__, prog_name="manylens", message="%(prog)s %(version)s")
def commands() -> None:
    pass


@commands.command(
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
    console = manylens.tables.open_console()
    with manylens.store.RunFolder.open(out):
        pass  # the run comes first: a folder that holds other files is not taken for one
    sample = out / "sample"
    labels = sample / "labels.csv"
    with manylens.progress.show_progress() as show:
        if not labels.is_file():
            manylens.sample.write_sample(sample, progress=lambda done, total: show.count("drawing cards", done, total))
        result = manylens.api.cluster(sample / "images", DEMO_INTERESTS, out=out, on_event=show.event)
    scores = manylens.evaluate.evaluate_run(
        out, manylens.evaluate.read_labels(labels), {interest: interest for interest in DEMO_INTERESTS}
    )
    by_interest = {score.interest: score for score in scores}
    for interest, one in result.items():
        manylens.tables.print_clustering(console, interest, one)
        score = by_interest[interest]
        manylens.tables.say(
            console,
            f"against the truth: NMI {score.scores.nmi:.3f}, {score.scores.clusters_found} clusters found "
            f"of {score.scores.clusters_true}",
        )
    manylens.tables.print_end(console, result, _DEFAULTS)
    command = "manylens" if shutil.which("manylens") else os.path.relpath(Path(sys.executable).with_name("manylens"))
    manylens.tables.say(console, f'Your own pictures: {command} cluster FOLDER --by "..."')


@commands.command(
    help="""Sort the pictures in FOLDER by one interest or several.

    An interest is said in plain words: "suit", "color of the object", "kind of place". Give --by several times to
    sort the same pictures several ways in one run. nano, the built-in model, knows cards, faces, fruit, flowers,
    everyday objects and their colors; for other interests (places, moods, use, quality) name a larger --model.

    Results go to the folder --out: report.html to look at; and, per interest, assignments.csv (which picture is in
    which cluster, how surely and why), clusters.json, summary.json and vocabulary.json. Pictures are only read. The
    same command with the same --out continues a run that was interrupted, and asks nothing twice.

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
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--by",
    "interests",
    multiple=True,
    required=True,
    metavar="INTEREST",
    help="What to sort by, in plain words (nano reads English). May be given several times.",
)
@_model_options
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for the results. [default: <FOLDER's name>-manylens]"
)
@click.option("--seed", type=int, help=f"Where all randomness comes from. [default: {_DEFAULTS.seed}]")
@click.option(
    "--tau", type=float, help=f"Likeness below it is no edge of the graph; in (0, 1). [default: {_DEFAULTS.tau}]"
)
@_gone("--audit-share", "--effort says how much is asked: pass --effort max in place of --audit-share 1")
@click.option(
    "--effort",
    type=click.Choice(list(CALLS_PER_PICTURE)),
    metavar="HOW",
    help="low, normal, high or max: 3, 7, 15 or 60 calls may be spent to put one picture right. "
    f"[default: {_DEFAULTS.effort}]",
)
@click.option(
    "--level",
    type=click.Choice(["coarse", "medium", "fine"]),
    metavar="HOW",
    help="coarse, medium or fine clusters; another level of a finished run asks nothing about pictures. "
    f"[default: {_DEFAULTS.level}]",
)
@click.option("--groups", "n_clusters", type=int, metavar="N", help="About so many clusters. [default: as are found]")
@click.option(
    "--into",
    metavar="NAMES",
    help='The only clusters there may be: --into "good, defective"; what fits none stays unassigned.',
)
@click.option(
    "--budget-calls",
    type=int,
    metavar="N",
    help="Hard limit on all calls of the run, looks first. [default: none]",
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
    help=f"Share of calls that may finally fail before the exit code is 1. [default: {_DEFAULTS.max_failed}]",
)
@click.option(
    "--links",
    is_flag=True,
    help="Also make a folder of links per cluster; without it, those of an earlier run are removed.",
)
@click.option(
    "--dry-run", is_flag=True, help="Say what it will take: calls, tokens, minutes, money; ask and write nothing."
)
def cluster(
    folder: Path,
    interests: tuple[str, ...],
    model: str,
    options: ModelOptions,
    out: Path | None,
    seed: int | None,
    tau: float | None,
    effort: str | None,
    level: str | None,
    n_clusters: int | None,
    into: str | None,
    budget_calls: int | None,
    budget_usd: float | None,
    price_in: float | None,
    price_out: float | None,
    max_failed: float | None,
    links: bool,
    dry_run: bool,
) -> None:
    settings = _settings(
        seed=seed,
        tau=tau,
        effort=effort,
        level=level,
        n_clusters=n_clusters,
        into=None if into is None else listed_names(into),
        budget_calls=budget_calls,
        budget_usd=budget_usd,
        price_in=price_in,
        price_out=price_out,
        max_failed=max_failed,
    )
    _check_interests(interests)
    console = manylens.tables.open_console()
    if dry_run:
        planned = manylens.api.plan(folder, interests, model=model, options=options, settings=settings)
        held = manylens.store.answers_held(out or manylens.api.default_out(folder))
        manylens.tables.print_plan(console, planned, options, settings, held)
        return
    with manylens.progress.show_progress() as show:
        result = manylens.api.cluster(
            folder,
            interests,
            model=model,
            options=options,
            out=out,
            settings=settings,
            links=links,
            on_event=show.event,
        )
    for interest, one in result.items():
        manylens.tables.print_clustering(console, interest, one)
    manylens.tables.print_end(console, result, settings)


@commands.command(
    help="""Compare the clusterings in OUT with known labels.

    Prints normalised mutual information (NMI), Rand index (RI), adjusted Rand index (ARI), accuracy under the best
    matching (ACC), and the number of clusters found against the true one. An unassigned picture counts as a cluster
    of its own, so leaving out what was placed rightly lowers every score.

    labels.csv has a column `file` (or `image`) and one column per attribute. An interest is compared with the column
    of its name, or the one whose name occurs in it; where there is none, with every column. --column says otherwise,
    and leaves out the interests that have no column.

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
    scores = manylens.evaluate.evaluate_run(out, manylens.evaluate.read_labels(labels), asked)
    console = manylens.tables.open_console()
    manylens.tables.print_scores(console, scores)


@commands.command(
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
@_model_options
def doctor(model: str, options: ModelOptions) -> None:
    diagnosis = manylens.doctor.examine(model, options)
    console = manylens.tables.open_console()
    rows = [(finding.what, finding.found, finding.meaning) for finding in diagnosis.findings]
    columns = {"": "left", "here": "left", "what it means": "left"}
    manylens.tables.print_table(console, f"model {diagnosis.model}", columns, rows)
    if diagnosis.problem is not None:
        raise diagnosis.problem
    rest = (
        "."
        if diagnosis.judges
        else ", for its descriptions: a run tries its choices, and asks no more where they fail."
    )
    manylens.tables.say(console, f"{diagnosis.model} can be used{rest}")


@commands.command(
    help="""Check that the run folder OUT is whole.

    Re-derives the key of every stored answer and checks every row, picture and feature file; says what is damaged.

    \b
    Example:
      manylens verify cards-manylens
    """
)
@click.argument("out", type=click.Path(path_type=Path))
def verify(out: Path) -> None:
    with manylens.store.RunFolder.open(out, must_exist=True) as run:
        problems = run.verify()
        answers, is_finished = run.extent()
    for problem in problems:
        manylens.tables.say(manylens.tables.open_console(), problem)
    if problems:
        raise StoreError(
            f"every part of a run folder is whole, of {out} {len(problems):,} "
            + ("is damaged" if len(problems) == 1 else "are damaged"),
            "do what its line says; where it says nothing, restore the folder from a copy, or run with another --out",
        )
    state = "" if is_finished else ", no results yet: the command that began the run goes on with it"
    manylens.tables.say(manylens.tables.open_console(), f"Everything is whole ({counted(answers, 'answer')}{state}).")


@commands.command(
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
    manylens.models.write_checkpoint(folder)
    manylens.tables.say(manylens.tables.open_console(), f"{folder}: --model hf:{folder} reads it.")


@commands.command(
    short_help="Teach nano a kind of picture by a larger model's answers.",
    help="""Tune nano, or another checkpoint, on the pictures in FOLDER, by what a larger model says of a few of them.

    The teacher gets at most --teacher-calls calls, over all interests: 90% describe pictures drawn at random, 5% judge
    pairs, 5% judge whether a picture belongs with a group. Its answers are spread to the other pictures by how like
    they are; the student learns from both (LoRA), and training stops by answers that were held out. No labels are
    needed.

    The teacher's answers, the adapter, and for nano the files for --model nano:OUT/nano go to --out. The same command
    with the same --out continues a run that was interrupted, and asks nothing twice. A GPU helps: on two cores, count
    ten seconds for a step. --device and --image-px hold for teacher and student, all other options of a model for the
    teacher. Needs pip install 'manylens[tune]'.

    \b
    Examples:
      manylens tune photos/ --by "kind of place" --teacher openai:gpt-5-mini --teacher-calls 300 --out tuned
      manylens cluster photos/ --by "kind of place" --model nano:tuned/nano
    """,
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--by",
    "interests",
    multiple=True,
    required=True,
    metavar="INTEREST",
    help="What to look at the pictures for, in plain words. May be given several times.",
)
@_teacher_options
@click.option(
    "--teacher-calls",
    type=click.IntRange(1),
    required=True,
    metavar="N",
    help="Hard limit on the calls to the teacher, over all interests.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the answers and the result.")
@click.option("--student", metavar="NAME", help="The checkpoint that learns: hf:FOLDER. [default: nano]")
@click.option("--steps", type=int, metavar="N", help=f"Steps of training, at most. [default: {_TUNING.steps}]")
@click.option("--batch", type=int, metavar="N", help=f"Pictures that one step learns from. [default: {_TUNING.batch}]")
@click.option("--seed", type=int, help=f"Where all randomness comes from. [default: {_TUNING.seed}]")
def tune(
    folder: Path,
    interests: tuple[str, ...],
    options: ModelOptions,
    teacher: str,
    teacher_calls: int,
    out: Path,
    student: str | None,
    steps: int | None,
    batch: int | None,
    seed: int | None,
) -> None:
    _check_interests(interests)
    given = {"steps": steps, "batch": batch, "seed": seed}
    said = {name: number for name, number in given.items() if number is not None}
    try:
        settings = TuneSettings(**said)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
    with manylens.progress.show_progress() as show:
        result = manylens.api.tune(
            folder,
            interests,
            teacher=teacher,
            teacher_calls=teacher_calls,
            out=out,
            student=student,
            options=options,
            settings=settings,
            on_event=show.event,
        )
    console = manylens.tables.open_console()
    losses = dict(result.losses)
    failed = f", {result.failed:,} failed" if result.failed else ""
    manylens.tables.say(console, f"The teacher was asked {counted(result.calls, 'time')}{failed}")
    manylens.tables.say(
        console,
        f"Loss on its held-out answers: {losses[0]:.3f} before, {losses[result.best_step]:.3f} after "
        f"{result.best_step:,} of {len(result.learned):,} steps, which are kept",
    )
    if not result.best_step:
        manylens.tables.say(console, "Tuning made nothing better: the adapter changes nothing. More calls may help.")
    manylens.tables.say(console, f"--model {result.student} --adapter {result.adapter} uses it.")
    if result.nano is not None:
        manylens.tables.say(console, f"--model nano:{result.nano} uses it without torch.")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; explained errors end as one message on standard error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a name must not end the run
            stream.reconfigure(errors="backslashreplace")
    try:
        commands.main(args=None if arguments is None else list(arguments), prog_name="manylens", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return _interrupted(arguments)
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # a compiled module makes this of a Ctrl-C while it loads
            return _interrupted(arguments)
        raise
    except ManylensError as error:
        click.echo(f"Error: {manylens.report.shown_name(str(error))}", err=True)
        return EXIT_ERROR
    except BrokenPipeError:
        # The reader of our output has gone (`| head`). Python would complain again while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    return 0


def _interrupted(arguments: Sequence[str] | None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    asks = bool(words) and words[0] in ("cluster", "demo", "tune") and "--dry-run" not in words
    kept = " What was asked so far is kept: the same command continues from there." if asks else ""
    click.echo(f"\nInterrupted.{kept}", err=True)
    return EXIT_INTERRUPTED


def _settings(**given: Any) -> Settings:
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except UsageError as error:
        raise click.UsageError(str(error)) from error


def _check_interests(texts: Sequence[str]) -> None:
    """What is wrong with the words themselves is wrong usage: no file was read yet."""
    try:
        manylens.api.parse_interests(texts)
    except UsageError as error:
        raise click.UsageError(str(error)) from error
