"""Options that several commands share, and what is wrong usage.

In: what was typed. Out: `Settings`, `ModelOptions` and checked interests. Promise: imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import click

from manylens.errors import UsageError
from manylens.settings import MODEL_OPTION_BOUNDS, ModelOptions, Settings, TuneSettings
from manylens.types import parse_interests

DEFAULTS, TUNING = Settings(), TuneSettings()


_Command: TypeAlias = Callable[..., None]


class _PlaceType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """Where pictures are: a path, or an address as it was typed."""

    name = "path"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str | Path:
        return value if isinstance(value, str) and "://" in value else Path(value)


PLACE = _PlaceType()


def _bounds(option: str) -> tuple[int, int]:
    least, most = MODEL_OPTION_BOUNDS[option]
    return int(least), int(most)


def gone(option: str, cure: str) -> Callable[[_Command], _Command]:
    """An option of earlier versions: hidden, and whoever passes it is told what there is instead."""

    def refuse(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            raise click.UsageError(f"{option} is gone: {cure}")

    return click.option(option, hidden=True, expose_value=False, callback=refuse)


def _about_models(named: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """`named`, the option that names a model, and what can be said about it; the command gets `options` of it."""
    return functools.partial(_with_options, named)


def _with_options(
    named: Callable[[_Command], _Command], command: _Command, made: Callable[..., Any] = ModelOptions
) -> _Command:
    """made: of what was said, by name, the `options` that the command gets."""
    defaults = {field.name: field.default for field in dataclasses.fields(ModelOptions)}

    def with_options(**given: Any) -> None:
        said = {name: given.pop(name) for name in defaults}
        command(options=made(**{name: value for name, value in said.items() if value is not None}), **given)

    add: list[Callable[[_Command], _Command]] = [
        named,
        click.option(
            "--base-url", metavar="URL", help="Where an OpenAI-compatible server answers: http://localhost:8000/v1."
        ),
        click.option(
            "--image-px",
            type=click.IntRange(*_bounds("image_px")),
            metavar="N",
            help=f"Longest side, in pixels, of the pictures sent to the model. [default: {defaults['image_px']}]",
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
        click.option(
            "--ask-again",
            is_flag=True,
            help="Ask also about pictures that earlier runs gave up.",
        ),
        gone("--judge-together", "every question is about one picture now, and there are fewer of them: leave it out"),
    ]
    decorated: _Command = functools.wraps(command)(with_options)
    for option in reversed(add):
        decorated = option(decorated)
    return decorated


def choose_files(command: _Command) -> _Command:
    """--exclude and --include: which files of FOLDER."""
    exclude = click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        help="Leave out these files or folders, as .gitignore writes them: --exclude 'old/'. May be given several "
        "times; a file .manylensignore in FOLDER holds such lines, too.",
    )
    include = click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="Take only these: --include '*.jpg'. May be given several times.",
    )
    return exclude(include(command))


model_options = _about_models(
    click.option(
        "--model",
        default="nano",
        show_default=True,
        metavar="NAME",
        help="The model that reads the pictures: nano, nano:FOLDER, hf:FOLDER, openai:NAME, or with --base-url any "
        "NAME a server knows.",
    )
)


run_model_options = functools.partial(
    _with_options,
    click.option(
        "--model", metavar="NAME", help="The model that the run used. [default: the run's own, if not served]"
    ),
    made=dict,
)
"""Of a run that is there: the command gets `options` as what was said alone."""


teacher_options = _about_models(
    click.option(
        "--teacher",
        required=True,
        metavar="NAME",
        help="The model that says what it sees: openai:NAME, hf:FOLDER, or with --base-url any NAME a server knows.",
    )
)


def settings_from(**given: Any) -> Settings:
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except UsageError as error:
        raise click.UsageError(str(error)) from error


def check_interests(texts: Sequence[str]) -> None:
    """What is wrong with the words themselves is wrong usage: no file was read yet."""
    try:
        parse_interests(texts)
    except UsageError as error:
        raise click.UsageError(str(error)) from error


def engine_option(command: _Command) -> _Command:
    """Who carries out the model's calls; the command gets `engine` of it, as `manylens.cluster` takes it."""

    @functools.wraps(command)
    def with_engine(*, engine: str, ray_address: str | None, replicas: int | None, **given: Any) -> None:
        from manylens.engine import engine_named

        try:
            command(engine=engine_named(engine, ray_address, replicas), **given)
        except UsageError as error:
            if "--engine" not in error.hint:
                raise
            raise click.UsageError(str(error)) from error

    decorated: _Command = with_engine
    for option in (
        click.option("--replicas", type=click.IntRange(1), metavar="N",
                     help="Of --engine ray: replicas of the model. [default: one for each slot of the cluster]"),
        click.option("--ray-address", metavar="HOST:PORT",
                     help="Of --engine ray: where the cluster is. [default: one on this computer]"),
        click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
                     metavar="NAME", help="Who carries out the model's calls: local, this process, or ray, replicas of "
                     "the model on this computer or on a cluster."),
    ):  # fmt: skip
        decorated = option(decorated)
    return decorated
