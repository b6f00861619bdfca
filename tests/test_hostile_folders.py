"""Run folders and model folders from somebody else: nothing outside is written, nothing ends in a traceback."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, write_pictures
from hypothesis import given, settings
from hypothesis import strategies as st

import manylens
from manylens.errors import ManylensError, ModelUnavailable, StoreError
from manylens.models.base import ModelOptions
from manylens.models.nano.model import MODEL_FILES
from manylens.models.openai_compatible.dialect import Dialect
from manylens.models.registry import load_model
from manylens.store.answers import reply_checksum, reply_problem
from manylens.store.run_folder import RunFolder


@pytest.fixture
def finished(tmp_path: Path) -> tuple[Path, Path]:
    """Pictures, and the folder of a run over them by nano."""
    write_pictures(tmp_path / "pictures", 6)
    manylens.cluster(tmp_path / "pictures", by="color", out=tmp_path / "out")
    return tmp_path / "pictures", tmp_path / "out"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "name",
    ["run.lock", "run.sqlite", "run.sqlite-wal", ".report.html.tmp", "report.html", "color/.summary.json.tmp", "color",
     "color/clusters", "features"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_a_planted_link_lets_nothing_outside_be_written(finished: tuple[Path, Path], name: str, kind: str) -> None:
    pictures, out = finished
    outside = out.parent / "outside"
    outside.mkdir()
    is_folder = name in ("color", "color/clusters", "features")
    victim = outside / "victim"
    if is_folder:
        shutil.copytree(out / name, victim) if (out / name).is_dir() else victim.mkdir()
        shutil.rmtree(out / name, ignore_errors=True)
    else:
        victim.write_bytes((out / name).read_bytes() if (out / name).is_file() else b"precious")
        (out / name).unlink(missing_ok=True)
    if kind == "hard" and is_folder:
        pytest.skip("folders have no second names")
    (out / name).symlink_to(victim) if kind == "symbolic" else os.link(victim, out / name)
    before = contents(outside)
    for command in (["verify", str(out)], ["cluster", str(pictures), "--by", "color", "--links", "--out", str(out)]):
        done = subprocess.run([sys.executable, "-m", "manylens", *command], capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stderr
        assert done.returncode in (0, 1)
        assert contents(outside) == before


@pytest.mark.parametrize("what", ["removed", "moved", "replaced"])
def test_a_run_folder_that_goes_away_ends_the_run(tmp_path: Path, what: str) -> None:
    pytest.importorskip("openai")
    write_pictures(tmp_path / "pictures", 40)
    out = tmp_path / "out"
    failure: list[BaseException] = []
    with ChatServer(delay_s=0.05) as server:

        def run() -> None:
            try:
                manylens.cluster(
                    tmp_path / "pictures",
                    by="color",
                    model="fake",
                    options=ModelOptions(base_url=server.url, concurrency=2),
                    out=out,
                )
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        while server.count("look") < 4:
            time.sleep(0.02)
        out.rename(tmp_path / "elsewhere")
        if what == "removed":
            shutil.rmtree(tmp_path / "elsewhere")
        elif what == "replaced":
            shutil.copytree(tmp_path / "elsewhere", out)
        thread.join(timeout=60)
    assert len(failure) == 1 and isinstance(failure[0], StoreError)
    assert "was removed, moved or replaced" in str(failure[0])
    assert not (out / "report.html").exists()


TYPES = ["'text'", "x'ff00'", "NULL", "1.5", "-1", "9223372036854775807", "'[[[['", "'{}'", "''", "1e400"]
COLUMNS = {
    "images": ["id", "paths", "width_px", "height_px"],
    "thumbnails": ["image_id", "jpeg", "checksum"],
    "models": ["identity"],
    "dictionaries": ["content"],
    "answers": ["key", "kind", "interest", "image_id", "model", "request", "dictionary", "reply", "embedding",
                "checksum", "tokens_in", "tokens_out", "seconds"],
    "failures": ["key", "reason"],
    "unreadable": ["path", "reason"],
    "results": ["path", "sha256"],
    "meta": ["value"],
}  # fmt: skip


@pytest.mark.fuzz
@settings(max_examples=int(os.environ.get("MANYLENS_FUZZ", "60")), deadline=None)
@given(data=st.data())
def test_values_of_other_types_in_a_database_are_explained(data: st.DataObject, tmp_path_factory: Any) -> None:
    folder = _a_run(tmp_path_factory)
    out = Path(tmp_path_factory.mktemp("copy")) / "out"
    shutil.copytree(folder / "out", out)
    table = data.draw(st.sampled_from(sorted(COLUMNS)))
    column = data.draw(st.sampled_from(COLUMNS[table]))
    value = data.draw(st.sampled_from(TYPES))
    with sqlite3.connect(out / "run.sqlite") as database:
        try:
            database.execute(f"UPDATE OR IGNORE {table} SET {column} = {value}")
        except sqlite3.IntegrityError:
            return
    for use in (verify, again):
        try:
            use(folder / "pictures", out)
        except ManylensError as error:
            assert str(error)
    shutil.rmtree(out.parent)


def verify(pictures: Path, out: Path) -> None:
    with RunFolder.open(out, must_exist=True) as run:
        list(map(str, run.verify()))
        run.images(), run.unreadable(), run.failures()


def again(pictures: Path, out: Path) -> None:
    manylens.cluster(pictures, by="color", out=out)


_made: list[Path] = []


def _a_run(factory: Any) -> Path:
    """One run for all examples."""
    if not _made:
        folder = Path(factory.mktemp("made"))
        write_pictures(folder / "pictures", 4)
        (folder / "pictures" / "broken.jpg").write_bytes(b"no picture")
        manylens.cluster(folder / "pictures", by="color", out=folder / "out")
        _made.append(folder)
    return _made[0]


@pytest.mark.parametrize(
    ("kind", "reply", "tokens"),
    [
        ("look", {"description": "red", "confidence": 7}, (None, None)),
        ("look", {"description": 7, "confidence": 0.5}, (None, None)),
        ("judge", {"probability": -0.5, "reason": ""}, (None, None)),
        ("judge", {"probability": float("nan"), "reason": ""}, (None, None)),
        ("judge", {"probability": True, "reason": ""}, (None, None)),
        ("judge", {"probability": 0.5, "reason": ["a"]}, (None, None)),
        ("choose", {"probabilities": [10**400, 0], "reason": ""}, (None, None)),
        ("choose", {"probabilities": [0.5, 0.5], "reason": None}, (None, None)),
        ("complete", {"text": {}}, (None, None)),
        ("complete", {"text": "a"}, (-5, 3)),
        ("complete", {"text": "a"}, (2**60, 3)),
        ("complete", [], (1, 1)),
        ("complete", {"text": "a"}, (1, None)),
    ],
)
def test_a_forged_answer_with_a_right_checksum_is_damage(kind: str, reply: Any, tokens: Any) -> None:
    text = json.dumps(reply)
    vector = b"\x00\x3c" if kind == "look" else None  # 1.0
    assert reply_problem(kind, text, vector, reply_checksum(text, vector, *tokens), *tokens)


def test_a_result_file_outside_of_the_run_is_not_read(finished: tuple[Path, Path]) -> None:
    _, out = finished
    with sqlite3.connect(out / "run.sqlite") as database:
        for path in ("/dev/zero", "../../../../../../../dev/zero", "pipe"):
            database.execute("INSERT INTO results VALUES (?, 'x')", (path,))
    os.mkfifo(out / "pipe")
    with RunFolder.open(out) as run:
        assert [damage.id for damage in run.verify()] == ["../../../../../../../dev/zero", "/dev/zero", "pipe"]


@pytest.mark.parametrize(
    "record",
    ['{"a": {"words": "evil"}}', '{"a": {"pictures": "x"}}', '{"a": {"edge_scale": 1e999}}', '{"a": {"logprobs": -1}}',
     "[" * 99_999, "{",      '{"a": {"thinks": 3}}', '{"a": {"unknown": 3}}', '{"a": 5}', "[]", "\x00"],
)  # fmt: skip
def test_a_damaged_record_of_a_model_counts_as_none(tmp_path: Path, record: str) -> None:
    from manylens.models.openai_compatible.records import read_recorded

    (tmp_path / "models.json").write_text(record)
    assert read_recorded(tmp_path / "models.json") == {}
    (tmp_path / "models.json").write_text(json.dumps({"a": Dialect(thinks=True).to_dict()}))
    assert read_recorded(tmp_path / "models.json") == {"a": Dialect(thinks=True)}


NANO = Path(str(resources.files("manylens.models") / "nano"))


@pytest.mark.parametrize("file", MODEL_FILES)
@pytest.mark.parametrize("how", ["cut", "empty", "other"])
def test_a_damaged_folder_of_nano_is_explained(tmp_path: Path, file: str, how: str) -> None:
    for one in MODEL_FILES:
        (tmp_path / one).symlink_to(NANO / one)
    whole = (NANO / file).read_bytes()
    (tmp_path / file).unlink()
    (tmp_path / file).write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "other": b"{}"}[how])
    with pytest.raises(ModelUnavailable, match="do not work"):
        load_model(f"nano:{tmp_path}", None)  # type: ignore[arg-type]  # no picture is read
