"""Never lose, never repeat: real processes, killed, starved of disk, and started twice."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, write_pictures
from PIL import Image as PillowImage

HERE = Path(__file__).parent
KILLS = int(os.environ.get("MANYLENS_KILLS", "3"))
"""Moments at which a run is killed, per test. The suite takes few; `MANYLENS_KILLS=50` takes them all."""

NO_ANSWERS = ("models", "embeddings", "question")
"""Requests to a `ChatServer` that no answer of the run is: embeddings are of descriptions, which images share."""

SECRET = "sk-very-secret-0123456789abcdef"
COLORS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (30, 60, 200)}
SIZES = {"wide": (40, 20), "tall": (20, 40)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 pictures."""
    place = tmp_path_factory.mktemp("pictures")
    for number in range(300):
        color, size = list(COLORS)[number % 3], list(SIZES)[number % 2]
        image = PillowImage.new("RGB", SIZES[size], COLORS[color])
        image.putpixel((number % 20, number // 20), (255, 255, 255))
        image.save(place / f"{color}-{size}-{number:03d}.png")
    return place


def client(folder: Path, out: Path, *, latency_s: float = 0.01, budget: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "far_client.py"), str(folder), str(out), f"{out}.served", str(latency_s)]
    return subprocess.Popen([*command, str(budget)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said


def results(out: Path) -> dict[str, bytes]:
    """Every result file's bytes, but for `seconds`."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for name in list(found):
        if name.startswith(("run.", "features", "models.json")):
            del found[name]
        elif name.endswith("summary.json"):
            summary = json.loads(found[name])
            del summary["seconds"]
            found[name] = json.dumps(summary).encode()
    return found


def stored_keys(out: Path) -> set[str]:
    if not (out / "run.sqlite").is_file():
        return set()
    connection = sqlite3.connect(out / "run.sqlite")
    try:
        return {key for (key,) in connection.execute("SELECT key FROM answers WHERE kind <> 'embed'")}
    except sqlite3.OperationalError:  # killed while it was being made
        return set()
    finally:
        connection.close()


def served(out: Path) -> list[str]:
    file = Path(f"{out}.served")
    return file.read_text().split() if file.is_file() else []


@pytest.mark.parametrize("budget", [0, 640], ids=["no budget", "budget spent"])
@pytest.mark.slow
def test_kill_9_at_any_moment_then_resume_ends_in_the_same_files_and_repeats_no_answer(
    folder: Path, tmp_path: Path, budget: int
) -> None:
    finish(client(folder, tmp_path / "undisturbed", budget=budget))
    sent = len(served(tmp_path / "undisturbed"))
    expected = results(tmp_path / "undisturbed")
    assert {name.rpartition("/")[2] for name in expected} == {
        *("report.html", "unreadable.csv", "assignments.csv", "clusters.json", "summary.json", "vocabulary.json")
    }
    assert max(Counter(served(tmp_path / "undisturbed")).values()) == 1
    partial = json.loads(expected["color/summary.json"])["partial"]
    assert partial == bool(budget)
    moments = random.Random(budget)
    killed_early = 0
    for trial in range(KILLS):
        out = tmp_path / str(trial)
        process = client(folder, out, budget=budget)
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        moment = moments.randrange(sent)  # not a time: how fast a machine is differs from one minute to the next
        while process.poll() is None and len(served(out)) < moment:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.02))
        killed_early += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kept = stored_keys(out)
        before = len(served(out))
        assert before - len(kept) <= 8, "a kill loses at most the calls under way"
        finish(client(folder, out, budget=budget))
        assert results(out) == expected, f"trial {trial}"
        again = served(out)[before:]
        assert not kept & set(again), "no stored answer is asked for again"
        assert max(Counter(again).values(), default=1) == 1
        if budget:
            assert len(stored_keys(out)) <= budget
    assert killed_early >= KILLS // 2


def test_ctrl_c_keeps_what_was_answered(folder: Path, tmp_path: Path) -> None:
    process = client(folder, tmp_path / "out")
    assert process.stdout is not None
    process.stdout.readline()
    while len(served(tmp_path / "out")) < 50:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert len(stored_keys(tmp_path / "out")) >= len(served(tmp_path / "out")) - 8


def test_a_larger_budget_goes_on_where_a_smaller_one_ended(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for budget in (300, 640, 0):
        finish(client(folder, out, budget=budget))
        assert max(Counter(served(out)).values()) == 1
        assert budget == 0 or len(served(out)) <= budget
    finish(client(folder, tmp_path / "undisturbed"))
    assert results(out) == results(tmp_path / "undisturbed")


def test_a_second_process_is_told_who_holds_the_run_and_nothing_breaks(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = client(folder, out, latency_s=0.02)  # both ask while it still runs, on a busy machine too
    while len(served(out)) < 10:
        time.sleep(0.01)
    for arguments in (["cluster", str(folder), "--by", "color", "--out", str(out)], ["verify", str(out)]):
        second = subprocess.run([sys.executable, "-m", "manylens", *arguments], capture_output=True, text=True)
        assert second.returncode == 1
        assert f"is held by process {first.pid} on " in second.stderr
    finish(first)
    assert subprocess.run([sys.executable, "-m", "manylens", "verify", str(out)]).returncode == 0
    assert max(Counter(served(out)).values()) == 1


def test_a_disk_that_fills_up_is_explained_and_the_run_goes_on_when_there_is_room(folder: Path, tmp_path: Path) -> None:
    """No file may grow past 2 MB, which the write-ahead log does midway: writes then fail as on a full disk."""
    finish(client(folder, tmp_path / "undisturbed", latency_s=0.001))
    out = tmp_path / "out"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else the system kills the process
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    command = [sys.executable, str(HERE / "far_client.py"), str(folder), str(out), f"{out}.served", "0.001", "0"]
    starved = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert starved.returncode == 1
    assert "StoreError" in starved.stderr.splitlines()[-1]
    assert "nothing stored is lost" in starved.stderr.splitlines()[-1]
    kept, before = stored_keys(out), len(served(out))
    assert (
        len(kept) > 40
    )  # 49 to 58 were seen: how many pages an answer takes in the log differs a little from run to run
    finish(client(folder, out))
    assert results(out) == results(tmp_path / "undisturbed")
    assert not kept & set(served(out)[before:])


# Against a server over HTTP: the server's own count


def http_client(folder: Path, out: Path, url: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "manylens", "cluster", str(folder), "--by", "color", "--by", "shape"]
    command += ["--model", "fake", "--base-url", url, "--out", str(out), *arguments]
    environment = {**os.environ, "MANYLENS_API_KEY": SECRET}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def bodies(server: ChatServer) -> list[Any]:
    """Of the requests for embeddings."""
    return [one.body for one in server.log if one.kind == "embeddings"]


def chats(server: ChatServer, start: int = 0) -> Counter[str]:
    """Good answers by request."""
    log = server.log[start:]
    return Counter(one.key for one in log if one.status == 200 and one.kind not in NO_ANSWERS)


@pytest.mark.slow
def test_kill_9_of_a_run_against_a_server(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    write_pictures(tmp_path / "pictures", 300 if KILLS >= 10 else 120)
    with ChatServer(key=SECRET, delay_s=0.005) as server:
        began = time.monotonic()
        finish(http_client(tmp_path / "pictures", tmp_path / "undisturbed", server.url))
        whole_s = time.monotonic() - began
        expected = results(tmp_path / "undisturbed")
        assert max(chats(server).values()) == 1
        assert server.max_concurrency <= 8
        moments = random.Random(1)
        for trial in range(KILLS if KILLS >= 10 else 2):
            out = tmp_path / str(trial)
            start = len(server.log)
            process = http_client(tmp_path / "pictures", out, server.url)
            time.sleep(moments.uniform(0.3, 1) * whole_s)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            time.sleep(0.1)  # what the server was about to send
            kept = len(stored_keys(out))
            answered = chats(server, start).total()
            assert answered - kept <= 8
            finish(http_client(tmp_path / "pictures", out, server.url))
            assert results(out) == expected
            repeated = sum(times - 1 for times in chats(server, start).values())
            assert repeated <= answered - kept, "only what was under way at the kill is asked again"


def test_the_key_is_nowhere(tmp_path: Path) -> None:
    """Not in what is printed and not in a file of the run, when all goes well and when the key is refused midway."""
    pytest.importorskip("openai")
    write_pictures(tmp_path / "pictures", 60)
    with ChatServer(key=SECRET) as server:
        server.inject("503", 3)
        server.inject("malformed", 2)
        said: list[str] = []
        for fault in ("expired-key", None):
            if fault is not None:
                server.inject("expired-key", None, kind="choose")
            process = http_client(tmp_path / "pictures", tmp_path / "out", server.url)
            said += process.communicate(timeout=120)
            assert process.returncode == (1 if fault else 0), said[-1]
            server.heal()
        assert "refuses the key" in said[1]
        assert max(chats(server).values()) == 1
    assert SECRET not in "".join(said)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    "limit", [["--budget-calls", "70"], ["--budget-usd", "0.1", "--price-in", "1", "--price-out", "1"]]
)
def test_a_server_never_sees_more_than_the_budget_whatever_the_concurrency(tmp_path: Path, limit: list[str]) -> None:
    """70 requests, of which five find out what the model can do; or 0.1 dollars at 1 a million."""
    pytest.importorskip("openai")
    write_pictures(tmp_path / "pictures", 60)
    with ChatServer(delay_s=0.01) as server:
        process = http_client(tmp_path / "pictures", tmp_path / "out", server.url, "--concurrency", "32", *limit)
        said, complaint = process.communicate(timeout=120)
        assert process.returncode == 0, complaint
        assert server.max_concurrency <= 32
        summaries = [json.loads((tmp_path / "out" / name / "summary.json").read_text()) for name in ("color", "shape")]
        asked = chats(server).total()
        if "--budget-calls" in limit:
            probes = server.count("question") + sum(isinstance(body.get("input"), list) for body in bodies(server))
            probes += sum("messages" in body for body in bodies(server))
            assert f"Beside them {probes} requests ended in no answer" in said
            assert 69 <= asked + probes <= 70, "an image is looked at through both interests or none"
            assert [summary["not_looked"] for summary in summaries] == [28, 28]
        else:
            assert sum(summary["usd"] for summary in summaries) <= 0.1
        assert asked == sum(summary["calls"] for summary in summaries)
