"""The command line: the commands, and the exit code of whatever happens in them.

In: arguments. Out: tables on standard output (`render`), progress (`progress`) and messages on standard error.
Exit codes: 0 done, 1 ended with an error that is explained, 2 wrong usage, 130 interrupted.
Promise: `--help` is quick, because each command imports what is heavy when it runs; and names of files are shown as
text, never as markup or terminal codes.
"""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

import manylens
from manylens.cli.add import add
from manylens.cli.cluster import cluster
from manylens.cli.correct import correct
from manylens.cli.demo import demo
from manylens.cli.evaluate import evaluate
from manylens.cli.explore import cross, preview, suggest
from manylens.cli.export import export
from manylens.cli.maintenance import checkpoint, doctor, verify
from manylens.cli.open import open_page
from manylens.cli.resort import resort
from manylens.cli.review import review
from manylens.cli.tune import tune
from manylens.errors import ManylensError
from manylens.text import shown_name

EXIT_ERROR = 1


EXIT_INTERRUPTED = 130


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
      manylens suggest photos/
      manylens preview photos/ --by "kind of place"
      manylens cluster photos/ --by "color of the object"
      manylens cluster cards/ --by suit --by rank --out cards-sorted
      manylens cluster photos/ --by "kind of object" --dry-run
      manylens evaluate cards-sorted --labels labels.csv
      manylens export cards-sorted --to csv
    """,
)
@click.version_option(manylens.__version__, prog_name="manylens", message="%(prog)s %(version)s")
def commands() -> None:
    pass


for command in (
    demo,
    suggest,
    preview,
    cluster,
    add,
    open_page,
    correct,
    review,
    resort,
    cross,
    evaluate,
    export,
    tune,
    doctor,
    verify,
    checkpoint,
):
    commands.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    if _memory_is_limited():
        _supervise()
    code = run(arguments)
    if code == EXIT_INTERRUPTED:  # the run is closed; threads that still wait for a slow disk would keep the process
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; explained errors end as one message on standard error."""
    words = sys.argv[1:] if arguments is None else arguments
    if _memory_is_limited() and not _begin_with_little() and not {"-h", "--help", "--version"} & set(words):
        _lacks(MemoryError())
        return EXIT_ERROR
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
        if _lacks(error):
            return EXIT_ERROR
        raise
    except ManylensError as error:
        click.echo(f"Error: {shown_name(str(error))}", err=True)
        return EXIT_ERROR
    except BrokenPipeError:
        # The reader of our output has gone (`| head`). Python would complain again while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except Exception as error:  # onnxruntime's own, which say that memory is short, derive from nothing closer
        if _lacks(error):
            return EXIT_ERROR
        raise
    return 0


_NUMPY_BYTES = 96 << 20
"""Of address space, which numpy takes as it is imported. Where there is less, its algebra ends the process, in words of
its own."""


def _memory_is_limited() -> bool:
    try:
        import resource
    except ImportError:  # Windows
        return False
    limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return any(limit not in (resource.RLIM_INFINITY, -1) for limit in limits)


def _begin_with_little() -> bool:
    """Whether there is memory to begin with; numpy's algebra is to take that of one thread."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    try:
        mmap.mmap(-1, _NUMPY_BYTES).close()
    except OSError:
        return False
    return True


def _supervise() -> None:
    """Go on in a process of its own, and explain its end: threads of compiled libraries that get no memory abort it
    before Python hears of that. Returns in that process only."""
    child = os.fork()
    if not child:
        return
    status = _end_of(child)
    if not os.WIFSIGNALED(status):
        os._exit(os.WEXITSTATUS(status))
    ended_by = os.WTERMSIG(status)
    if ended_by in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS):
        _lacks(MemoryError())
        os._exit(EXIT_ERROR)
    signal.signal(ended_by, signal.SIG_DFL) if ended_by != signal.SIGKILL else None
    os.kill(os.getpid(), ended_by)


_BY_THE_TERMINAL = 0x80
"""What a signal's code says that came to the whole group of processes at once (SI_KERNEL, on Linux)."""


def _end_of(child: int) -> int:
    """How it ended. Signals that came to this process alone are passed on to it."""
    watched = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}
    if not hasattr(signal, "sigwaitinfo"):  # macOS
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return os.waitpid(child, 0)[1]
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, watched)
            return status
        came = signal.sigwaitinfo(watched)
        if came.si_signo != signal.SIGCHLD and came.si_code != _BY_THE_TERMINAL:
            os.kill(child, came.si_signo)


_MEMORY = ("start new thread", "alloc", "failed to map segment", "cannot allocate memory")
_SCARCE = {
    errno.EMFILE: "open files",
    errno.ENFILE: "open files",
    errno.ENOMEM: "memory",
    errno.ENOSPC: "room on a disk",
}


def _lacks(error: Exception) -> bool:
    """Whether an error says that the process gets no more of something; then the person is told."""
    what = _SCARCE.get(error.errno or 0) if isinstance(error, OSError) else None
    if what is None and (isinstance(error, MemoryError) or any(words in str(error).lower() for words in _MEMORY)):
        what = "memory or threads"
    if what is not None:
        click.echo(f"Error: this process gets no more {what}: allow it more, and run the same command again", err=True)
    return what is not None


def _interrupted(arguments: Sequence[str] | None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    asks = (
        bool(words)
        and words[0] in ("add", "cluster", "demo", "suggest", "preview", "tune")
        and "--dry-run" not in words
    )
    kept = " What was asked so far is kept: the same command continues from there." if asks else ""
    click.echo(f"\nInterrupted.{kept}", err=True)
    return EXIT_INTERRUPTED
