"""Exports: what other programs find in them, and that no file is lost on the way."""

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PillowImage

import manylens
from manylens.cli import main as cli
from manylens.errors import StoreError, UsageError
from manylens.models.scripted import ScriptedModel
from manylens.results.exports.folders import JOURNAL_NAME

COLORS = {"red": (200, 30, 30), "green": (30, 160, 60)}
SHAPES = ("round", "square", "long")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two interests, kind of color and shape, on 24 pictures in two folders, one of them twice, one broken."""
    place = tmp_path_factory.mktemp("exports")
    pictures = place / "pictures"
    colors: dict[str, str] = {}
    shapes: dict[str, str] = {}
    for number in range(24):
        color, shape = ("red", "green")[number % 2], SHAPES[number % 3]
        buffer = io.BytesIO()
        image = PillowImage.new("RGB", (20 + number, 24), COLORS[color])
        image.putpixel((number % 20, 1), (255, 255, number))
        image.save(buffer, "PNG")
        folder = pictures / ("2023" if number < 12 else "2024")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"img_{number % 12:02d}.png").write_bytes(buffer.getvalue())
        key = hashlib.sha256(buffer.getvalue()).hexdigest()
        colors[key], shapes[key] = color, shape
    shutil.copy(pictures / "2023" / "img_00.png", pictures / "again.png")
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    model = ScriptedModel({"kind of color": colors, "shape": shapes})
    manylens.cluster(pictures, ["kind of color", "shape"], model=model, out=place / "run")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it: pictures/ and run/."""
    shutil.copytree(made / "run", tmp_path / "run")
    shutil.copytree(made / "pictures", tmp_path / "pictures")
    yield tmp_path


def labels(run: Path, slug: str) -> dict[str, str]:
    with open(run / slug / "assignments.csv", newline="", encoding="utf-8") as file:
        return {row["image"]: row["name"] for row in csv.DictReader(file)}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def export(place: Path, to: str, **given: Any) -> manylens.Exported:
    return manylens.export(place / "run", to, folder=place / "pictures", **given)  # type: ignore[arg-type]


def test_the_csv_has_every_file_and_every_interests_cluster(place: Path) -> None:
    done = export(place, "csv")
    assert done.path == place / "run" / "exports" / "pictures.csv" and done.files == 25
    rows = list(csv.DictReader(io.StringIO(done.path.read_bytes().decode(), newline="")))
    assert {row["image"]: row["kind_of_color_name"] for row in rows} == labels(place / "run", "kind-of-color")
    assert {row["image"]: row["shape_name"] for row in rows} == labels(place / "run", "shape")
    assert all(hashlib.sha256((place / "pictures" / r["image"]).read_bytes()).hexdigest() == r["sha256"] for r in rows)


def test_the_json_has_the_clusters_too(place: Path) -> None:
    values = json.loads(export(place, "json", dest=place / "all.json").path.read_text("utf-8"))
    assert [one["interest"] for one in values["interests"]] == ["kind of color", "shape"]
    assert len(values["interests"][1]["clusters"]) == 3
    assert {row["image"]: row["shape_name"] for row in values["images"]} == labels(place / "run", "shape")
    assert all(type(row["shape_cluster"]) is int for row in values["images"])


def test_an_export_of_one_interest_has_no_other(place: Path) -> None:
    values = json.loads(export(place, "json", by="shape").path.read_text("utf-8"))
    assert [one["slug"] for one in values["interests"]] == ["shape"]
    assert not any(key.startswith("kind_of_color") for key in values["images"][0])
    with pytest.raises(UsageError, match="'kind of color', 'shape'"):
        export(place, "json", by="mood")


def test_a_selection_is_exported_alone(place: Path) -> None:
    chosen = ["2023/img_00.png", "2024/img_03.png"]
    done = manylens.export(place / "run", "csv", dest=place / "some.csv", only=chosen)
    rows = list(csv.DictReader((place / "some.csv").open(encoding="utf-8-sig", newline="")))
    assert [row["image"] for row in rows] == chosen and done.files == 2
    (place / "chosen.txt").write_text("2023/img_00.png\n\n2024/img_03.png\n", "utf-8")
    folders = ["--to", "folders", "--dest", str(place / "sorted"), "--by", "shape", "--only", str(place / "chosen.txt")]
    assert cli.run(["export", str(place / "run"), *folders]) == 0
    assert sorted(file.name for file in (place / "sorted").rglob("*.png")) == ["img_00.png", "img_03.png"]
    with pytest.raises(UsageError, match="a selection names pictures of the run, got 'none'"):
        manylens.export(place / "run", "json", only=[])
    with pytest.raises(UsageError, match=r"got 'nowhere.png'"):
        manylens.export(place / "run", "json", only=["nowhere.png"])


def test_coco_has_each_file_once_and_a_category_for_each_cluster(place: Path) -> None:
    values = json.loads(export(place, "coco").path.read_text("utf-8"))
    files = {image["id"]: image["file_name"] for image in values["images"]}
    categories = {c["id"]: (c["supercategory"], c["name"]) for c in values["categories"]}
    assert len(files) == 25 and len(categories) == len(values["categories"]) == 5
    found: dict[str, dict[str, str]] = {"kind of color": {}, "shape": {}}
    for annotation in values["annotations"]:
        interest, name = categories[annotation["category_id"]]
        found[interest][files[annotation["image_id"]]] = name
    assert found["shape"] == labels(place / "run", "shape")
    assert found["kind of color"] == labels(place / "run", "kind-of-color")
    sizes = {image["id"]: (image["width"], image["height"]) for image in values["images"]}
    assert all(tuple(a["bbox"][2:]) == sizes[a["image_id"]] for a in values["annotations"])


def test_a_run_folder_moved_with_its_pictures_says_what_it_needs(place: Path) -> None:
    """The folder that was recorded is the original's, not this copy's."""
    shutil.rmtree(place / "pictures")
    with pytest.raises(UsageError, match="is not at"):
        export(place, "folders", dest=place / "sorted")


def test_the_folder_of_the_pictures_is_remembered(made: Path, tmp_path: Path) -> None:
    done = manylens.export(made / "run", "folders", dest=tmp_path / "sorted", by="shape")
    assert done.files == 25 and not done.left


@pytest.mark.parametrize("mode", ["copy", "hardlink", "symlink"])
def test_folders_hold_every_placed_file_and_undo_takes_them_back(place: Path, mode: str) -> None:
    before = tree(place / "pictures")
    dest = place / "sorted"
    preview = export(place, "folders", dest=dest, mode=mode, preview=True)
    assert not dest.exists() and len(preview.steps) == preview.files == 50
    assert export(place, "folders", dest=dest, mode=mode).files == 50
    made = list(dest.rglob("*.png"))
    assert len(made) == 50
    by_bytes = {content: labels(place / "run", "shape").get(path) for path, content in before.items()}
    for path in (dest / "shape").rglob("*.png"):
        assert path.parent.name.split(" ", 1)[1] == by_bytes[path.read_bytes()]
        assert path.is_symlink() == (mode == "symlink")
        assert (path.lstat().st_nlink > 1) == (mode == "hardlink")
    assert export(place, "folders", dest=dest, mode=mode).files == 50, "the same call again changes nothing"
    assert manylens.export(place / "run", "folders", dest=dest, undo=True).left == ()
    assert not dest.exists() and tree(place / "pictures") == before


def test_a_copy_that_was_edited_is_not_undone(place: Path) -> None:
    dest = place / "sorted"
    export(place, "folders", dest=dest, by="shape")
    edited, *_ = dest.rglob("*.png")
    edited.write_bytes(b"edited")
    done = manylens.export(place / "run", "folders", dest=dest, undo=True)
    assert [Path(path) for path, _ in done.left] == [edited] and edited.read_bytes() == b"edited"
    edited.unlink()
    assert manylens.export(place / "run", "folders", dest=dest, undo=True).left == () and not dest.exists()


def move(place: Path, **given: Any) -> manylens.Exported:
    return export(place, "folders", dest=place / "sorted", by="shape", mode="move", **given)


def contents(*folders: Path) -> list[bytes]:
    """What all files hold but the journals, in order: equal before and after where no file is lost or doubled."""
    return sorted(p.read_bytes() for f in folders for p in f.rglob("*") if p.is_file() and p.name != JOURNAL_NAME)


def test_a_move_takes_files_and_side_cars_and_its_undo_brings_back_every_byte(place: Path) -> None:
    (place / "pictures" / "2023" / "img_03.png.xmp").write_text("edits")
    (place / "pictures" / "again.xmp").write_text("other edits")
    before = tree(place / "pictures")
    assert len(move(place, preview=True).steps) == 27 and tree(place / "pictures") == before
    assert move(place).left == ()
    assert set(tree(place / "pictures")) == {"broken.png"}
    assert contents(place / "sorted", place / "pictures") == sorted(before.values())
    (car,) = (place / "sorted").rglob("*img_03.png.xmp")
    assert car.read_text() == "edits" and car.with_suffix("").is_file(), "beside its picture, under its name"
    assert move(place).left == (), "the same call again changes nothing"
    assert manylens.export(place / "run", "folders", dest=place / "sorted", undo=True).left == ()
    assert tree(place / "pictures") == before and not (place / "sorted").exists()


def test_a_move_by_several_interests_is_refused(place: Path) -> None:
    with pytest.raises(UsageError, match="'kind of color', 'shape'"):
        export(place, "folders", dest=place / "sorted", mode="move")


def test_nothing_is_overwritten(place: Path) -> None:
    before = tree(place / "pictures")
    step, *_ = move(place, preview=True).steps
    theirs = place / "sorted" / step.split(" -> ")[1]
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    with pytest.raises(UsageError, match="holds 1 of the files already"):
        move(place)
    assert theirs.read_bytes() == b"theirs" and tree(place / "pictures") == before


def test_an_undo_does_not_overwrite_what_took_the_place_since(place: Path) -> None:
    move(place)
    theirs = place / "pictures" / "again.png"
    theirs.write_bytes(b"theirs")
    done = manylens.export(place / "run", "folders", dest=place / "sorted", undo=True)
    assert len(done.left) == 1 and "its place is taken" in done.left[0][1]
    assert theirs.read_bytes() == b"theirs" and Path(done.left[0][0]).is_file()
    theirs.unlink()
    assert manylens.export(place / "run", "folders", dest=place / "sorted", undo=True).left == ()
    assert not (place / "sorted").exists()


KILLED = """
import os, sys
from pathlib import Path
import manylens
place, after = Path(sys.argv[1]), int(sys.argv[2])
calls = 0
def dies(event, arguments):
    global calls
    if event in ("os.link", "os.remove"):
        calls += any("sorted" in str(a) or "pictures" in str(a) for a in arguments)
        if calls == after:
            os._exit(9)
sys.addaudithook(dies)
undo = sys.argv[3] == "undo"
given = {"undo": True} if undo else {"mode": "move"}
manylens.export(place / "run", "folders", folder=place / "pictures", dest=place / "sorted", by="shape", **given)
"""


@pytest.mark.parametrize("after", [1, 2, 9, 30, 40])
@pytest.mark.parametrize("direction", ["there", "undo"])
def test_a_move_killed_at_any_moment_loses_nothing_and_goes_on(place: Path, after: int, direction: str) -> None:
    before = tree(place / "pictures")
    if direction == "undo":
        move(place)
    end = subprocess.run([sys.executable, "-c", KILLED, str(place), str(after), direction], check=False, timeout=120)
    assert end.returncode == 9
    held = set(contents(*(folder for folder in (place / "pictures", place / "sorted") if folder.exists())))
    assert held >= set(before.values())
    if direction == "there":
        assert move(place).left == ()
        assert contents(place / "sorted", place / "pictures") == sorted(before.values())
    if (place / "sorted").exists():
        assert manylens.export(place / "run", "folders", dest=place / "sorted", undo=True).left == ()
    assert tree(place / "pictures") == before and not (place / "sorted").exists()


def test_a_move_to_another_disk_copies_compares_and_then_gives_up_the_place(place: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == place.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    dest = shm / f"manylens-test-{os.getpid()}"
    before = tree(place / "pictures")
    try:
        done = export(place, "folders", dest=dest, by="shape", mode="move")
        assert done.left == () and set(tree(place / "pictures")) == {"broken.png"}
        assert contents(dest, place / "pictures") == sorted(before.values())
        assert manylens.export(place / "run", "folders", dest=dest, undo=True).left == ()
        assert tree(place / "pictures") == before and not dest.exists()
        links = export(place, "folders", dest=dest, by="shape", mode="hardlink")
        assert len(links.left) == 25 and links.files == 0 and os.strerror(errno.EXDEV) in links.left[0][1]
    finally:
        shutil.rmtree(dest, ignore_errors=True)


def test_a_file_reached_through_a_link_is_not_moved(place: Path) -> None:
    """Moved, a relative link would lead nowhere, and a file of a linked folder is not in this one."""
    real = place / "elsewhere.png"
    os.rename(place / "pictures" / "again.png", real)
    (place / "pictures" / "again.png").symlink_to("../elsewhere.png")
    done = move(place)
    assert [Path(path).name for path, _ in done.left] == ["again.png"] and "through a link" in done.left[0][1]
    assert (place / "pictures" / "again.png").is_symlink() and real.is_file()


def test_a_file_that_is_gone_is_named(place: Path) -> None:
    (place / "pictures" / "again.png").unlink()
    done = move(place)
    assert [(Path(path).name, reason) for path, reason in done.left] == [("again.png", "it is no longer there")]


def test_copies_inside_the_pictures_folder_are_refused(place: Path) -> None:
    with pytest.raises(UsageError, match="outside the pictures' folder"):
        export(place, "folders", dest=place / "pictures" / "sorted")


@pytest.mark.parametrize("target", ["../../victim", "/etc/victim"])
def test_a_journal_that_leaves_its_folders_is_not_followed(tmp_path: Path, target: str) -> None:
    lines = [{"manylens": 1, "mode": "move", "root": str(tmp_path)}, ["a.png", target, 0]]
    (tmp_path / JOURNAL_NAME).write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(StoreError, match="stay inside"):
        manylens.export("no-run", "folders", dest=tmp_path, undo=True)


@pytest.mark.parametrize("journal", [b"\xff\xfe", b"[" * 99_999, b"[]\n[]", b"5", b""])
def test_a_damaged_journal_is_explained(tmp_path: Path, journal: bytes) -> None:
    (tmp_path / JOURNAL_NAME).write_bytes(journal)
    with pytest.raises(StoreError, match="a journal is whole"):
        manylens.export("no-run", "folders", dest=tmp_path, undo=True)


@pytest.mark.parametrize("name", [".profile", ".ssh/key.png", "authorized_keys", "job.sh"])
def test_what_has_no_name_of_a_picture_is_not_moved_back(tmp_path: Path, name: str) -> None:
    """A folder that somebody passes on may hold a journal that would put its files anywhere."""
    home, sorted_ = tmp_path / "home", tmp_path / "sorted"
    home.mkdir()
    sorted_.mkdir()
    (sorted_ / "harmless.jpg").write_text("run me")
    lines = [{"manylens": 1, "mode": "move", "root": str(home)}, [name, "harmless.jpg", 1]]
    (sorted_ / JOURNAL_NAME).write_text("\n".join(map(json.dumps, lines)))
    done = manylens.export("no-run", "folders", dest=sorted_, undo=True)
    assert "no picture is called" in done.left[0][1]
    assert not list(home.iterdir()) and (sorted_ / "harmless.jpg").exists()


def test_another_export_in_the_same_place_is_refused(place: Path) -> None:
    export(place, "folders", dest=place / "sorted", by="shape")
    with pytest.raises(UsageError, match="holds one export"):
        export(place, "folders", dest=place / "sorted", by="kind of color")


def test_a_form_that_there_is_not_is_named(place: Path) -> None:
    with pytest.raises(UsageError, match="parquet, hf, fiftyone, csv, json, folders, xmp, coco, got 'xlsx'"):
        export(place, "xlsx")


def test_a_file_at_the_destination_stays(place: Path) -> None:
    (place / "labels.csv").write_text("theirs")
    with pytest.raises(UsageError, match="nothing is overwritten"):
        export(place, "csv", dest=place / "labels.csv")
    assert (place / "labels.csv").read_text() == "theirs"


def test_the_command_previews_moves_and_takes_back(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(place / "run"), "--to", "folders", "--dest", str(place / "sorted")]
    words += ["--folder", str(place / "pictures"), "--by", "shape", "--mode", "move"]
    assert cli.run([*words, "--preview"]) == 0
    assert "... and 5 more" in capsys.readouterr().out
    assert cli.run(words) == 0 and "Written: 25 files" in capsys.readouterr().out
    (place / "pictures" / "again.png").write_bytes(b"theirs")
    assert cli.run([*words[:6], "--undo"]) == 1
    shown = capsys.readouterr()
    assert "its place is taken" in shown.out and "1 was left alone" in shown.err


@pytest.mark.exports
def test_pandas_reads_the_parquet_with_whole_numbers_and_embeddings(place: Path) -> None:
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(export(place, "parquet").path)
    assert dict(zip(frame["image"], frame["shape_name"], strict=True)) == labels(place / "run", "shape")
    assert str(frame["shape_cluster"].dtype) == "Int64"
    assert len(frame["kind_of_color_embedding"][0]) > 1
    assert all(abs(float((vector**2).sum()) - 1) < 0.01 for vector in frame["shape_embedding"])


@pytest.mark.exports
def test_the_hugging_face_dataset_holds_pictures_and_labels(place: Path) -> None:
    datasets = pytest.importorskip("datasets")
    done = export(place, "hf", dest=place / "hf")
    sizes = {path: PillowImage.open(place / "pictures" / path).size for path in labels(place / "run", "shape")}
    shutil.rmtree(place / "pictures")
    rows = datasets.load_from_disk(str(done.path))
    assert {row["path"]: row["shape_name"] for row in rows} == labels(place / "run", "shape")
    assert {row["path"]: row["image"].size for row in rows} == sizes
