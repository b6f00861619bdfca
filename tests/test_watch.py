"""Watching a folder: what comes is added, a kill and a Ctrl-C lose nothing; and run folders on network drives."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_add import model, put

import manylens
from manylens.collection.watch import turns
from manylens.errors import UsageError
from manylens.files import network_drive


def wait_for(what: Callable[[], bool], *, at_most_s: float = 60.0) -> None:
    end = time.monotonic() + at_most_s
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def sorted_files(out: Path) -> set[str]:
    return {row["image"] for row in csv.DictReader((out / "color" / "assignments.csv").open(encoding="utf-8"))}


@pytest.mark.slow
def test_a_watched_folder_is_kept_sorted_through_a_kill_and_until_a_ctrl_c(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    folder, out = tmp_path / "pictures", tmp_path / "out"
    put(folder, ("red", "green"), range(4))
    manylens.cluster(folder, "color", out=out)

    def watching() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "manylens", "add", str(out), str(folder), "--watch"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        await_turn(process)
        return process

    def await_turn(process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        assert any("Waiting for changes" in line for line in iter(process.stderr.readline, ""))

    process = watching()
    put(folder, ("red",), range(4, 5))
    wait_for(lambda: "red-wide-4.png" in sorted_files(out))
    process.kill()
    process.communicate()
    put(folder, ("green",), range(4, 5))
    process = watching()
    assert "green-wide-4.png" in sorted_files(out), "what came while nobody watched is added at once"
    (folder / "red-wide-0.png").unlink()
    wait_for(lambda: "red-wide-0.png" not in sorted_files(out))
    await_turn(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert len(sorted_files(out)) == 19


def test_python_watches_until_it_is_told_to_stop(tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    folder, out = tmp_path / "pictures", tmp_path / "out"
    put(folder, ("red", "green"), range(4))
    manylens.cluster(folder, "color", model=model(), out=out)
    stop = threading.Event()
    found = []
    for result in manylens.watch(out, folder, model=model(), stop=stop):
        found.append(result["color"].counts.found)
        if len(found) == 1:
            put(folder, ("red",), range(4, 5))  # while the caller works
        else:
            stop.set()
    assert found == [16, 18]


@pytest.mark.parametrize("named", ["folder", ".", "../folder", "link", "a run behind a link"])
def test_what_the_caller_writes_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    pytest.importorskip("watchfiles")
    monkeypatch.setattr("manylens.collection.watch.QUIET_MS", 100)
    folder = tmp_path / "folder"
    own = folder / "own"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    if named == "a run behind a link":
        (tmp_path / "elsewhere").mkdir()
        own.symlink_to(tmp_path / "elsewhere")
    else:
        own.mkdir()
    monkeypatch.chdir(folder if named.startswith(".") else tmp_path)
    stop = threading.Event()
    seen = 0
    for _ in turns(Path("folder" if named.startswith("a run") else named), own, stop):
        seen += 1
        if seen == 1:
            (own / "result.csv").write_text("x")
            threading.Timer(1.0, stop.set).start()
    assert seen == 1


def test_without_the_extra_watching_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(UsageError, match=r"pip install 'manylens\[watch\]'"):
        next(turns(tmp_path, tmp_path / "out"))


MOUNTS = r"""
rootfs / 9p rw 0 0
/dev/sda1 /home ext4 rw 0 0
server:/pictures /home/me/nas nfs4 rw,vers=4.2 0 0
//server/share /mnt/my\040share cifs rw 0 0
me@server: /mnt/ssh fuse.sshfs rw 0 0
portal /run/doc fuse.portal rw 0 0
tmpfs /home/me/nas/fast tmpfs rw 0 0
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a table of Linux")
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/out", ""),
        ("/home/me/nas/out", "nfs4"),
        ("/home/me/nasty", ""),
        ("/home/me/nas/fast/out", ""),
        ("/mnt/my share/a/b", "cifs"),
        ("/mnt/ssh", "fuse.sshfs"),
        ("/run/doc/out", ""),
        ("/opt/out", ""),
    ],
)
def test_network_drives_are_told_by_their_mounts(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert network_drive(path, str(tmp_path / "mounts")) == kind
    assert network_drive(path, str(tmp_path / "none")) == ""


def test_a_run_on_a_network_drive_is_told_where_to_be_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "nas" / "out"
    monkeypatch.setattr("manylens.session.network_drive", lambda path: "nfs4" if "nas" in Path(path).parts else "")
    put(tmp_path / "pictures", ("red", "green"), range(2))
    told: list[str] = []
    manylens.cluster(
        tmp_path / "pictures", "color", model=model(), out=out,
        on_event=lambda event: told.append(getattr(event, "text", "")),
    )  # fmt: skip
    (notice,) = [text for text in told if "network drive" in text]
    assert notice.startswith(f"{out} is on a network drive (nfs4)") and f"such as {Path.home() / 'out'}," in notice
