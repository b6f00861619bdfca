"""store: what was written is there after a kill, damage is named, and one process at a time holds a run."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manylens.errors import StoreError
from manylens.files import write_atomically
from manylens.models.base import LookRequest, request_key
from manylens.settings import Settings
from manylens.store.answers import Failure, StoredAnswer, StoredReply
from manylens.store.feature_shards import FeatureShards
from manylens.store.peek import Held, peek_held
from manylens.store.run_folder import RunFolder
from manylens.types import Image, Thumbnail, Unreadable, answer_key

JPEG = b"\xff\xd8 whole \xff\xd9"


def unit(seed: int, size: int = 16) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=size)
    return (vector / np.linalg.norm(vector)).astype(np.float16)


def look(i: int, text: str = "hearts") -> StoredAnswer:
    request = f"look at {i}"
    reply = StoredReply("look", {"description": text, "confidence": 0.5}, unit(i))
    return StoredAnswer(answer_key("model", request), "suit", f"image{i}", "model", request, reply, 0.25)


def judge(text: str, request: str = "judge") -> StoredAnswer:
    reply = StoredReply("judge", {"probability": 0.25, "reason": text})
    return StoredAnswer(answer_key("model", request), text, "image", "model", request, reply)


def test_answers_survive_reopening_with_the_same_numbers(tmp_path: Path) -> None:
    answers = [look(i) for i in range(1200)]  # more than SQLite takes in one query
    with RunFolder.open(tmp_path / "out") as run:
        run.put_answers(answers)
    with RunFolder.open(tmp_path / "out") as run:
        found = run.get_answers([answer.key for answer in answers] + ["unknown"])
    assert found == {answer.key: answer.reply for answer in answers}
    assert all(np.array_equal(found[a.key].embedding, a.reply.embedding) for a in answers)  # type: ignore[arg-type]


@given(text=st.text(st.characters(), max_size=50), request=st.text(st.characters(), max_size=50))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_any_text_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, text: str, request: str) -> None:
    """Lone surrogates, NULs, quotes: models and file systems give everything."""
    answer = judge(text, request)
    with RunFolder.open(tmp_path_factory.mktemp("run")) as run:
        run.put_answers([answer])
        assert run.get_answers([answer.key])[answer.key].fields["reason"] == text
        assert run.verify() == []


def test_the_key_is_the_one_that_models_derive() -> None:
    for identity, rendered in [("weights", "look"), ("🃏", '{"a": "\udcff"}'), ("", "")]:
        model: Any = SimpleNamespace(identity=identity, render=lambda request, rendered=rendered: rendered)
        assert answer_key(identity, rendered) == request_key(model, LookRequest("suit", "a"))


def test_the_key_tells_models_and_requests_apart() -> None:
    keys = {answer_key(model, request) for model in ("a", "b", "a b") for request in ("x", "y", '", "x')}
    assert len(keys) == 9


def test_a_stored_answer_is_never_changed(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        run.put_answers([look(1, "hearts")])
        run.put_answers([look(1, "spades"), look(2)])
        assert run.get_answers([look(1).key])[look(1).key].fields["description"] == "hearts"


def test_an_answer_clears_its_failure_and_no_other(tmp_path: Path) -> None:
    failures = [Failure(look(i).key, "look", "suit", f"image{i}", "time-out") for i in (1, 2)]
    with RunFolder.open(tmp_path) as run:
        run.record_failures(failures)
        run.put_answers([look(1)])
        assert run.failures() == (failures[1],)


def test_a_batch_with_one_bad_row_stores_nothing(tmp_path: Path) -> None:
    """A transaction is whole or not there."""
    bad = StoredAnswer(look(2).key, "suit", None, "model", "look at 2", look(2).reply)  # type: ignore[arg-type]
    with RunFolder.open(tmp_path) as run:
        with pytest.raises(StoreError):
            run.put_answers([look(1), bad])
        assert run.get_answers([look(1).key]) == {}
        run.put_answers([look(1)])  # and the store goes on working
        assert len(run.get_answers([look(1).key])) == 1


def test_the_collection_round_trips_with_undecodable_names(tmp_path: Path) -> None:
    images = [Image("a", ("x\udcff.png", "y\n.png"), 4, 3), Image("b", ("z.png",), 1, 1)]
    unreadable = [Unreadable("bad\udcfe.jpg", "truncated")]
    with RunFolder.open(tmp_path) as run:
        run.put_thumbnails([Thumbnail(image.id, image.width_px, image.height_px, JPEG) for image in images])
        run.record_collection(images, unreadable)
    with RunFolder.open(tmp_path) as run:
        assert run.images() == tuple(images)
        assert run.unreadable() == tuple(unreadable)
        assert run.known_images() == {"a": (4, 3), "b": (1, 1)}
        assert run.thumbnail("b") == JPEG
        run.record_collection(images[:1], [])
        assert (run.images(), run.unreadable()) == (tuple(images[:1]), ())
        assert "b" in run.known_images(), "an image that comes back needs no decoding"


def test_an_image_without_thumbnail_is_refused(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        with pytest.raises(StoreError, match="1 have none"):
            run.record_collection([Image("a", ("x.png",), 1, 1)], [])
        with pytest.raises(StoreError, match="'a' has none"):
            run.thumbnail("a")


def test_a_second_holder_is_told_who_has_the_run(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path), pytest.raises(StoreError, match=f"held by process {os.getpid()} on "):
        RunFolder.open(tmp_path)
    RunFolder.open(tmp_path).close()


@pytest.mark.parametrize("kind", ["file", "other files", "not a database", "other schema"])
def test_what_is_no_run_is_refused_with_a_cure_and_left_alone(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
    if kind == "other files":
        (out / "thesis.txt").write_text("mine")
    if kind == "not a database":
        (out / "run.sqlite").write_text("mine" * 100)
    if kind == "other schema":
        RunFolder.open(out).close()
        connection = sqlite3.connect(out / "run.sqlite")
        connection.execute("PRAGMA user_version = 99")
        connection.commit()
        connection.close()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.suffix in (".txt", "") and path.is_file()}
    with pytest.raises(StoreError) as caught:
        RunFolder.open(out)
    assert "choose another --out" in caught.value.hint
    assert {path: path.read_bytes() for path in before} == before
    if kind != "file":  # the failed attempt holds nothing
        with pytest.raises(StoreError) as caught:
            RunFolder.open(out)
        assert "held by" not in str(caught.value)


def test_what_file_managers_leave_behind_makes_no_folder_full(tmp_path: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(b"icons")
    assert peek_held(tmp_path, "nano:", (), (), Settings()) == Held()
    RunFolder.open(tmp_path).close()
    assert (tmp_path / ".DS_Store").exists()


def test_must_exist_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has none"):
        RunFolder.open(tmp_path / "out", must_exist=True)
    assert not (tmp_path / "out").exists()


def test_a_kill_while_the_run_was_being_made_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "run.lock").write_text("process 1 on nowhere")
    (tmp_path / "run.sqlite").touch()
    with RunFolder.open(tmp_path) as run:
        assert run.verify() == []


def test_a_full_disk_is_explained_and_loses_nothing(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        run.put_answers([look(1)])
        pages = run._connection.execute("PRAGMA page_count").fetchone()[0]
        run._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="free some space"):
            run.put_answers([look(i, "long " * 200) for i in range(2, 200)])
        assert set(run.get_answers(look(i).key for i in range(200))) == {look(1).key}


def test_threads_share_a_run(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def work(start: int) -> None:
        try:
            for i in range(start, start + 25):
                run.put_answers([look(i)])
                assert run.get_answers([look(i).key])
        except BaseException as error:
            errors.append(error)

    with RunFolder.open(tmp_path) as run:
        threads = [threading.Thread(target=work, args=(100 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(run.get_answers(look(i).key for i in range(400))) == 100


DAMAGE = {
    "key does not follow": "UPDATE answers SET request = CAST('look at 9' AS BLOB), dictionary = NULL "
    "WHERE image_id = 'image1'",
    "key does not follow ": "UPDATE answers SET model = model + 1 WHERE image_id = 'image1'",
    "checksum": "UPDATE answers SET reply = replace(reply, 'hearts', 'spades') WHERE image_id = 'image1'",
    "checksum ": "UPDATE answers SET embedding = zeroblob(32) WHERE image_id = 'image1'",
    "kind must be": "UPDATE answers SET kind = 'guess' WHERE image_id = 'image1'",
    "a judge reply has": "UPDATE answers SET kind = 'judge' WHERE image_id = 'image1'",
    "checksum  ": "UPDATE answers SET tokens_in = 1, tokens_out = 1 WHERE image_id = 'image1'",
    "thumbnail does not match": "UPDATE thumbnails SET jpeg = CAST(replace(jpeg, 'whole', 'whale') AS BLOB)",
    "key does not follow  ": "UPDATE answers SET request = X'FF00FF' WHERE image_id = 'image1'",
    "checksum   ": "UPDATE answers SET reply = CAST(X'7B22FF227D' AS TEXT) WHERE image_id = 'image1'",
    "not a whole JPEG": "UPDATE thumbnails SET jpeg = substr(jpeg, 1, 5)",
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_verify_names_every_kind_of_damage(tmp_path: Path, problem: str) -> None:
    with RunFolder.open(tmp_path) as run:
        run.put_answers([look(1), look(2)])
        run.put_thumbnails([Thumbnail("a", 1, 1, JPEG)])
        assert run.verify() == []
        run._connection.execute(DAMAGE[problem])
        found = run.verify()
        assert len(found) == 1
        assert problem.strip() in str(found[0])


@pytest.mark.parametrize("seed", range(25))
def test_bytes_that_rot_on_the_disk_end_in_an_explained_error_or_a_named_problem(tmp_path: Path, seed: int) -> None:
    with RunFolder.open(tmp_path) as run:
        run.put_answers([look(i) for i in range(100)])
    path = tmp_path / "run.sqlite"
    content = bytearray(path.read_bytes())
    noise = random.Random(seed)
    start = noise.randrange(100, len(content) - 200)
    content[start : start + 200] = noise.randbytes(200)
    path.write_bytes(content)
    try:
        with RunFolder.open(tmp_path) as run:
            named = bool(run.verify())
            lost = 100 - len(run.get_answers(look(i).key for i in range(100)))
            assert named or lost == 0
    except StoreError as error:
        assert error.hint


def test_a_damaged_thumbnail_is_not_handed_out(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        run.put_thumbnails([Thumbnail("a", 1, 1, JPEG)])
        assert run.thumbnail("a") == JPEG
        run._connection.execute(DAMAGE["thumbnail does not match"])
        with pytest.raises(StoreError, match="that of 'a' is damaged"):
            run.thumbnail("a")


def test_a_damaged_answer_is_not_used(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        run.put_answers([look(1)])
        run._connection.execute(DAMAGE["checksum"])
        with pytest.raises(StoreError, match="manylens verify"):
            run.get_answers([look(1).key])


@pytest.mark.parametrize("damage", [b"\xff\xff\xff", "text", None])
def test_an_answer_whose_request_is_damaged_is_left_out(tmp_path: Path, damage: bytes | str | None) -> None:
    whole, damaged = look(1), replace(look(1), key="another", request="another")
    with RunFolder.open(tmp_path / "run") as run:
        run.put_answers([whole, damaged])
        with sqlite3.connect(tmp_path / "run" / "run.sqlite") as other:
            other.execute("PRAGMA ignore_check_constraints = 1")
            other.execute("UPDATE answers SET request = coalesce(?, 3) WHERE key = 'another'", (damage,))
        assert [asked[3] for asked in run.asked_about(whole.image_id)] == [whole.request]
        assert list(run.requests()) == [(whole.key, whole.request)]


def test_verify_finds_an_embedding_that_is_not_of_unit_length(tmp_path: Path) -> None:
    reply = StoredReply("look", {"description": "x", "confidence": 1.0}, np.full(16, np.nan, np.float16))
    with RunFolder.open(tmp_path) as run:
        run.put_answers([StoredAnswer(answer_key("m", "r"), "suit", "a", "m", "r", reply)])
        assert "unit length, got nan" in run.verify()[0].problem


# Older runs, tokens, result files


def test_tokens_come_back_with_their_answer(tmp_path: Path) -> None:
    counted = replace(look(1), reply=replace(look(1).reply, tokens=(700, 9)))
    with RunFolder.open(tmp_path) as run:
        run.put_answers([counted, look(2)])
    with RunFolder.open(tmp_path) as run:
        found = run.get_answers([look(1).key, look(2).key])
        assert (found[look(1).key].tokens, found[look(2).key].tokens) == ((700, 9), None)
        assert run.verify() == []


SCHEMA_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE images (id TEXT PRIMARY KEY, paths TEXT NOT NULL, width_px INTEGER NOT NULL, height_px INTEGER NOT NULL,
                     thumbnail BLOB NOT NULL);
CREATE TABLE unreadable (path TEXT PRIMARY KEY, reason TEXT NOT NULL);
CREATE TABLE answers (key TEXT PRIMARY KEY, kind TEXT NOT NULL, interest TEXT NOT NULL, image_id TEXT NOT NULL,
                      model_identity TEXT NOT NULL, request BLOB NOT NULL, reply TEXT NOT NULL, embedding BLOB,
                      checksum INTEGER NOT NULL, seconds REAL NOT NULL);
CREATE TABLE failures (key TEXT PRIMARY KEY, kind TEXT NOT NULL, interest TEXT NOT NULL, image_id TEXT NOT NULL,
                       reason TEXT NOT NULL);
INSERT INTO meta VALUES ('schema_version', '1');
"""
SCHEMA_2 = """
ALTER TABLE images ADD COLUMN checksum INTEGER;
ALTER TABLE answers ADD COLUMN tokens_in INTEGER;
ALTER TABLE answers ADD COLUMN tokens_out INTEGER;
CREATE TABLE results (path TEXT PRIMARY KEY, sha256 TEXT NOT NULL);
UPDATE meta SET value = '2' WHERE name = 'schema_version';
"""


def test_a_run_of_the_first_schema_goes_on(tmp_path: Path) -> None:
    """It keeps its answers and pictures; what it did not know (tokens, checksums of pictures) stays unknown."""
    old = judge("so it looks")
    reply = json.dumps(old.reply.fields, sort_keys=True)
    row = (old.key, "judge", "suit", "image", "model", b"judge", reply, None, zlib.crc32(reply.encode()), 0.5)
    connection = sqlite3.connect(tmp_path / "run.sqlite")
    connection.executescript(SCHEMA_1)
    connection.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.execute("INSERT INTO images VALUES ('a', '[\"a.png\"]', 4, 3, ?)", (JPEG,))
    connection.commit()
    connection.close()
    for _ in range(2):
        with RunFolder.open(tmp_path) as run:
            assert run.get_answers([old.key]) == {old.key: old.reply}
            assert run.thumbnail("a") == JPEG
            assert run.verify() == []
            run.put_answers([look(1)])
            run.put_thumbnails([Thumbnail("b", 1, 1, JPEG)])


def test_a_run_of_the_second_schema_goes_on(tmp_path: Path) -> None:
    """manylens 0.1.0: tokens and checksums, no decisions, its version in `meta` alone."""
    old = judge("so it looks")
    reply = json.dumps(old.reply.fields, sort_keys=True)
    checksum = zlib.crc32(b"7 9", zlib.crc32(reply.encode()))
    row = (old.key, "judge", "suit", "image", "model", b"judge", reply, None, checksum, 0.5, 7, 9)
    connection = sqlite3.connect(tmp_path / "run.sqlite")
    connection.executescript(SCHEMA_1 + SCHEMA_2)
    connection.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.execute("INSERT INTO results VALUES ('gone.csv', 'abc')")
    connection.commit()
    connection.close()
    for _ in range(2):
        with RunFolder.open(tmp_path) as run:
            assert run.get_answers([old.key]) == {old.key: replace(old.reply, tokens=(7, 9))}
            assert [str(damage) for damage in run.verify()] == [
                "result gone.csv: is gone or was changed; the same command writes it anew"
            ]
            assert run.clusterings() == []
    earlier = sqlite3.connect(tmp_path / "run.sqlite")
    assert earlier.execute("SELECT value FROM meta WHERE name = 'schema_version'").fetchone() != ("2",)


def test_what_is_damaged_is_set_aside_and_the_rest_stays(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        run.put_answers([look(1), look(2)])
        run.put_thumbnails([Thumbnail("a", 1, 1, JPEG), Thumbnail("b", 1, 1, JPEG)])
        run.features("nano", "weights").append(["a"], np.ones((1, 4)))
        run._connection.execute("UPDATE answers SET reply = 'x' WHERE key = ?", (look(1).key,))
        run._connection.execute("UPDATE thumbnails SET checksum = 1 WHERE image_id = 'a'")
        (shard,) = (tmp_path / "features").glob("*/*.npy")
        shard.write_bytes(shard.read_bytes()[:-1])
        damages = run.verify()
        assert sorted(damage.what for damage in damages) == ["answer", "features", "image"]
        run.set_aside(damages)
        assert run.verify() == []
        assert list(run.get_answers([look(1).key, look(2).key])) == [look(2).key]
        assert list(run.known_images()) == ["b"]
        assert run._connection.execute("SELECT key FROM set_aside").fetchall() == [(look(1).key,)]


def test_verify_compares_the_result_files_with_what_was_written(tmp_path: Path) -> None:
    files = ["report.html", "suit/assignments.csv"]
    with RunFolder.open(tmp_path) as run:
        for file in files:
            write_atomically(tmp_path / file, file)
        run.record_results(files)
        assert run.verify() == []
        (tmp_path / files[0]).write_text("edited")
        (tmp_path / files[1]).unlink()
        assert [f"{damage.what} {damage.id}" for damage in run.verify()] == [f"result {file}" for file in files]
        run.forget_results(files)
        assert run.verify() == [], "a run killed while it writes its results is not damaged"


# Whole files or none


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "a.csv", "earlier")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        write_atomically(tmp_path / "a.csv", "later")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_text() == "earlier"


def test_text_is_written_as_utf8_with_its_newlines(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "a.csv", "🃏\r\n\udcff")
    assert (tmp_path / "new" / "a.csv").read_bytes() == "🃏\r\n\\udcff".encode()


def test_results_are_readable_as_the_users_own_files_are(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.csv", "x")
    (tmp_path / "b.csv").write_text("x")
    assert (tmp_path / "a.csv").stat().st_mode == (tmp_path / "b.csv").stat().st_mode


# Features


def test_features_come_back_in_the_order_asked_across_shards(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(7, 3, 2)).astype(np.float16)
    shards = FeatureShards(tmp_path)
    shards.append(["a", "b", "c"], features[:3])
    shards.append(["d", "b", "e"], features[[3, 6, 4]])  # b is known and stays
    for view in (shards, FeatureShards(tmp_path)):
        assert np.array_equal(view.get(["e", "b", "a", "e"]), features[[4, 1, 0, 4]])
        assert ("d" in view, "x" in view, len(view)) == (True, False, 5)
        assert view.get([]).shape == (0, 3, 2)
        assert FeatureShards.damaged(tmp_path) == []
        with pytest.raises(KeyError):
            view.get(["x"])


def test_features_are_read_through_memory_maps(tmp_path: Path) -> None:
    shards = FeatureShards(tmp_path)
    shards.append(["a"], np.ones((1, 4)))
    assert isinstance(shards._shards[0], np.memmap)


def test_a_shard_without_its_index_is_ignored_and_written_again(tmp_path: Path) -> None:
    """What a kill between the two files leaves."""
    shards = FeatureShards(tmp_path)
    shards.append(["a"], np.ones((1, 4)))
    shards.append(["b"], np.ones((1, 4)))
    (tmp_path / "0001.json").unlink()
    shards = FeatureShards(tmp_path)
    assert ("a" in shards, "b" in shards) == (True, False)
    shards.append(["b"], np.full((1, 4), 2))
    assert FeatureShards(tmp_path).get(["a", "b"])[:, 0].tolist() == [1, 2]


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "index"])
def test_a_damaged_shard_is_named_and_never_crashes(tmp_path: Path, damage: str) -> None:
    shards = FeatureShards(tmp_path)
    shards.append(["a"], np.ones((1, 4)))
    shards.append(["b"], np.ones((1, 4)))
    path = tmp_path / "0000.npy"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "index":
        (tmp_path / "0000.json").write_bytes(b'{"ids": ["a')
    elif damage == "cut":
        path.write_bytes(content[:-3])
    else:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = FeatureShards(tmp_path)
    assert "b" in again
    assert "a" not in again
    assert [path.name for path in FeatureShards.damaged(again.folder)] == ["0000.npy"]
    again.append(["a"], np.full((1, 4), 3))
    assert FeatureShards(tmp_path).get(["a"])[0, 0] == 3


def test_features_of_two_shapes_are_a_programmers_error(tmp_path: Path) -> None:
    shards = FeatureShards(tmp_path)
    shards.append(["a"], np.ones((1, 4)))
    with pytest.raises(ValueError, match="one shape"):
        shards.append(["b"], np.ones((1, 5)))
    with pytest.raises(ValueError, match="one row per image"):
        shards.append(["b", "c"], np.ones((1, 4)))


def test_other_weights_have_other_features(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        folders = {run.features(name, weights).folder for name in ("nano", "hf:a/b") for weights in ("v1", "v2")}
    assert len(folders) == 4
    assert all(folder.parent == tmp_path / "features" for folder in folders)


# kill -9

WRITER = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[2])
from test_store import look
from manylens.store.run_folder import RunFolder
with RunFolder.open(sys.argv[1]) as run:
    shards = run.features("nano", "weights")
    i = start = len(shards)
    while True:
        run.put_answers([look(j) for j in range(3 * i, 3 * i + 3)])
        shards.append([f"image{i}"], np.full((1, 500), i % 7))
        i += 1
        print(i, flush=True)
"""


@pytest.mark.slow
def test_kill_9_loses_nothing_that_was_written(tmp_path: Path) -> None:
    """Killed at six random moments; each time all that was acknowledged is whole, and the lock is free again."""
    moments = random.Random(0)
    done = 0
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "out"), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline(), "the writer starts although the one before was killed"
        with pytest.raises(StoreError, match=f"held by process {process.pid} on "):
            RunFolder.open(tmp_path / "out")
        time.sleep(moments.uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
        lines = process.stdout.read().split()
        process.wait()
        done = max([done, *map(int, lines)])
        with RunFolder.open(tmp_path / "out") as run:
            assert run.verify() == []
            wanted = [look(j) for j in range(3 * done)]
            assert len(run.get_answers(answer.key for answer in wanted)) == 3 * done
            features = run.features("nano", "weights").get([f"image{i}" for i in range(done)])
            assert features[:, 0].tolist() == [i % 7 for i in range(done)]
    assert done > 6
