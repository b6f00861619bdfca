"""Corrections outlive kills, other processes and older run folders."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_add import model, put
from test_correct import RED, names

import manylens
from manylens.correcting import Corrector
from manylens.correcting.door import bring_up_to_date
from manylens.correcting.settle import active
from manylens.errors import StoreError
from manylens.method.corrections import apply_rulings
from manylens.results.result import Result
from manylens.store.run_folder import RunFolder
from manylens.store.schema import MIGRATIONS

KILLS = int(os.environ.get("MANYLENS_KILLS", "3"))

_TALKS = """
import sys
import manylens
print("began", flush=True)
for turn in range(10_000):
    image = f"red-wide-{turn % 4}.png"
    manylens.correct(sys.argv[1], "color", [{"kind": "move", "images": [image], "cluster": "green"},
                                            {"kind": "new", "images": ["blue-tall-0.png"], "name": f"new {turn}"}])
    print(turn, flush=True)
    if turn % 3 == 2:
        manylens.undo(sys.argv[1], "color")
"""

_HOLDS = """
import sys
from manylens.store.run_folder import RunFolder
from manylens.store.schema import MIGRATIONS
with RunFolder.open(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def begun(tmp_path: Path) -> Result:
    put(tmp_path / "pictures", ("red", "green", "blue"), range(4))
    return manylens.cluster(tmp_path / "pictures", "color", model=model(), out=tmp_path / "out")


def client(code: str, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_kill_9_during_a_correction_leaves_each_step_whole(begun: Result) -> None:
    moments = random.Random(5)
    said = 0
    for _ in range(KILLS):
        process = client(_TALKS, begun.out)
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        time.sleep(moments.uniform(0.05, 0.6))
        process.send_signal(signal.SIGKILL)
        rest = process.communicate()[0].split()
        with RunFolder.open(begun.out) as run:
            corrector = Corrector(run, "color")
            steps = [step for step in corrector.steps if not step.is_undone]
            assert all(len(step.rulings) == 2 for step in corrector.steps), "a step is whole or not there"
            assert len(corrector.steps) + len(rest) // 3 >= said + len(rest), "what was said is kept"
            said = len(steps)
            again = apply_rulings(corrector.decided, active(corrector.steps))
            assert again.assignments == corrector.shown.assignments
            assert again.clusters == corrector.shown.clusters
            bring_up_to_date(run, print)
            shown = {a.image_id: a.cluster for a in corrector.shown.assignments}
            names_of = {cluster.id: cluster.name for cluster in corrector.shown.clusters}
            expected = {path: names_of.get(shown[image.id] or 0, "") for image in run.images() for path in image.paths}
            assert run.stale() == ()
        assert names(begun.out) == expected


def test_one_process_corrects_at_a_time(begun: Result) -> None:
    process = client(_HOLDS, begun.out)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        with pytest.raises(StoreError, match=r"holds|held"):
            manylens.correct(begun, "color", [{"kind": "unassign", "images": [RED]}])
    finally:
        process.communicate("")
    assert manylens.correct(begun, "color", [{"kind": "unassign", "images": [RED]}]).step is not None


AS_BEFORE = {
    "images": "id, paths, width_px, height_px, jpeg, checksum FROM now.images JOIN now.thumbnails ON image_id = id",
    "answers": "key, kind, interest, image_id, identity, request, reply, embedding, checksum, seconds, tokens_in, "
    "tokens_out FROM now.answers JOIN now.models ON models.id = model",
    "failures": "key, kind, interest, image_id, reason FROM now.failures",
}
"""Images with their thumbnails, answers with their model, as they were at first."""


def test_a_run_folder_of_before_corrections_is_corrected(begun: Result) -> None:
    path = begun.out / "run.sqlite"
    path.rename(now := begun.out / "now.sqlite")
    database = sqlite3.connect(path)
    for migration in MIGRATIONS[:3]:
        database.executescript(migration)
    database.execute("ATTACH ? AS now", (str(now),))
    tables = [name for (name,) in database.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]
    with database:
        for table in set(tables) - {"constraints"}:
            database.execute(f"INSERT INTO main.{table} SELECT {AS_BEFORE.get(table, f'* FROM now.{table}')}")
        ((account,),) = database.execute("SELECT account FROM main.clusterings").fetchall()
        old = {key: value for key, value in json.loads(account).items() if key not in ("last_id", "decided_estimate")}
        database.execute("UPDATE main.clusterings SET account = ?", (json.dumps(old),))
        database.execute("PRAGMA user_version = 3")
    database.close()
    now.unlink()
    before = names(begun.out)
    manylens.correct(begun, "color", [{"kind": "new", "images": [RED], "name": "odd"}])
    assert names(begun.out) == {**before, RED: "odd"}
    manylens.undo(begun, "color")
    assert names(begun.out) == before


def test_a_damaged_log_is_said(begun: Result) -> None:
    manylens.correct(begun, "color", [{"kind": "unassign", "images": [RED]}])
    database = sqlite3.connect(begun.out / "run.sqlite")
    with database:
        database.execute('UPDATE corrections SET said = \'{"kind": 3, "x": 1}\'')
    database.close()
    with pytest.raises(StoreError, match=r"corrections of .* are damaged"):
        manylens.undo(begun, "color")
