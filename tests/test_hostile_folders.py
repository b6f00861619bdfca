"""Run folders and model folders from somebody else: nothing outside is written, nothing ends in a traceback."""

from __future__ import annotations

import asyncio
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

import pathspec
import pytest
from chat_server import ChatServer, write_pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

import manylens
from manylens.collection.ignored import ignore_spec
from manylens.errors import ManylensError, ModelUnavailable, StoreError
from manylens.models.base import LookRequest, ModelOptions
from manylens.models.huggingface import decoding
from manylens.models.nano.model import MODEL_FILES, Nano
from manylens.models.openai_compatible.dialect import Dialect
from manylens.models.registry import load_model
from manylens.store.answers import reply_checksum, reply_problem
from manylens.store.run_folder import RunFolder
from manylens.sync import within


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
    "images": ["id", "paths", "width_px", "height_px", "frames"],
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


_MATCH = """
import sys
from manylens.collection.find import find_images
print(len(find_images(sys.argv[1]).images))
"""


@pytest.mark.parametrize("line", ["*a" * 60 + "b", "[ab]*" * 50 + "c", "?*" * 60 + "b", "**/*a*" + "*[!b]" * 40 + "c"])
def test_no_line_of_an_ignore_file_takes_for_ever(tmp_path: Path, line: str) -> None:
    """A regular expression tried all ways to share a name out among the stars."""
    write_pictures(tmp_path / "pictures", 1)
    os.rename(tmp_path / "pictures" / "0000.png", tmp_path / "pictures" / f"{'a' * 240}.png")
    (tmp_path / "pictures" / ".manylensignore").write_text(line)
    command = [sys.executable, "-c", _MATCH, str(tmp_path / "pictures")]
    assert subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout == "1\n"


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(["*", "a", "b", "/", "?", "[ab]", "**", "/**/", "!", "."]), min_size=1, max_size=8),
    st.text("ab/.", min_size=1, max_size=10).map(lambda path: "/".join(filter(None, path.split("/")))),
)
def test_a_line_of_an_ignore_file_means_what_it_means_in_gitignore(line: list[str], path: str) -> None:
    try:
        expected = pathspec.GitIgnoreSpec.from_lines(["".join(line)]).match_file(path or "a")
        found = ignore_spec(["".join(line)]).match_file(path or "a")
    except ValueError:
        return  # no line, or one with more ** than we take
    assert found == expected


_ENDLESS = "WITH RECURSIVE count (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count) SELECT {} FROM count"


@pytest.mark.parametrize(
    "planted",
    [
        ["ALTER TABLE models RENAME TO kept", f"CREATE VIEW models AS {_ENDLESS.format('n AS id, n AS identity')}"],
        ["ALTER TABLE meta RENAME TO kept", f"CREATE VIEW meta AS {_ENDLESS.format('n AS name, n AS value')}"],
        [f"CREATE TRIGGER t BEFORE INSERT ON meta BEGIN {_ENDLESS.format('count(*)')}; END"],
        ["ALTER TABLE failures ADD COLUMN more GENERATED ALWAYS AS (hex(zeroblob(400000000))) VIRTUAL"],
        ["CREATE INDEX more ON answers (hex(zeroblob(4000 + abs(checksum) % 9)))"],
        ["CREATE TABLE more (a CHECK (hex(zeroblob(400000000)) > a))"],
    ],
    ids=["view", "view of meta", "trigger", "computed column", "computed index", "another table"],
)
@pytest.mark.parametrize("version", [None, 1])
def test_code_in_a_database_is_refused(finished: tuple[Path, Path], planted: list[str], version: int | None) -> None:
    """A view in a table's place once held `verify` for ever."""
    _, out = finished
    with sqlite3.connect(out / "run.sqlite") as database:
        for statement in planted:
            database.execute(statement)
        if version is not None:
            database.execute(f"PRAGMA user_version = {version}")
    database.close()
    for command in (["verify", str(out)], ["export", str(out), "--to", "csv"], ["correct", str(out), "--undo"]):
        done = subprocess.run(
            [sys.executable, "-m", "manylens", *command], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 1 and "holds its tables alone" in done.stderr, done.stderr


def test_a_result_file_outside_of_the_run_is_not_read(finished: tuple[Path, Path]) -> None:
    _, out = finished
    with sqlite3.connect(out / "run.sqlite") as database:
        for path in ("/dev/zero", "../../../../../../../dev/zero", "pipe"):
            database.execute("INSERT INTO results VALUES (?, 'x')", (path,))
    os.mkfifo(out / "pipe")
    with RunFolder.open(out) as run:
        assert [damage.id for damage in run.verify()] == ["../../../../../../../dev/zero", "/dev/zero", "pipe"]


@pytest.mark.parametrize("what", ["pipe", "nested", "infinite"])
@pytest.mark.parametrize("end", [".npy", ".json"])
def test_features_that_are_no_plain_file_are_read_anew(finished: tuple[Path, Path], what: str, end: str) -> None:
    """A pipe among them once held a run, and `verify`, for ever."""
    pictures, out = finished
    (file,) = (out / "features").rglob(f"*{end}")
    file.unlink()
    if what == "pipe":
        os.mkfifo(file)
    else:
        file.write_text("[" * 99_999 if what == "nested" else '{"ids": ["a"], "checksum": 1e999}')
    done = subprocess.run(
        [sys.executable, "-m", "manylens", "verify", str(out)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert manylens.cluster(pictures, by="shape", out=out)["shape"].counts.assigned == 6


def test_a_file_beside_the_features_is_none_of_them(finished: tuple[Path, Path]) -> None:
    """Its name once ended the run in a traceback."""
    pictures, out = finished
    (folder,) = (out / "features").iterdir()
    for name in ("0000x.json", "00001 copy.json", "0009.json"):
        (folder / name).write_text("{}")
    assert manylens.cluster(pictures, by="shape", out=out)["shape"].counts.assigned == 6


@pytest.mark.parametrize("what", ["pipe", "link", "nested", "terabyte"])
def test_a_result_file_that_is_no_plain_file_ends_in_a_reason(finished: tuple[Path, Path], what: str) -> None:
    _, out = finished
    for name in ("summary.json", "assignments.csv"):
        file = out / "color" / name
        file.unlink()
        if what == "pipe":
            os.mkfifo(file)
        elif what == "link":
            file.symlink_to("/dev/zero")
        else:
            file.write_text("[" * 99_999)
            if what == "terabyte":
                os.truncate(file, 1 << 40)
    (out.parent / "labels.csv").write_text("file,color\n0000.png,red\n")
    command = [sys.executable, "-m", "manylens", "evaluate", str(out), "--labels", str(out.parent / "labels.csv")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "record",
    ['{"a": {"words": "evil"}}', '{"a": {"pictures": "x"}}', '{"a": {"edge_scale": 1e999}}', '{"a": {"logprobs": -1}}',
     "[" * 99_999, "{",      '{"a": {"thinks": 3}}', '{"a": {"unknown": 3}}', '{"a": 5}', "[]", "\x00"],
)  # fmt: skip
def test_a_damaged_record_of_a_model_counts_as_none(tmp_path: Path, record: str) -> None:
    from manylens.models.openai_compatible.records import read_recorded

    (tmp_path / "models.json").write_text(record)
    assert read_recorded(tmp_path / "models.json") == {}
    (tmp_path / "models.json").unlink()
    os.mkfifo(tmp_path / "models.json")
    assert read_recorded(tmp_path / "models.json") == {}
    (tmp_path / "models.json").unlink()
    (tmp_path / "models.json").write_text(json.dumps({"a": Dialect(thinks=True).to_dict()}))
    assert read_recorded(tmp_path / "models.json") == {"a": Dialect(thinks=True)}


NANO = Path(str(resources.files("manylens.models") / "nano"))


@pytest.mark.parametrize(
    ("file", "how"), [*((file, "cut") for file in MODEL_FILES), ("eyes.onnx", "empty"), ("bank.npz", "other")]
)
def test_a_damaged_folder_of_nano_is_explained(tmp_path: Path, file: str, how: str) -> None:
    whole = (NANO / file).read_bytes()
    other_nano(tmp_path, {file: {"cut": whole[: len(whole) // 2], "empty": b"", "other": b"{}"}[how]})
    with pytest.raises(ModelUnavailable, match="do not work"):
        load_model(f"nano:{tmp_path}", None)  # type: ignore[arg-type]  # no picture is read


def other_nano(folder: Path, files: dict[str, bytes]) -> None:
    """Nano's own files, but for these."""
    for one in MODEL_FILES:
        if one in files:
            (folder / one).write_bytes(files[one])
        else:
            (folder / one).symlink_to(NANO / one)


def test_a_file_that_computes_for_ever_is_ended_in_its_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manylens.models.nano.trial.TRIAL_S", 8.0)
    other_nano(tmp_path, {"eyes.onnx": endless_onnx(image_px())})
    with pytest.raises(ModelUnavailable, match="compute for more than 8 s"):
        load_model(f"nano:{tmp_path}", None)  # type: ignore[arg-type]  # no picture is read


def test_a_file_that_takes_all_memory_is_ended_in_its_trial(tmp_path: Path) -> None:
    other_nano(tmp_path, {"eyes.onnx": endless_onnx(image_px(), gib=64)})
    with pytest.raises(ModelUnavailable, match=r"more memory than there is|end the process"):
        load_model(f"nano:{tmp_path}", None)  # type: ignore[arg-type]  # no picture is read


def test_a_file_that_loops_on_some_pictures_only_is_ended_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trial saw none of them."""
    monkeypatch.setattr("manylens.models.nano.model.LONGEST_BATCH_S", 1.0)
    other_nano(tmp_path, {"eyes.onnx": endless_onnx(image_px())})

    class Grey:
        def thumbnail(self, image_id: str) -> PillowImage.Image:
            return PillowImage.new("RGB", (64, 64), "grey")

    model = Nano(Grey(), folder=tmp_path)  # type: ignore[arg-type]  # the whole picture is not read
    with pytest.raises(ModelUnavailable, match="it does not"):
        asyncio.run(model.look([LookRequest("color", "grey")]))


def test_an_own_folder_of_nano_needs_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("a trial"))
    other_nano(tmp_path, {})
    assert load_model(f"nano:{tmp_path}", None).name == f"nano:{tmp_path}"  # type: ignore[arg-type]


LOOP, END = "{% for turn in range(99999) %}", "{% endfor %}"


@pytest.mark.parametrize(
    "template",
    [
        f"{LOOP}{LOOP}{LOOP}{END}{END}{END}",
        "{% macro f(n) %}{% for a in range(9) %}{{ f(n + 1) if n < 40 else '' }}{% endfor %}{% endmacro %}{{ f(0) }}",
    ],
)
def test_a_chat_template_that_loops_is_ended(template: str) -> None:
    """As transformers renders it: in a sandbox of Jinja's, which bounds no time."""
    sandbox = pytest.importorskip("jinja2.sandbox")
    rendered = sandbox.ImmutableSandboxedEnvironment().from_string(template)
    before = threading.active_count()
    with pytest.raises(TimeoutError):
        within(0.3, rendered.render)
    assert threading.active_count() <= before
    assert within(5.0, sandbox.ImmutableSandboxedEnvironment().from_string("{{ 1 + 1 }}").render) == "2"
    with pytest.raises(ZeroDivisionError):
        within(5.0, lambda: 1 // 0)


def test_a_checkpoint_s_template_has_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "TEMPLATE_S", 0.3)

    class Processor:
        chat_template = "loops"

        def apply_chat_template(self, turns: Any, **how: Any) -> str:
            while True:
                try:
                    time.sleep(0.01)
                except Exception:
                    continue

    loaded = decoding.Loaded.__new__(decoding.Loaded)
    loaded.processor = Processor()
    loaded._tokenizer = None
    with pytest.raises(ModelUnavailable, match=r"this one fails \(TimeoutError\)"):
        loaded._chat_text(["What is this?"])


def image_px() -> int:
    return int(json.loads((NANO / "nano.json").read_text())["image_px"])


def endless_onnx(side_px: int, gib: int = 0) -> bytes:
    """A model with the inputs and outputs of eyes.onnx that adds one to a number for ever or, with `gib`, makes that
    much of zeros. Written by hand: the package onnx is not needed for anything else."""

    def varint(number: int) -> bytes:
        out = bytearray()
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        return bytes([*out, number])

    def of(field: int, value: bytes | str | int) -> bytes:
        if isinstance(value, int):
            return varint(field << 3) + varint(value)
        data = value.encode() if isinstance(value, str) else value
        return varint(field << 3 | 2) + varint(len(data)) + data

    def node(kind: str, inputs: list[str], outputs: list[str], *attributes: bytes) -> bytes:
        parts = [*(of(1, name) for name in inputs), *(of(2, name) for name in outputs), of(4, kind)]
        return b"".join([*parts, *(of(5, attribute) for attribute in attributes)])

    def value(name: str, kind: int, *dims: int) -> bytes:
        shape = b"".join(of(1, of(1, dim)) for dim in dims)
        return of(1, name) + of(2, of(1, of(1, kind) + of(2, shape)))

    def tensor(name: str, kind: int, raw: bytes, *dims: int) -> bytes:
        return b"".join(of(1, dim) for dim in dims) + of(2, kind) + of(8, name) + of(9, raw)

    float_, uint8, int64, bool_ = 1, 2, 7, 9
    body = b"".join([
        of(1, node("Identity", ["go"], ["go on"])),
        of(1, node("Add", ["number", "number"], ["more"])),
        of(2, "body"),
        of(11, value("turn", int64)), of(11, value("go", bool_)), of(11, value("number", float_)),
        of(12, value("go on", bool_)), of(12, value("more", float_)),
    ])  # fmt: skip
    if gib:
        made = of(1, node("ConstantOfShape", ["size"], ["end"]))
        made += of(5, tensor("size", int64, (gib << 28).to_bytes(8, "little"), 1))
    else:
        made = of(1, node("Loop", ["turns", "yes", "one"], ["end"], of(1, "body") + of(6, body) + of(20, 5)))
        made += of(5, tensor("turns", int64, (2**63 - 1).to_bytes(8, "little")))
        made += of(5, tensor("yes", bool_, b"\x01")) + of(5, tensor("one", float_, b"\0\0\x80\x3f"))
    graph = b"".join([
        made,
        of(1, node("Identity", ["end"], ["positions"])), of(1, node("Identity", ["end"], ["pooled"])),
        of(2, "eyes"),
        of(11, value("pixels", uint8, 8, side_px, side_px, 3)),
        of(12, value("positions", float_)), of(12, value("pooled", float_)),
    ])  # fmt: skip
    return of(1, 8) + of(7, graph) + of(8, of(1, "") + of(2, 13))
