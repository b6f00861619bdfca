"""Serving the page of a run: the address, the token, the browser, and the end.

In: a run folder and where to listen. Out: a server that runs until it is stopped. Promise: it listens on this computer
alone unless a person names another address; its token is kept in the run folder, readable by its owner alone, so that a
page that is open goes on after a restart.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from manylens.api import default_out
from manylens.collection.find import open_source
from manylens.errors import ManylensError, UsageError
from manylens.files import DATABASE_NAME, read_regular
from manylens.settings import ModelOptions, Settings
from manylens.web.app import make_app
from manylens.web.gallery import get_layout
from manylens.web.job_keeper import JobKeeper, job_request, short_path
from manylens.web.routing import Filters
from manylens.web.shown import ShownRun

DEFAULT_PORT = 8672

_PORTS_TRIED = 20

_ALONE = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
"""Elsewhere SO_REUSEADDR takes a port whose last connections linger; on Windows it would share one that is in use."""

LOOPBACK = "127.0.0.1"

TOKEN_NAME = "page.token"
"""In the run folder; no interest's folder can have this name, for it has a dot."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


def serve(
    run: ShownRun,
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    browse: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Serve until Ctrl-C or SIGTERM. port: None takes the default one, or the next that is free; 0 any.

    Raises UsageError where nothing can listen there.
    """
    listener = _listen(host, port)
    threading.Thread(target=_warm, args=(run,), name="manylens-warm", daemon=True).start()
    number = int(listener.getsockname()[1])
    token = page_token(run)
    is_local = host in (LOOPBACK, "localhost", "::1")
    names = ["127.0.0.1", "localhost", "[::1]"] if is_local else [_as_host(host), *_own_names(host)]
    hosts = [f"{name}:{number}" for name in names] + ([*names] if number == 80 else [])
    app = make_app(run, token=token, hosts=hosts, cookie=f"manylens-{number}", is_local=is_local)
    address = f"http://{_as_host(host) if not _is_any(host) else socket.gethostname()}:{number}/?token={token}"
    if not is_local:
        say("Anyone who can reach this computer and knows the address can see the pictures and change the run.")
    say(f"The page of {run.name}: {address}")
    if not run.read_only:
        say("Corrections are kept at once; the result files follow a minute after the last one, or with Ctrl-C.")
    if browse:
        with contextlib.suppress(webbrowser.Error, OSError):
            webbrowser.open(address)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=2
    )
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        if run.is_running:
            say(f"What was begun goes on by itself; manylens open {short_path(str(run.path))} shows it again.")
        run.write_files_after_pause(0)
        run.close()


def _warm(run: ShownRun) -> None:
    """Read what the page asks for first while the browser starts: of 50,000 images that takes a second or two."""
    with contextlib.suppress(ManylensError, OSError):
        for slug in run.versions():
            get_layout(slug, run, Filters())


def serve_job(
    folder: str | Path,
    by: Sequence[str],
    *,
    exclude: Sequence[str],
    include: Sequence[str],
    model: str,
    options: ModelOptions,
    out: Path,
    settings: Settings,
    links: bool,
    say: Callable[[str], None] = print,
    browse: bool = True,
) -> None:
    """`cluster`, begun as a job of the page and watched there. It goes on when the server is stopped.

    Raises UsageError for what cannot be run, before anything is served."""
    open_source(folder)  # raises and says why
    run = ShownRun(out, Path(folder) if os.path.isdir(folder) else None)
    run.check_writable()
    run.exclude, run.include = tuple(exclude), tuple(include)
    request = job_request(
        folder, by, model=model, options=options, settings=settings, exclude=exclude, include=include, links=links
    )
    JobKeeper(run).add(request)
    serve(run, browse=browse, say=say)


def _listen(host: str, port: int | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    wanted = [port] if port is not None else [*range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TRIED), 0]
    problem: OSError | None = None
    for number in wanted:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, _ALONE, 1)
        try:
            listener.bind((host, number))
            listener.listen(128)
        except OSError as error:
            problem = error
            listener.close()
            continue
        listener.set_inheritable(False)
        return listener
    raise UsageError(
        f"the page needs an address to listen at, {host} port {wanted[0]} cannot be had ({problem})",
        "pass another --port, or none",
    )


def _as_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def _own_names(host: str) -> list[str]:
    """What else a browser may call this computer when the page is open to others."""
    names = {socket.gethostname(), socket.getfqdn(), "127.0.0.1", "localhost"}
    if _is_any(host):
        with contextlib.suppress(OSError):
            names |= {_as_host(str(found[4][0])) for found in socket.getaddrinfo(socket.gethostname(), None)}
    return sorted(names)


def page_token(run: ShownRun) -> str:
    """The run's token: of `MANYLENS_TOKEN` where that is set, else the one kept in its folder, else a new one."""
    given = os.environ.get("MANYLENS_TOKEN", "")
    if given:
        if len(given) < 16:
            raise UsageError("MANYLENS_TOKEN has at least 16 characters", "leave it out for a random one")
        return given
    place = run.path / TOKEN_NAME
    if run.read_only or run.is_new:
        return secrets.token_urlsafe(32)
    with contextlib.suppress(OSError, ValueError):
        kept = read_regular(place).decode("ascii").strip()
        if _TOKEN.fullmatch(kept) and _is_private(place):
            return kept
    token = secrets.token_urlsafe(32)
    with contextlib.suppress(OSError):
        place.unlink(missing_ok=True)
        with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token + "\n")
    return token


def _is_private(place: Path) -> bool:
    """Whether nobody else can read it; a folder that was copied from elsewhere may have lost that."""
    return os.name == "nt" or not place.stat().st_mode & 0o077


def show(place: Path, other: Path | None = None, out: Path | None = None, *, read_only: bool = False) -> ShownRun:
    """The run at `place`, or one that is to begin on the pictures in it. Raises UsageError for what is neither."""
    if (place / DATABASE_NAME).is_file():
        if out is not None:
            raise UsageError(
                f"--out says where the results of pictures go, {place} is a run already", "leave out --out"
            )
        run = ShownRun(place, read_only=read_only)
    elif place.is_dir():
        run = ShownRun(out or default_out(place), place, read_only=read_only)
    else:
        raise UsageError(f"a run folder or a folder of pictures is opened, {place} is neither", "check its name")
    if not run.is_new:
        run.reader()
    if other is not None:
        run.other = ShownRun(other, read_only=True)
        run.other.reader()
    return run
