"""Files without an end, folders that the system makes up, and few resources: a reason, and no wrong result."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chat_server import write_pictures

from manylens.cli import main as cli
from manylens.collection.find import find_images
from manylens.collection.source import MOST_FILE_BYTES
from manylens.errors import UsageError
from manylens.files import sha256_of
from manylens.store.feature_shards import FeatureShards


def manylens(*arguments: str, **limits: int) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        for name, most in limits.items():
            resource.setrlimit(getattr(resource, name), (most, most))

    command = [sys.executable, "-m", "manylens", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, preexec_fn=limit)


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and a run on them without a limit."""
    folder = tmp_path_factory.mktemp("free")
    write_pictures(folder / "pictures", 12)
    assert manylens("cluster", str(folder / "pictures"), "--by", "color", "--out", str(folder / "run")).returncode == 0
    return folder


@pytest.mark.parametrize("files", [9, 11, 12, 13, 14, 15, 16, 17, 18, 24])
def test_with_few_open_files_a_run_ends_right_or_with_a_reason(tmp_path: Path, free: Path, files: int) -> None:
    """Pictures that could not be opened for want of files, or whose decoder could not, were once taken for unreadable
    ones and left out."""
    done = manylens(
        "cluster", str(free / "pictures"), "--by", "color", "--out", str(tmp_path / "out"), RLIMIT_NOFILE=files
    )
    if done.returncode == 0:
        runs = (tmp_path / "out", free / "run")
        limited, whole = (json.loads((run / "color" / "summary.json").read_text()) for run in runs)
        assert (limited["images"], limited["clusters"]) == (12, whole["clusters"])
    else:
        assert "Traceback" not in done.stderr or files < 10, "Python itself needs some to start"
        assert not (tmp_path / "out" / "color").exists()


def test_without_open_files_nothing_whole_is_called_damaged(free: Path) -> None:
    """`verify` once advised to set features aside that it could not open."""
    (shards,) = (free / "run" / "features").iterdir()
    assert FeatureShards.damaged(shards) == []
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        for read in (FeatureShards.damaged, FeatureShards, lambda _: sha256_of(free / "run" / "report.html")):
            with pytest.raises(UsageError, match="this process gets no more"):
                read(shards)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of 64 MB; called, it is empty and holds so many files, its own folder included."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(*options: str) -> bool:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)], check=False)
        return done.returncode == 0

    if sys.platform != "linux" or os.geteuid() or not mount("size=64m", "nr_inodes=100"):
        pytest.skip("needs root, to mount a disk")

    def with_files(count: int) -> Path:
        mount("remount", f"nr_inodes={count}")
        return place

    yield with_files
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("files", [1, 3, 9])
def test_on_a_disk_that_holds_no_more_files_a_run_ends_with_a_reason_and_goes_on_later(
    small_disk: Callable[[int], Path], free: Path, files: int
) -> None:
    out = small_disk(files) / "out"
    command = ("cluster", str(free / "pictures"), "--by", "color", "--out", str(out))
    done = manylens(*command)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "holds no more files" in done.stderr.strip().splitlines()[-1]
    small_disk(100)
    assert manylens(*command).returncode == 0
    assert json.loads((out / "color" / "summary.json").read_text())["images"] == 12


_PEAK = """
import runpy, sys
sys.argv = ["manylens", "--help"]
try:
    runpy.run_module("manylens", run_name="__main__")
finally:
    print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmPeak")][0], file=sys.stderr)
"""


@pytest.fixture(scope="module")
def help_bytes() -> int:
    """The address space that `--help` takes here: how much Python itself needs differs between machines."""
    if not Path("/proc/self/status").exists():
        pytest.skip("of Linux")
    done = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    return int(done.stderr.split()[-1]) << 10


@pytest.mark.parametrize("more", [30, 70, 200])
def test_with_hardly_any_memory_the_reason_is_ours(help_bytes: int, more: int) -> None:
    """numpy's algebra ended the process in words of its own."""
    limit = help_bytes + (more << 20)
    done = manylens("doctor", RLIMIT_AS=limit)
    assert done.returncode == 1
    assert "this process gets no more" in done.stderr
    assert manylens("--help", RLIMIT_AS=limit).returncode == 0


@pytest.mark.parametrize("megabytes", [500, 700])
def test_with_little_memory_doctor_ends_right_or_with_a_reason(megabytes: int) -> None:
    """How much nano needs differs between machines: 700 MB were enough for one and too few for another."""
    done = manylens("doctor", RLIMIT_AS=megabytes << 20)
    if done.returncode == 0:
        assert "nano can be used." in done.stdout
    elif done.returncode != 127:  # there the C library itself ends the process, where a thread begins
        assert done.returncode == 1
        assert "this process gets no more" in done.stderr


@pytest.mark.parametrize("megabytes", [400, 600])
def test_with_little_memory_a_run_ends_right_or_with_a_reason(tmp_path: Path, megabytes: int) -> None:
    write_pictures(tmp_path / "pictures", 6)
    done = manylens(
        "cluster", str(tmp_path / "pictures"), "--by", "color", "--out", str(tmp_path / "out"),
        RLIMIT_AS=megabytes << 20,
    )  # fmt: skip
    if done.returncode == 0:
        assert json.loads((tmp_path / "out" / "color" / "summary.json").read_text())["images"] == 6
    elif done.returncode > 0:
        assert "this process gets no more" in done.stderr


def test_an_engine_s_own_error_about_memory_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Fail(Exception):
        """As onnxruntime's: a subclass of Exception alone."""

    def fail(**_: object) -> None:
        raise Fail("[ONNXRuntimeError] : 1 : FAIL : BFCArena::AllocateRawInternal Failed to allocate memory")

    monkeypatch.setattr(cli.commands, "main", fail)
    assert cli.run([]) == 1
    assert "this process gets no more memory" in capsys.readouterr().err


def test_a_sparse_terabyte_is_refused_by_its_size(tmp_path: Path) -> None:
    with open(tmp_path / "huge.jpg", "wb") as file:
        file.write(b"\xff\xd8\xff")
        file.truncate(1 << 40)
    (unreadable,) = find_images(tmp_path).unreadable
    assert unreadable.reason == f"too large: {1 << 40:,} bytes, the limit is {MOST_FILE_BYTES:,}"


def test_a_file_that_grows_is_not_read_for_ever(tmp_path: Path) -> None:
    place = tmp_path / "pictures"
    place.mkdir()
    stop = threading.Event()
    with open(place / "growing.jpg", "wb", buffering=0) as file:
        file.write(b"\xff\xd8\xff" + bytes(40 << 20))

        def grow() -> None:
            while not stop.is_set():
                file.write(bytes(1 << 16))

        thread = threading.Thread(target=grow)
        thread.start()
        began = time.monotonic()
        try:
            (unreadable,) = find_images(place).unreadable
        finally:
            stop.set()
            thread.join()
    assert unreadable.reason == "it grows while it is read" or "not a picture" in unreadable.reason
    assert time.monotonic() - began < 60


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="of Linux")
def test_files_that_the_system_makes_up_are_left_out_with_a_reason(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 2)
    for name, target in {
        "maps.jpg": "/proc/self/maps", "mem.jpg": "/proc/self/mem", "page.png": "/proc/kpagecount", "of": "/proc/self",
        "zero.png": "/dev/zero", "kmsg.jpg": "/proc/kmsg",
    }.items():  # fmt: skip
        (tmp_path / "pictures" / name).symlink_to(target)
    found = find_images(tmp_path / "pictures")
    assert len(found.images) == 2
    assert {file.path for file in found.unreadable} >= {"maps.jpg", "mem.jpg", "of", "zero.png"}
    for folder in ("/proc/self", "/proc/self/fd", "/sys/class"):
        if os.path.isdir(folder):
            with pytest.raises(UsageError, match="makes up"):
                find_images(folder)
