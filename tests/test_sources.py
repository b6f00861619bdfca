"""sources: what is no folder gives the same collection; names, links and bombs of archives do no harm."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_images import picture

import manylens
from manylens.cli import main
from manylens.collection import source
from manylens.collection.find import Collection, find_images, open_source
from manylens.collection.pictures import StoredImages
from manylens.errors import ImageUnreadable, ManylensError, UsageError
from manylens.models.scripted import ScriptedModel

COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


def folder_of(root: Path, count: int = 6) -> Path:
    """Pictures in two colors, one twice, one that is none, and a text."""
    for number in range(count):
        path = root / ("a" if number % 2 else "b") / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(list(COLORS.values())[number % 2], (40 + number, 30)).save(path)
    (root / "copy.png").write_bytes((root / "b" / "00.png").read_bytes())
    (root / "bad.jpg").write_bytes(b"no picture")
    (root / "notes.txt").write_text("no picture either")
    (root / "__MACOSX").mkdir()
    picture((1, 2, 3)).save(root / "__MACOSX" / "x.png")
    return root


def files_of(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def packed(folder: Path, target: Path) -> Path:
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files_of(folder):
                archive.writestr(name, data)
    else:
        mode = {".tar": "w:", ".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}[target.suffix]
        with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
            archive.add(folder, arcname=".")
    return target


def sort(place: Path, out: Path, **given: object) -> manylens.Result:
    images = find_images(place).images
    # By hue: the larger of red and blue, read off the stored picture's name.
    labels = {image.id: "red" if "b/" in "".join(image.paths) else "blue" for image in images}
    return manylens.cluster(place, "color", model=ScriptedModel({"color": labels}), out=out, **given)  # type: ignore[arg-type]


def shape(collection: Collection) -> tuple[object, ...]:
    unreadable = [(file.path, file.reason) for file in collection.unreadable]
    return collection.images, unreadable, collection.skipped_count, collection.left_out_count


@pytest.mark.parametrize("name", ["p.zip", "p.tar", "p.tar.gz", "p.tar.bz2", "p.tar.xz"])
def test_an_archive_gives_the_collection_of_its_folder(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path / "pictures")
    archive = packed(folder, tmp_path / name)
    assert shape(find_images(archive)) == shape(find_images(folder))
    taken = find_images(archive, exclude=["b/"], include=["*.png"])
    assert sorted(path for image in taken.images for path in image.paths) == [
        "a/01.png",
        "a/03.png",
        "a/05.png",
        "copy.png",
    ]


def test_a_run_on_an_archive_gives_the_files_of_one_on_its_folder(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pictures")
    sort(folder, tmp_path / "one")
    sort(packed(folder, tmp_path / "pictures.zip"), tmp_path / "two")
    for name in ("color/assignments.csv", "color/clusters.json", "report.html", "unreadable.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name


@pytest.mark.parametrize("name", ["p.zip", "p.tar.gz"])
def test_larger_sizes_are_read_out_of_the_archive_and_never_of_another_picture(tmp_path: Path, name: str) -> None:
    (tmp_path / "f").mkdir()
    picture((220, 30, 30), (900, 600)).save(tmp_path / "f" / "large.png")
    kept: dict[str, bytes] = {}
    place = open_source(packed(tmp_path / "f", tmp_path / name))
    collection = find_images(place, keep=lambda found: kept.update({t.image_id: t.jpeg for t in found}))
    stored = StoredImages(place, collection.images, kept.__getitem__)
    (image,) = collection.images
    assert len(stored.jpeg(image.id, 800)) > len(stored.jpeg(image.id, 256))
    picture((30, 30, 220), (900, 600)).save(tmp_path / "f" / "large.png")
    stored = StoredImages(open_source(packed(tmp_path / "f", tmp_path / name)), collection.images, kept.__getitem__)
    with pytest.raises(ImageUnreadable, match="moved or changed"):
        stored.jpeg(image.id, 800)


def png() -> bytes:
    buffer = io.BytesIO()
    picture((9, 99, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def reasons(place: Path) -> dict[str, str]:
    return {file.path: file.reason for file in find_images(place).unreadable}


def paths(place: Path) -> list[str]:
    return sorted(path for image in find_images(place).images for path in image.paths)


def test_names_that_lead_out_of_an_archive_and_links_are_reported(tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(png())
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("../outside.png", "/etc/x.png", "C:/x.png", "in/../../y.png", "..\\z.png", "./ok.png"):
            archive.writestr(name, png())
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(outside))
    assert paths(tmp_path / "a.zip") == ["ok.png"]
    found = reasons(tmp_path / "a.zip")
    assert len(found) == 6
    assert found.pop("link.png") == "a link in an archive"
    assert set(found.values()) == {"its name leads out of the archive"}

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind, target in (
            ("../out.png", tarfile.REGTYPE, ""), ("ok.png", tarfile.REGTYPE, ""),
            ("hard.png", tarfile.LNKTYPE, "ok.png"),
            ("soft.png", tarfile.SYMTYPE, str(outside)), ("far.png", tarfile.LNKTYPE, str(outside)),
            ("pipe.png", tarfile.FIFOTYPE, ""),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            info.size = len(png()) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(png()))
    assert paths(tmp_path / "a.tar") == ["hard.png", "ok.png"]
    assert reasons(tmp_path / "a.tar") == {
        "../out.png": "its name leads out of the archive",
        "far.png": "a link in an archive",
        "pipe.png": "not a regular file",
        "soft.png": "a link in an archive",
    }


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_ALWAYS_UNPACKED_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bmp", bytes(8 << 20))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        info = tarfile.TarInfo("a.bmp")
        info.size = 64 << 20
        tar.addfile(info, io.BytesIO(bytes(64 << 20)))
    for name in ("a.zip", "a.tar.gz"):
        with pytest.raises(UsageError, match="unpacks to at most 200 times its size"):
            find_images(tmp_path / name)


def test_a_member_that_lies_about_its_size_costs_that_member(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", png())
        archive.writestr("b.png", png() + b"more")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.index(b"PK\x01\x02")
    size = struct.unpack_from("<I", data, at + 24)[0]
    struct.pack_into("<I", data, at + 24, size + 1000)
    (tmp_path / "a.zip").write_bytes(data)
    assert paths(tmp_path / "a.zip") == ["b.png"]
    assert "a.png" in reasons(tmp_path / "a.zip")


def test_an_encrypted_member_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", png())
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert "password" in reasons(tmp_path / "a.zip")["a.png"]


def test_a_damaged_archive_is_told_and_none_of_it_is_lost_in_silence(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pictures")
    whole = packed(folder, tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        at = tar.getmember("./b/02.png").offset
    (tmp_path / "a.tar").write_bytes(whole[:at] + b"\xff" * 512 + whole[at + 512 :])
    whole = packed(folder, tmp_path / "b.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(whole[: len(whole) // 2])
    whole = packed(folder, tmp_path / "c.tar.gz").read_bytes()
    (tmp_path / "c.tar.gz").write_bytes(whole[: len(whole) // 2])
    for name in ("a.tar", "b.zip", "c.tar.gz"):
        with pytest.raises(UsageError, match="an archive is whole"):
            open_source(tmp_path / name)


def test_names_in_a_zip_are_utf8_also_where_it_does_not_say_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("Küche.png".encode().decode("cp437"), png())
    data = (tmp_path / "a.zip").read_bytes()
    marked = "Küche.png".encode().decode("cp437").encode()
    # What writestr marks as UTF-8 is written as a program would that does not know of the mark.
    bare = data.replace(marked, "Küche.png".encode().ljust(len(marked), b"x"))
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = bare.index(magic) + at
        bare = bare[:start] + bytes(2) + bare[start + 2 :]
    (tmp_path / "a.zip").write_bytes(bare)
    assert paths(tmp_path / "a.zip") == ["Küche.png" + "x" * (len(marked) - len("Küche.png".encode()))]


def test_an_archive_in_a_folder_is_not_opened_but_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path / "pictures")
    packed(folder, tmp_path / "old.zip").rename(folder / "old.zip")
    assert find_images(folder).packed_count == 1
    asked = ["cluster", str(folder), "--by", "color of the object", "--out", str(tmp_path / "out")]
    assert main.run(asked) == 0
    assert "1 archive not opened" in " ".join("".join(capfd.readouterr()).split())
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "old.zip":
            path.unlink()
    with pytest.raises(UsageError, match="one of its archives"):
        find_images(folder)


def test_pictures_out_of_an_archive_are_exported_as_copies_and_taken_back(tmp_path: Path) -> None:
    place = packed(folder_of(tmp_path / "pictures"), tmp_path / "pictures.zip")
    result = sort(place, tmp_path / "out")
    done = manylens.export(tmp_path / "out", "folders", dest=tmp_path / "sorted")
    assert (done.files, done.left) == (7, ())
    names = sorted(path.relative_to(tmp_path / "sorted").as_posix() for path in (tmp_path / "sorted").rglob("*.png"))
    assert len(names) == 7 and all(name.split("/")[0][2:] in ("red", "blue") for name in names)
    assert manylens.export(tmp_path / "out", "folders", dest=tmp_path / "sorted").left == ()
    (tmp_path / "sorted" / names[0]).write_bytes(b"edited")
    undone = manylens.export(tmp_path / "out", "folders", dest=tmp_path / "sorted", undo=True)
    assert (undone.files, len(undone.left)) == (6, 1)
    for how in ({"to": "folders", "mode": "move", "dest": tmp_path / "x"}, {"to": "xmp"}):
        with pytest.raises(UsageError, match="files of their own"):
            manylens.export(tmp_path / "out", **how)
    with pytest.raises(UsageError, match="links lead to files"):
        sort(place, tmp_path / "other", links=True)
    assert json.loads((tmp_path / "out" / "color" / "summary.json").read_text())["images"] == 7
    assert result["color"].counts.failed == 1


def test_pictures_are_added_from_a_newer_archive(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pictures")
    place = packed(folder, tmp_path / "pictures.zip")
    sort(place, tmp_path / "out")
    picture((220, 30, 30), (77, 33)).save(folder / "b" / "new.png")
    packed(folder, place)
    labels = {image.id: "red" if "b/" in "".join(image.paths) else "blue" for image in find_images(place).images}
    grown = manylens.add(tmp_path / "out", place, model=ScriptedModel({"color": labels}))
    assert grown["color"].labels["b/new.png"] == "red"


def test_the_run_folders_name_is_the_archives(tmp_path: Path) -> None:
    from manylens.api import default_out

    for name in ("Fotos 2024.zip", "Fotos 2024.tar.gz", "Fotos 2024.parquet", "Fotos 2024"):
        assert default_out(tmp_path / name).name == "Fotos 2024-manylens"
    assert default_out("https://example.org/a/Fotos%202024.csv?x=1").name == "Fotos 2024-manylens"
    assert default_out("s3://bucket/holiday/").name == "holiday-manylens"
    assert os.fspath(default_out("s3://bucket")) == "bucket-manylens"


def table_of(place: Path, rows: list[list[str]], delimiter: str = ",") -> Path:
    place.parent.mkdir(exist_ok=True)
    place.write_text("\n".join(delimiter.join(row) for row in rows), encoding="utf-8")
    return place


def test_a_list_of_paths_is_sorted_as_the_folder_they_are_in(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pictures")
    names = ["a/01.png", "b/00.png", "b/02.png", "bad.jpg", "none.png", "notes.txt"]
    assert reasons(table_of(tmp_path / "slashes.txt", [["//01.png"]])) == {"01.png": "no such file"}
    rows = [["label", "file"], *([str(i), name] for i, name in enumerate(names))]
    expected = {"bad.jpg", "none.png", "notes.txt"}
    for place in (
        table_of(folder / "list.csv", rows),
        table_of(folder / "list.tsv", rows, "\t"),
        table_of(folder / "bare.csv", [[name] for name in names[:5]] + [["notes.txt"]]),
        table_of(folder / "list.txt", [["# a remark"], *([name] for name in names)]),
        table_of(tmp_path / "elsewhere" / "far.csv", [["x", "path"], *(["1", str(folder / name)] for name in names)]),
    ):
        collection = find_images(place)
        assert paths(place) == ["a/01.png", "b/00.png", "b/02.png"], place
        assert {file.path for file in collection.unreadable} == expected, place
        assert collection.root == folder
    assert reasons(folder / "list.csv")["none.png"] == "no such file"


def test_a_run_on_a_list_moves_and_links_files_and_is_evaluated_by_the_list(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pictures")
    rows = [["file", "color"], *([f"{'a' if i % 2 else 'b'}/{i:02}.png", "blue" if i % 2 else "red"] for i in range(6))]
    place = table_of(folder / "list.csv", rows)
    sort(place, tmp_path / "out", links=True)
    assert len([path for path in (tmp_path / "out" / "color" / "clusters").rglob("*") if path.is_symlink()]) == 6
    assert main.run(["evaluate", str(tmp_path / "out"), "--labels", str(place)]) == 0
    done = manylens.export(tmp_path / "out", "folders", dest=tmp_path / "sorted", mode="move")
    assert (done.files, done.left) == (6, ())
    assert manylens.export(tmp_path / "out", "folders", dest=tmp_path / "sorted", undo=True).files == 6
    assert paths(place) == sorted(row[0] for row in rows[1:])


def test_of_two_columns_of_paths_the_person_says_which(tmp_path: Path) -> None:
    folder_of(tmp_path)
    rows = [["left", "right"], ["a/01.png", "b/00.png"], ["a/03.png", "b/02.png"]]
    place = table_of(tmp_path / "pairs.csv", rows)
    with pytest.raises(UsageError, match=r"'left', 'right'.*pairs.csv#left"):
        open_source(place)
    assert paths(Path(f"{place}#right")) == ["b/00.png", "b/02.png"]
    with pytest.raises(UsageError, match="no column 'middle'"):
        open_source(f"{place}#middle")
    with pytest.raises(UsageError, match="has none"):
        open_source(table_of(tmp_path / "none.csv", [["a", "b"], ["1", "2"]]))
    with pytest.raises(UsageError, match="is empty"):
        open_source(table_of(tmp_path / "empty.csv", []))


def test_parquet_with_pictures_and_with_paths(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = folder_of(tmp_path / "f")
    datas = [(folder / name).read_bytes() for name in ("a/01.png", "a/03.png", "b/00.png")]
    named = [{"bytes": d, "path": p} for d, p in zip(datas, ("x/1.png", "x/3.png", "y/0.png"), strict=True)]
    tables = {
        "struct": ({"image": [*named, None], "label": [1, 2, 3, 4]}, ["x/1.png", "x/3.png", "y/0.png"]),
        "nameless": ({"img": [{"bytes": d, "path": None} for d in datas]}, ["row-0000", "row-0001", "row-0002"]),
        "bytes": ({"n": [1, 2, 3], "blob": datas}, ["row-0000", "row-0001", "row-0002"]),
        "paths": ({"path": ["a/01.png", "b/00.png"], "label": ["u", "v"]}, ["a/01.png", "b/00.png"]),
    }
    for name, (columns, expected) in tables.items():
        place = folder / f"{name}.parquet"
        parquet.write_table(pyarrow.table(columns), place, row_group_size=2)
        if name == "struct":  # a row without a picture makes all names those of rows
            assert paths(place) == ["row-0000.png", "row-0001.png", "row-0002.png"]
            assert reasons(place) == {"row-0003": "the row holds no picture"}
            parquet.write_table(pyarrow.table({"image": named}), place, row_group_size=2)
        assert paths(place) == expected, name
    kept: dict[str, bytes] = {}
    place_ = open_source(folder / "bytes.parquet")
    collection = find_images(place_, keep=lambda found: kept.update({t.image_id: t.jpeg for t in found}))
    assert StoredImages(place_, collection.images, kept.__getitem__).jpeg(collection.images[0].id, 512)
    whole = (folder / "bytes.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[:-20])
    with pytest.raises(UsageError, match="a Parquet file is whole"):
        open_source(folder / "cut.parquet")


def test_a_hugging_face_parquet_is_read_by_its_own_word(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = folder_of(tmp_path / "f")
    files = [str(folder / name) for name in ("a/01.png", "b/00.png")]
    data = datasets.Dataset.from_dict({"mask": [b"m", b"n"], "photo": files})
    data.cast_column("photo", datasets.Image()).to_parquet(str(tmp_path / "hf.parquet"))
    assert len(paths(tmp_path / "hf.parquet")) == 2, "whether the pictures are in it, or named"


def sound(tmp: Path) -> dict[str, bytes]:
    """An archive or a table of each kind, of a few pictures."""
    folder = folder_of(tmp / "p", 3)
    found = {name: packed(folder, tmp / name).read_bytes() for name in ("a.zip", "a.tar", "a.tar.gz", "a.tar.xz")}
    found["a.csv"] = b'file,label\na/01.png,1\nb/00.png,"2\n"\n../x.png,3\n'
    found["a.txt"] = b"a/01.png\n# x\nb/00.png\n"
    with contextlib.suppress(ImportError):
        import pyarrow
        import pyarrow.parquet

        rows = [{"bytes": (folder / name).read_bytes(), "path": name} for name in ("a/01.png", "b/00.png", "b/02.png")]
        pyarrow.parquet.write_table(pyarrow.table({"image": rows}), tmp / "a.parquet", row_group_size=2)
        found["a.parquet"] = (tmp / "a.parquet").read_bytes()
    return found


@pytest.mark.fuzz
def test_a_changed_archive_or_table_is_read_or_refused_with_a_reason(tmp_path: Path) -> None:
    whole = sound(tmp_path)
    chance = random.Random(None if "MANYLENS_FUZZ" in os.environ else 0)  # each round of make fuzz is another
    for _ in range(2 * int(os.environ.get("MANYLENS_FUZZ", "50"))):
        name = chance.choice(sorted(whole))
        data = bytearray(whole[name])
        for _ in range(chance.choice([1, 1, 2, 5, 20])):
            at, other = chance.randrange(len(data)), chance.randrange(len(data))
            kind = chance.randrange(5)
            if kind == 0:
                data[at] = chance.randrange(256)
            elif kind == 1:
                del data[at + 1 : at + chance.randrange(2, 200)]
            elif kind == 2:
                data[at:at] = chance.randbytes(chance.randrange(1, 50))
            elif kind == 3:
                data[at : at + 4] = chance.choice([b"\xff\xff\xff\xff", bytes(4), b"\xff\xff\xff\x7f"])
            else:
                data[at : at + 64] = data[other : other + 64]
        place = tmp_path / "p" / name
        place.write_bytes(data)
        try:
            found = find_images(place)
            assert found.images or found.unreadable
        except ManylensError as error:
            assert error.rule
        except BaseException:
            place.rename(kept := tmp_path / f"failing-{name}")
            print(f"the file that fails: {kept}")
            raise
        place.unlink()
