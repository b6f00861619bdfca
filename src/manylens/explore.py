"""Before a run, what a folder could be sorted by, and what an interest makes of it; after one, how two go together.

In: a folder of images, or a run folder. Out: `Suggestions`, a `Preview`, a `CrossTable`. Promise: a sample is read, not
the folder; what is asked is kept in the run folder, where a run finds it, and nothing else of the run changes.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from manylens.api import PathLike, default_out
from manylens.collection.find import list_files
from manylens.collection.sample import spread
from manylens.collection.source import Place, as_place
from manylens.errors import UsageError
from manylens.events import Notice
from manylens.method.compound import parts_of
from manylens.models.base import Model, ModelOptions, ask_doubt, ask_interests
from manylens.models.registry import is_nano
from manylens.pipeline.budget import Budget
from manylens.pipeline.compound import compound_parts
from manylens.pipeline.preview import Glance, calls_of_preview, glance
from manylens.pipeline.suggest import SIDES, SampleGroup, calls_of_suggestions, propose
from manylens.progress import following
from manylens.results.cross import CrossTable
from manylens.results.cross import cross as cross_tables
from manylens.results.exports.run_table import read_run
from manylens.results.result import Result
from manylens.results.sampled import Group, Part, Preview, SeenPicture, Suggestion, Suggestions, Wording
from manylens.results.table import FileTable
from manylens.session import OnEvent, Session, open_session
from manylens.settings import Settings
from manylens.sync import run_until_done
from manylens.text import counted, printable
from manylens.types import Interest, find_interest, parse_interests

PREVIEWED = 20
"""Pictures of a preview: as many as a person takes in at a glance."""

SUGGESTED_FROM, SUGGESTED_FROM_WRITTEN = 60, 20
"""Pictures from which interests are suggested: where the model runs here and is asked through a dozen of them, and
where a model that writes describes each from three sides."""

MOST_HINTED = 8
"""Groups that a closed list in a hint has at most."""


def suggest(
    folder: PathLike,
    *,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    model: str | Model = "nano",
    options: ModelOptions | None = None,
    out: PathLike | None = None,
    settings: Settings | None = None,
    sample: int | None = None,
    on_event: OnEvent | None = None,
    progress: bool | None = None,
) -> Suggestions:
    """Up to ten interests that a folder could be sorted by, each with the groups that a sample of it falls into.

    nano tries the interests that it was taught and that fit the pictures, and keeps those that it understands and that
    split the sample. A model that writes describes each picture of the sample from three sides and proposes them.
    sample: how many pictures, spread over the folder; by default 60, or 20 where a model behind a server is asked.
    out, settings, model, options, exclude, include, on_event, progress: as for `cluster`; of the settings, limits and
    seed. Answers are kept in `out`: the same call asks nothing, and a run by a suggested interest asks less.
    Raises as `cluster` does, and UsageError for a model that neither writes nor was taught any interest.
    """
    place, chosen, said = as_place(folder), settings or Settings(), options or ModelOptions()
    into = Path(out) if out is not None else default_out(place)
    most = sample or (SUGGESTED_FROM if _is_quick(model, said) else SUGGESTED_FROM_WRITTEN)
    if not _is_quick(model, said) and chosen.budget_calls is not None:
        most = max(1, min(most, (chosen.budget_calls - 1) // len(SIDES)))

    async def work(emit: OnEvent) -> Suggestions:
        files = list_files(place, exclude=exclude, include=include)
        some = spread(files, most, chosen.seed)
        async with open_session(place, into, model, said, chosen, emit, some, is_sample=True) as session:
            asked = session.model
            ids = [image.id for image in session.collection.images]
            calls = calls_of_suggestions(len(ids), asked.capabilities.writes_text, bool(ask_interests(asked, ids)))
            _announce(emit, len(ids), len(files), calls, into)
            found = await propose(ids, asked, emit, Budget(asked, chosen))
            paths = _paths(session)
            words = _words(place, model, said, out)
            suggestions = tuple(
                Suggestion(one.interest.text, _groups(one.groups, paths), one.answered, words([one.interest.text]))
                for one in found
            )
            first = [one.interest.text for one in found[:3]]
            return Suggestions(
                into, asked.name, tuple(sorted(paths.values())), len(files), suggestions,
                asked.asked.total(), asked.reused.total(), words(first) if first else "",
            )  # fmt: skip

    with following(progress, on_event) as emit:
        return run_until_done(work(emit))


def preview(
    folder: PathLike,
    by: str,
    *,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    model: str | Model = "nano",
    options: ModelOptions | None = None,
    out: PathLike | None = None,
    settings: Settings | None = None,
    sample: int = PREVIEWED,
    on_event: OnEvent | None = None,
    progress: bool | None = None,
) -> Preview:
    """What an interest would make of a folder, seen on 20 pictures spread over it: how they are described, the groups
    that follow, the model's verdict, and other wordings to try.

    The descriptions are kept in `out`, so a run asks for none of them again. No question about clusters is asked: a run
    goes on from here and corrects what descriptions get wrong. sample: how many pictures. All else is as for `cluster`,
    and so is what is raised.
    """
    place, chosen, said = as_place(folder), settings or Settings(), options or ModelOptions()
    (interest,) = parse_interests([by])
    parts = compound_parts(interest, chosen) or (interest,)
    into = Path(out) if out is not None else default_out(place)

    async def work(emit: OnEvent) -> Preview:
        files = list_files(place, exclude=exclude, include=include)
        some = spread(files, sample, chosen.seed)
        async with open_session(place, into, model, said, chosen, emit, some, is_sample=True) as session:
            asked = session.model
            ids = [image.id for image in session.collection.images]
            doubts = {part: ask_doubt(asked, part.text) for part in parts}
            calls = calls_of_preview(len(ids), len(parts), asked.capabilities.writes_text)
            _announce(emit, len(ids), len(files), 0 if _is_quick(model, said) else calls, into)
            seen = await glance(ids, parts, asked, chosen, emit, Budget(asked, chosen))
            paths = _paths(session)
            told = tuple(_part(seen[part], doubts[part], paths) for part in parts)
            return Preview(
                interest.text, into, asked.name, told, _combined(told), len(files),
                asked.asked.total(), asked.reused.total(), tuple(_hints(interest, told, chosen)),
                _words(place, model, said, out)([interest.text]),
            )  # fmt: skip

    with following(progress, on_event) as emit:
        return run_until_done(work(emit))


def cross(out: PathLike | Result, rows: str, columns: str) -> CrossTable:
    """How many files of a run are in which clusters of two of its interests, and how closely these go together.

    out: a run folder, or the result of `cluster`. rows, columns: interests of the run, by their words or the names of
    their folders. Raises StoreError where there is no run, UsageError where it has no such interest.
    """
    tables = interests_of(out)
    return cross_tables(table_of(tables, rows), table_of(tables, columns))


def interests_of(out: PathLike | Result) -> Mapping[str, FileTable]:
    """Every interest of a run, by its words."""
    return {
        table.clustering.interest.text: table
        for table in read_run(Path(out.out if isinstance(out, Result) else out)).tables
    }


def table_of(tables: Mapping[str, FileTable], words: str) -> FileTable:
    """Of the interest meant (`types.find_interest`)."""
    return tables[find_interest((table.clustering.interest for table in tables.values()), words).text]


def closest(tables: Mapping[str, FileTable]) -> list[CrossTable]:
    """Every two interests of a run against each other, the closest first; a compound one against others only, for it
    follows from its parts. Raises UsageError where there are no two to compare."""
    parts = {text: {part.slug for part in parts_of(table.clustering.interest)} for text, table in tables.items()}
    slugs = {text: table.clustering.interest.slug for text, table in tables.items()}
    found = [
        cross_tables(tables[one], tables[two])
        for one, two in combinations(tables, 2)
        if slugs[one] not in parts[two] and slugs[two] not in parts[one]
    ]
    if not found:
        raise UsageError(
            f"two interests are compared, the run has {len(tables)}", "sort by another one, too: manylens cluster"
        )
    return sorted(found, key=lambda table: -(table.cramers_v or -1.0))


def _is_quick(model: str | Model, options: ModelOptions) -> bool:
    """Whether a call takes no server and no large checkpoint: then more pictures are looked at."""
    if not isinstance(model, str):
        return not model.capabilities.writes_text
    return is_nano(model, options)


def _announce(emit: OnEvent, pictures: int, found: int, calls: int, out: Path) -> None:
    these = counted(pictures, "picture") if pictures == found else f"{pictures:,} of {counted(found, 'picture')}"
    cost = f"at most {counted(calls, 'model call')}" if calls else "on this computer"
    emit(Notice(f"looks at {these}, {cost}; what is found out is kept in {printable(str(out))}"))


def _paths(session: Session) -> dict[str, str]:
    return {image.id: printable(image.paths[0]) for image in session.collection.images}


def _groups(groups: Sequence[SampleGroup], paths: Mapping[str, str]) -> tuple[Group, ...]:
    return tuple(Group(group.name, tuple(paths[image_id] for image_id in group.images)) for group in groups)


def _part(seen: Glance, doubt: str, paths: Mapping[str, str]) -> Part:
    looks = seen.looks
    pictures = zip(looks.image_ids, looks.descriptions, looks.confidences, strict=True)
    wordings = (
        Wording(one.interest.text, "" if one.verdict is None else one.verdict.word, one.names, one.why)
        for one in seen.wordings
    )
    return Part(
        interest=looks.interest.text,
        verdict=seen.verdict,
        pictures=tuple(
            sorted((SeenPicture(paths[i], d, round(float(c), 4)) for i, d, c in pictures), key=lambda p: p.path)
        ),
        groups=_groups(seen.groups, paths),
        unanswered=tuple(paths[image_id] for image_id in seen.unanswered),
        failed=tuple((paths[image_id], reason) for image_id, reason in looks.failed),
        wordings=tuple(wordings),
        doubt=doubt,
    )


def _combined(parts: Sequence[Part]) -> tuple[Group, ...]:
    """The groups by all parts; a picture without an answer to one of them is in none."""
    if len(parts) < 2:
        return ()
    places = [{path: group.name for group in part.groups for path in group.pictures} for part in parts]
    found: dict[str, list[str]] = {}
    for path in sorted(places[0]):
        if all(path in of for of in places):
            found.setdefault(", ".join(of[path] for of in places), []).append(path)
    order = sorted(found, key=lambda name: (-len(found[name]), name))
    return tuple(Group(name, tuple(found[name])) for name in order)


def _hints(interest: Interest, parts: Sequence[Part], settings: Settings) -> list[str]:
    hints = []
    for part in parts:
        if part.doubt:
            hints.append(f'"{part.interest}" {part.doubt}: say it in English, or use a larger model.')
        if part.verdict is not None and part.verdict.advice:
            hints.append(part.verdict.advice)
        if len(part.groups) == 1 and len(part.pictures) > 1 and not part.unanswered:
            hints.append(f'By "{part.interest}" all of these pictures are of one kind: ask what tells them apart.')
    if len(parts) == 1 and settings.compound and " and " in interest.text and not interest.options:
        one, _, two = interest.text.partition(" and ")
        hints.append(f'It is taken as one question. To sort by two, say so: --by "{one} + {two}".')
    names = [group.name for group in parts[0].groups]
    if any(part.verdict is not None and part.verdict.word == "not understood" for part in parts):
        hints.append("As it is, a run would put the pictures into groups that look alike, whatever the interest.")
    is_known = parts[0].verdict is None or parts[0].verdict.word == "good"
    is_list = is_known and len(parts) == 1 and 2 <= len(names) <= MOST_HINTED and not any("," in name for name in names)
    if is_list and not settings.into and not interest.options:
        hints.append(f'To allow no other clusters than these: --into "{", ".join(names)}".')
    return list(dict.fromkeys(hints))


def _words(
    folder: Place, model: str | Model, options: ModelOptions, out: PathLike | None
) -> Callable[[Sequence[str]], str]:
    """Interests -> the command that sorts the folder by them."""

    def command(interests: Sequence[str]) -> str:
        words = ["manylens", "cluster", _quoted(printable(str(folder)))]
        for text in interests:
            words += ["--by", _quoted(text)]
        if isinstance(model, str) and model != "nano":
            words += ["--model", _quoted(model)]
        if options.base_url is not None:
            words += ["--base-url", _quoted(options.base_url)]
        if out is not None:
            words += ["--out", _quoted(printable(str(out)))]
        return " ".join(words)

    return command


def _quoted(text: str) -> str:
    """As a shell takes it, in double quotes where nothing in it is special to them."""
    plain = shlex.quote(text)
    return plain if plain == text or any(c in text for c in '"$`\\!') else f'"{text}"'
