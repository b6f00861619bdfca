"""Ctrl-C ends a run in whatever phase it is, soon and with exit code 130: real processes, signals, sockets, files."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chat_server import write_pictures
from PIL import Image as PillowImage

from manylens.store.run_folder import RunFolder
from manylens.sync import in_thread

SOON_S = 20.0
"""What an end may take on a busy machine; it takes a second or two."""

LARGE = 12


def cluster(folder: Path, out: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "manylens", "cluster", str(folder), "--by", "color", "--out", str(out), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def interrupt(process: subprocess.Popen[str]) -> str:
    """What it said on standard error; it must end."""
    process.send_signal(signal.SIGINT)
    try:
        _, said = process.communicate(timeout=SOON_S)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "Interrupted." in said
    assert "Traceback" not in said
    return said


def test_ctrl_c_while_a_server_that_never_answers_is_probed(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    write_pictures(tmp_path / "pictures", 3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        process = cluster(tmp_path / "pictures", tmp_path / "out", "--model", "deaf", "--base-url", url)
        connection, _ = server.accept()
        with connection:
            assert connection.recv(100).startswith(b"GET /v1/models")
            assert "the same command continues" in interrupt(process)


@pytest.mark.slow
def test_ctrl_c_while_a_folder_of_large_pictures_is_read(tmp_path: Path) -> None:
    """Twelve pictures of 81 megapixels, of which one at a time is decoded, in a second or so."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    PillowImage.new("RGB", (9000, 9000), "red").save(folder / "0.png", compress_level=1)
    picture = (folder / "0.png").read_bytes()
    for number in range(1, LARGE):
        (folder / f"{number}.png").write_bytes(picture + bytes([number]))
    process = cluster(folder, tmp_path / "out")
    wait_for(process, (tmp_path / "out" / "run.sqlite").exists)
    time.sleep(0.5)
    interrupt(process)
    with RunFolder.open(tmp_path / "out") as run:
        assert len(run.known_images()) < LARGE, "the pictures were all read before it ended"


def test_ctrl_c_while_a_step_computes() -> None:
    script = (
        "import time\n"
        "from manylens.sync import run_until_done\n"
        "async def work():\n"
        "    print('began', flush=True)\n"
        "    time.sleep(120)\n"
        "try: run_until_done(work())\n"
        "except KeyboardInterrupt: raise SystemExit(130)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"
    process.send_signal(signal.SIGINT)
    try:
        assert process.wait(timeout=SOON_S) == 130
    finally:
        process.kill()


def test_a_thread_has_ended_when_its_caller_has_however_often_that_is_cancelled() -> None:
    working, stopped, told = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        working.set()
        assert stopped.wait(60)
        time.sleep(0.2)
        working.clear()
        raise RuntimeError("nobody hears of this")

    async def cancel_twice() -> None:
        task = asyncio.create_task(in_thread(work, told.set))
        await asyncio.to_thread(working.wait)
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.05)
            assert not task.done()
        assert told.is_set()
        stopped.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not working.is_set()

    asyncio.run(cancel_twice())


def test_a_thread_gives_what_its_work_gives() -> None:
    async def both() -> tuple[int, BaseException | int]:
        good, bad = await asyncio.gather(in_thread(lambda: 3), in_thread(lambda: 1 // 0), return_exceptions=True)
        assert isinstance(good, int)
        return good, bad

    good, bad = asyncio.run(both())
    assert good == 3
    assert isinstance(bad, ZeroDivisionError)
