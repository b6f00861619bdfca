"""Folders of pictures, one a cluster: copies, hard links, symbolic links, or the files moved; and the way back.

In: a `RunTable`, or an earlier export's folder to undo. Out: `DEST/<id> <name>/`, below a folder for each interest
where there are several. Promises: no file is ever lost or overwritten. All steps are on the disk in DEST's journal
before the first is taken; a file leaves its place only when the same bytes are known to be at the other; a place that
is taken is refused. Which steps are done is read off the files, never believed: kill it at any moment, and the same
call goes on, or `undo` goes back. Side-cars (`a.jpg.xmp`, `a.xmp`) go with the files that are copied or moved.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from manylens.collection.find import plain_reason
from manylens.collection.formats import NAMED_SUFFIXES
from manylens.collection.source import Source, is_hidden
from manylens.errors import ManylensError, StoreError, UsageError
from manylens.files import MOST_TABLE, read_regular, sha256_of, sync_folder, write_atomically
from manylens.results.exports.run_table import Exported, RunTable, write_picture
from manylens.results.links import flat_name, folder_name
from manylens.text import printable

MODES = ("copy", "hardlink", "symlink", "move")

OUT_OF_SOURCE = "extract"
"""How a journal calls copies of pictures that are no files of their own: their hashes are all that they can be compared
with later."""

JOURNAL_NAME = "manylens-journal.jsonl"

_AT_ONCE = 200
"""Files that are at both places at once while they are moved: more cost room on the disk, fewer cost time."""


@dataclass(frozen=True, slots=True)
class Step:
    """source: a path in the pictures' folder. target: a path in the destination. Both with `/`. sha256: of a picture
    that is copied out of an archive or the like, empty where it is a file."""

    source: str
    target: str
    is_sidecar: bool = False
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Journal:
    """What is to be done, whole. root: the pictures' folder, absolute, or what else holds them (`Source.place`)."""

    mode: str
    root: str
    steps: tuple[Step, ...]


def write_folders(run: RunTable, dest: Path, mode: str, *, preview: bool = False) -> Exported:
    """Files that are in no cluster stay where they are. Steps that the system refuses are in `left`, with its reason.

    Raises UsageError: an unknown mode, a move by several interests, a destination that holds another export or one of
    the files already, copies or links inside the pictures' folder (the next run would find them there).
    """
    if mode not in MODES:
        raise UsageError(f"a mode is one of {', '.join(MODES)}, got {mode!r}", "choose one of these")
    if mode == "move" and len(run.tables) > 1:
        known = ", ".join(repr(table.clustering.interest.text) for table in run.tables)
        raise UsageError("a file can be moved to one place, the run has several interests", f"say which: {known}")
    source = run.open_pictures()
    if source.root is None and mode == "copy":
        mode, origin = OUT_OF_SOURCE, source.place
        root = Path(origin)
    else:
        root = run.pictures.resolve()
        origin = str(root)
    place = dest.resolve()
    if mode != "move" and place.is_relative_to(root):
        raise UsageError(
            f"copies and links lie outside the pictures' folder, got {dest} inside {root}", "name another destination"
        )
    steps = _planned(run, of_source=mode == OUT_OF_SOURCE)
    journal = _read_journal(dest)
    if journal is None:
        sidecars = _sidecars(root, steps) if mode in ("copy", "move") else []
        journal = Journal(mode, origin, (*steps, *sidecars))
        taken = [step.target for step in journal.steps if os.path.lexists(place / step.target)]
        if taken:
            raise UsageError(
                f"nothing is overwritten, {dest} holds {len(taken):,} of the files already, "
                f"the first: {printable(taken[0])}",
                "name a new folder as the destination",
            )
    elif (journal.mode, journal.root) != (mode, origin) or steps != [s for s in journal.steps if not s.is_sidecar]:
        raise UsageError(f"a destination holds one export, {dest} has another", "undo that one, or name a new folder")
    unplaced = sum(row.cluster is None for table in run.tables for row in table.rows)
    if preview:
        return Exported(
            dest,
            len(steps),
            unplaced=unplaced,
            steps=tuple(f"{step.source} -> {step.target}" for step in journal.steps),
        )
    if not journal.steps:
        return Exported(dest, 0, unplaced=unplaced)
    lines = [json.dumps({"manylens": 1, "mode": journal.mode, "root": journal.root})]
    lines += [
        json.dumps([s.source, s.target, int(s.is_sidecar), *([s.sha256] * bool(s.sha256))]) for s in journal.steps
    ]
    write_atomically(place / JOURNAL_NAME, "\n".join(lines) + "\n")
    if mode == OUT_OF_SOURCE:
        left = _take_out(source, journal.steps, place)
        return Exported(dest, len(steps) - len(left), tuple(left), unplaced=unplaced)
    pairs = [(root / step.source, place / step.target) for step in journal.steps]
    left = _move(pairs, root) if mode == "move" else _make(pairs, mode)
    done = [step for step in steps if printable(str(root / step.source)) not in {path for path, _ in left}]
    return Exported(dest, len(done), tuple(left), unplaced=unplaced)


def undo_folders(dest: Path, *, preview: bool = False) -> Exported:
    """Go back: files that were moved return to their places, copies and links that are still as they were made go. What
    was changed since, or whose place is taken, is in `left`, and the journal stays until nothing is. A journal may come
    from somebody else and name any folder: what has no name of a picture is not moved."""
    journal = _read_journal(dest)
    if journal is None:
        raise UsageError(f"an export that is undone has a journal, {dest} has no {JOURNAL_NAME}", "check the folder")
    root, place = Path(journal.root), dest.resolve()
    pairs = [(place / step.target, root / step.source) for step in journal.steps]
    there = [pair for pair in pairs if os.path.lexists(pair[0])]
    if preview:
        return Exported(dest, len(there), steps=tuple(f"{made} -> {origin}" for made, origin in there))
    if journal.mode == "move":
        strange = [pair for pair in there if not _is_of_picture(pair[1].relative_to(root))]
        left = _move([pair for pair in there if pair not in strange], place)
        left += [(printable(str(made)), f"no picture is called {printable(origin.name)}") for made, origin in strange]
        lost = [pair for pair in pairs if not any(map(os.path.lexists, pair))]
        left += [(printable(str(made)), "it is neither here nor where it came from") for made, _ in lost]
    elif journal.mode == OUT_OF_SOURCE:
        whole = {place / step.target: step.sha256 for step in journal.steps}
        left = [found for made, _ in there for found in _unmake(made, sha256_of(made) == whole[made] != "")]
    else:
        left = [found for made, origin in there for found in _unmake(made, _is_made(made, origin, journal.mode))]
    if not left:
        (place / JOURNAL_NAME).unlink()
    for folder in sorted({parent for made, _ in pairs for parent in (made.parent, *made.parent.parents)}, reverse=True):
        if folder == place or folder.is_relative_to(place):
            with contextlib.suppress(OSError):  # not empty, or gone
                folder.rmdir()
    return Exported(dest, len(there) - len(left), tuple(left))


def _planned(run: RunTable, *, of_source: bool = False) -> list[Step]:
    """A file keeps its name where no other in its cluster has it, and else gets its folders' names before it.

    of_source: names of members, and the ends of addresses, are made names of files."""
    steps: list[Step] = []
    for table in run.tables:
        digits = len(str(max((cluster.id for cluster in table.clusters), default=1)))
        above = f"{table.clustering.interest.slug}/" if len(run.tables) > 1 else ""
        placed = [row for row in table.rows if row.cluster is not None]
        own = {row.path: _file_name(row.path) if of_source else PurePosixPath(row.path).name for row in placed}
        names = Counter((row.cluster, _alike(own[row.path])) for row in placed)
        taken: set[str] = set()
        for row in placed:
            name = own[row.path]
            if names[row.cluster, _alike(name)] > 1:
                name = flat_name(_file_name(row.path, whole=True) if of_source else row.path)
            below = f"{above}{row.cluster:0{digits}} {folder_name(row.name)}"
            first, number = PurePosixPath(name), 2
            while _alike(f"{below}/{name}") in taken:
                name, number = f"{first.stem} ({number}){first.suffix}", number + 1
            taken.add(_alike(f"{below}/{name}"))
            steps.append(Step(row.path, f"{below}/{name}", sha256=row.image_id if of_source else ""))
    return steps


def _file_name(path: str, whole: bool = False) -> str:
    """A member's name, or an address's end, as the name of a file on any system; whole: with its folders'."""
    start = path.split("?")[0] if "://" in path else path
    name = start.replace("://", "/").replace("/", "__") if whole else PurePosixPath(start).name
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "-", name).rstrip(" .") or "picture"


def _alike(name: str) -> str:
    """Names that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()


def _is_of_picture(path: PurePath) -> bool:
    """Whether a collection could have had it, or a side-car of one."""
    return path.suffix.lower() in (".xmp", *NAMED_SUFFIXES) and not is_hidden(path.as_posix())


def _sidecars(root: Path, steps: Sequence[Step]) -> list[Step]:
    """The side-cars of the files, and where they go. One that two pictures may mean stays."""
    stems = Counter({step.source: PurePosixPath(step.source).with_suffix("") for step in steps}.values())
    taken = {_alike(step.target) for step in steps}
    found = []
    for step in steps:
        source, target = PurePosixPath(step.source), PurePosixPath(step.target)
        pairs = [(f"{source}.xmp", f"{target}.xmp")]
        if stems[source.with_suffix("")] == 1:
            pairs.append((str(source.with_suffix(".xmp")), str(target.with_suffix(".xmp"))))
        for one, other in pairs:
            if _alike(other) not in taken and os.path.isfile(root / one):
                taken.add(_alike(other))
                found.append(Step(one, other, is_sidecar=True))
    return found


def _read_journal(dest: Path) -> Journal | None:
    path = dest / JOURNAL_NAME
    try:
        content = read_regular(path, most=MOST_TABLE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {plain_reason(error)}", "make it readable") from error
    try:
        head, *rest = [json.loads(line) for line in content.splitlines()]
        steps = tuple(
            Step(source, target, bool(sidecar), *map(str, sha256)) for source, target, sidecar, *sha256 in rest
        )
        journal = Journal(head["mode"], head["root"], steps)
        if journal.mode == OUT_OF_SOURCE:
            paths, sound = [PurePosixPath(step.target) for step in steps], all(step.sha256 for step in steps)
        else:
            paths = [PurePosixPath(path) for step in steps for path in (step.source, step.target)]
            sound = journal.mode in MODES and os.path.isabs(journal.root)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreError(f"a journal is whole, {path} is damaged ({error})", "restore it from a copy") from error
    if not sound or any(path.is_absolute() or ".." in path.parts for path in paths):
        raise StoreError(f"a journal's paths stay inside its two folders, those of {path} do not", "do not use it")
    return journal


def _make(pairs: Sequence[tuple[Path, Path]], mode: str) -> list[tuple[str, str]]:
    left: list[tuple[str, str]] = []
    for source, target in pairs:
        if os.path.lexists(target):  # made before this was interrupted, or not ours
            if not _is_made(target, source, mode):
                left.append((printable(str(source)), f"its place is taken: {printable(str(target))}"))
            continue
        with _refusals(left, source):
            target.parent.mkdir(parents=True, exist_ok=True)
            if mode == "copy":
                _copy(source, target)
            elif mode == "hardlink":
                os.link(os.path.realpath(source), target)
            else:
                source.stat()  # raises where the file is gone
                target.symlink_to(source)
    _sync({target.parent for _, target in pairs})
    return left


def _take_out(source: Source, steps: Sequence[Step], place: Path) -> list[tuple[str, str]]:
    left: list[tuple[str, str]] = []
    for step in steps:
        target = place / step.target
        if os.path.lexists(target):
            if sha256_of(target) != step.sha256:
                left.append((printable(step.source), f"its place is taken: {printable(str(target))}"))
            continue
        try:
            write_picture(source, step.source, step.sha256, target)
        except (OSError, ManylensError) as error:
            left.append((printable(step.source), plain_reason(error) if isinstance(error, OSError) else error.rule))
    _sync({(place / step.target).parent for step in steps})
    return left


def _unmake(made: Path, is_ours: bool) -> Iterator[tuple[str, str]]:
    refused: list[tuple[str, str]] = []
    if is_ours:
        with _refusals(refused, made):
            made.unlink()
    else:
        refused.append((printable(str(made)), "it was changed since it was made, or its original is gone"))
    yield from refused


def _is_made(made: Path, origin: Path, mode: str) -> bool:
    if mode == "symlink":
        return made.is_symlink() and os.readlink(made) == str(origin)
    return not made.is_symlink() and _same_bytes(made, origin, by_hash=mode == "copy")


def _move(pairs: Sequence[tuple[Path, Path]], root: Path) -> list[tuple[str, str]]:
    """First a batch is at both places, then that is on the disk, then the first place is given up."""
    left: list[tuple[str, str]] = []
    for start in range(0, len(pairs), _AT_ONCE):
        batch = pairs[start : start + _AT_ONCE]
        for source, target in batch:
            if not os.path.lexists(source):
                if not os.path.lexists(target):
                    left.append((printable(str(source)), "it is no longer there"))
            elif source.is_symlink() or source.parent.resolve() != Path(os.path.abspath(source.parent)):
                left.append((printable(str(source)), f"it is reached through a link, not in {printable(str(root))}"))
            elif not os.path.lexists(target):
                with _refusals(left, source):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _take_place(source, target)
        _sync({target.parent for _, target in batch})
        refused = {path for path, _ in left}
        for source, target in batch:
            if printable(str(source)) in refused or not os.path.lexists(source):
                continue
            with _refusals(left, source):
                if target.is_symlink() or not _same_bytes(source, target, by_hash=True):
                    left.append((printable(str(source)), f"its place is taken: {printable(str(target))}"))
                else:
                    source.unlink()
        _sync({source.parent for source, _ in batch})
    return left


def _take_place(source: Path, target: Path) -> None:
    """Let `target` be the file too; raises FileExistsError where there is one. A hard link cannot overwrite, as a
    rename would; where the file system has none, the file is renamed or copied."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno == errno.EXDEV:
            _copy(source, target)
        elif os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        elif error.errno in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            os.rename(source, target)
        else:
            raise


def _copy(source: Path, target: Path) -> None:
    """Aside, fsync, compare, then take the place: a half copy is never seen under the picture's name."""
    aside = target.with_name(f".manylens.{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}.part")
    try:
        shutil.copyfile(source, aside)
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        shutil.copystat(source, aside)
        if not _same_bytes(source, aside, by_hash=True):
            raise OSError(errno.EIO, "its copy differs from it")
        try:
            os.link(aside, target)
        except FileExistsError:
            raise
        except OSError:
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            os.rename(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def _same_bytes(one: Path, other: Path, *, by_hash: bool) -> bool:
    try:
        return os.path.samefile(one, other) or (by_hash and sha256_of(one) == sha256_of(other) != "")
    except OSError:
        return False


def _sync(folders: set[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # never made, or a file system that cannot
            sync_folder(folder)


@contextlib.contextmanager
def _refusals(left: list[tuple[str, str]], path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        left.append((printable(str(path)), plain_reason(error)))
