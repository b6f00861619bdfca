"""The loaders of published layouts, on tiny folders made here."""

import csv
import dataclasses
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import held_out, loaders
from bench.loaders import (
    CIFAR_CLASSES,
    PUBLISHED,
    attribute_folders,
    card_splits,
    load_published,
    load_sample,
    load_shared,
)
from manylens.errors import UsageError


def picture(number: int, format: str = "PNG") -> bytes:
    """Distinct bytes for every number."""
    buffer = io.BytesIO()
    Image.new("L" if format == "PPM" else "RGB", (8, 8), number if format == "PPM" else (number, 7, 9)).save(
        buffer, format
    )
    return buffer.getvalue()


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def make_fruit(folder: Path) -> None:
    """Three pictures, each below species and below color, under other file names."""
    for number, (species, color) in enumerate([("apple", "red"), ("banana", "yellow"), ("grape", "green")]):
        put(folder / "species" / species / f"s{number}.png", picture(number))
        put(folder / "color" / color / f"c{number}.png", picture(number))


def test_one_picture_below_several_attributes_is_one_image_with_all_its_labels(tmp_path: Path) -> None:
    make_fruit(tmp_path)
    found = load_published("fruit", tmp_path)
    assert len(found) == 3
    assert sorted(tuple(sorted(row.items())) for row in found.labels.values()) == [
        (("color", "green"), ("species", "grape")),
        (("color", "red"), ("species", "apple")),
        (("color", "yellow"), ("species", "banana")),
    ]
    assert found.interests == (("species", "species"), ("color", "color"))


def test_the_papers_names_of_attributes_are_known(tmp_path: Path) -> None:
    put(tmp_path / "number" / "Ace" / "a.png", picture(1))
    put(tmp_path / "suits" / "hearts" / "a.png", picture(1))
    (row,) = load_published("card", tmp_path).labels.values()
    assert row == {"rank": "ace", "suit": "hearts"}


def test_a_wrong_size_and_wrong_labels_are_said(tmp_path: Path) -> None:
    make_fruit(tmp_path)
    put(tmp_path / "color" / "blue" / "c9.png", picture(9))
    notes = load_published("fruit", tmp_path).notes
    assert "species: 3 labelled files where 105 images are published" in notes
    assert any(note.startswith("color: 4 labels where 3 are published: blue, green") for note in notes)
    card = tmp_path / "card"
    put(card / "suits" / "cups" / "a.png", picture(1))
    notes = load_published("card", card).notes
    assert "rank: no labels were found" in notes
    assert any("missing clubs, diamonds, hearts, spades; not published cups" in note for note in notes)


def test_a_complete_set_of_the_right_size_has_no_complaint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_fruit(tmp_path)
    right = dataclasses.replace(PUBLISHED["fruit"], size=3)
    monkeypatch.setitem(PUBLISHED, "fruit", right)
    assert load_published("fruit", tmp_path).notes == ()


def test_a_picture_with_two_labels_keeps_the_first_and_says_so(tmp_path: Path) -> None:
    make_fruit(tmp_path)
    put(tmp_path / "color" / "yellow" / "again.png", picture(0))
    found = load_published("fruit", tmp_path)
    assert len(found) == 3
    assert any("red kept, yellow left out" in note for note in found.notes)


def test_file_names_say_nothing_of_the_label(tmp_path: Path) -> None:
    put(tmp_path / "train" / "ace of spades" / "ace-of-spades-1.png", picture(1))
    (name,) = load_published("card", tmp_path).pictures
    assert "ace" not in name and "spades" not in name


def test_cards_are_read_from_the_archives_splits_without_jokers(tmp_path: Path) -> None:
    put(tmp_path / "train" / "ace of clubs" / "001.png", picture(1))
    put(tmp_path / "test" / "queen of hearts" / "001.png", picture(2))
    put(tmp_path / "valid" / "joker" / "001.png", picture(3))
    assert [dict(entry.labels) for entry in card_splits(tmp_path)] == [
        {"rank": "ace", "suit": "clubs", "color": "black", "split": "train"},
        {"rank": "queen", "suit": "hearts", "color": "red", "split": "test"},
    ]
    assert len(load_published("card", tmp_path, held_out=True)) == 1


def test_cmu_faces_are_read_from_their_names_in_full_size_only(tmp_path: Path) -> None:
    put(tmp_path / "tammo" / "tammo_left_angry_open.pgm", picture(1, "PPM"))
    put(tmp_path / "tammo" / "tammo_left_angry_open_2.pgm", picture(2, "PPM"))
    put(tmp_path / "an2i" / "an2i_up_sad_sunglasses.pgm", picture(3, "PPM"))
    put(tmp_path / "an2i" / "an2i_up_happy_open.bad", picture(4, "PPM"))
    found = load_published("cmuface", tmp_path)
    assert {tuple(sorted(row.values())) for row in found.labels.values()} == {
        ("angry", "left", "open", "tammo"),
        ("an2i", "sad", "sunglasses", "up"),
    }
    unseen = load_published("cmuface", tmp_path, held_out=True)
    assert [row["identity"] for row in unseen.labels.values()] == ["tammo"]


def test_the_binary_cifar_archive_gives_pictures_and_three_groupings(tmp_path: Path) -> None:
    pixels = np.arange(3072, dtype=np.uint8)
    frog, ship = CIFAR_CLASSES.index("frog"), CIFAR_CLASSES.index("ship")
    put(tmp_path / "data_batch_1.bin", bytes([frog]) + pixels.tobytes())
    put(tmp_path / "test_batch.bin", bytes([ship]) + pixels[::-1].tobytes())
    found = load_published("cifar10", tmp_path)
    assert sorted(tuple(row.values()) for row in found.labels.values()) == [
        ("frog", "animals", "land"),
        ("ship", "transportation", "water"),
    ]
    name = next(name for name, row in found.labels.items() if row["class"] == "frog")
    with Image.open(io.BytesIO(found.pictures[name]())) as opened:
        assert opened.size == (32, 32)
        assert opened.getpixel((5, 1)) == (32 + 5, (1024 + 32 + 5) % 256, (2048 + 32 + 5) % 256)


def test_a_truncated_cifar_batch_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "data_batch_1.bin", bytes(3000))
    with pytest.raises(UsageError, match="3000"):
        load_published("cifar10", tmp_path)


def test_lists_of_labels_are_read_from_a_table(tmp_path: Path) -> None:
    put(tmp_path / "images" / "1.png", picture(1))
    put(tmp_path / "images" / "2.png", picture(2))
    (tmp_path / "labels.csv").write_text("file,Activity,time of day\n1.png,Surfing,dawn\n2.png,Cooking,\n3.png,x,y\n")
    found = load_published("coco4c", tmp_path)
    assert sorted(tuple(sorted(row.items())) for row in found.labels.values()) == [
        (("activity", "cooking"),),
        (("activity", "surfing"), ("time", "dawn")),
    ]
    assert found.interests == (("activity", "activity"), ("time of day", "time"))


def test_an_unknown_set_and_a_folder_of_another_layout_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fruit360"):
        load_published("vegetables", tmp_path)
    with pytest.raises(UsageError, match="layouts"):
        load_published("fruit", tmp_path)
    make_fruit(tmp_path)
    with pytest.raises(UsageError, match="card and cmuface"):
        load_published("fruit", tmp_path, held_out=True)


def test_a_subset_is_drawn_by_names_alone(tmp_path: Path) -> None:
    make_fruit(tmp_path)
    whole = load_published("fruit", tmp_path)
    two = whole.draw(2)
    assert len(two) == 2 and set(two.pictures) < set(whole.pictures)
    assert "2 of 3 images" in two.notes[-1]
    assert whole.draw(1).pictures.keys() < two.pictures.keys()
    relabelled = dataclasses.replace(whole, labels={name: {"color": "x"} for name in whole.labels})
    assert relabelled.draw(2).pictures.keys() == two.pictures.keys()
    assert whole.draw(None) is whole


def test_pictures_are_written_once(tmp_path: Path) -> None:
    make_fruit(tmp_path / "in")
    found = load_published("fruit", tmp_path / "in")
    found.write_images(tmp_path / "out")
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert written == {name: read() for name, read in found.pictures.items()}
    name = min(written)
    (tmp_path / "out" / name).write_bytes(b"kept")
    found.write_images(tmp_path / "out")
    assert (tmp_path / "out" / name).read_bytes() == b"kept"


def test_of_the_zips_beside_the_project_only_held_out_images_are_used(tmp_path: Path) -> None:
    rows = [("1.png", "tammo", "left", "open"), ("2.png", "an2i", "up", "sunglasses")]
    table = io.StringIO()
    csv.writer(table).writerows([("file", "identity", "pose", "glass"), *rows])
    with zipfile.ZipFile(tmp_path / "cmuface.zip", "w") as archive:
        archive.writestr("labels.csv", table.getvalue())
        for number, row in enumerate(rows):
            archive.writestr(f"images/{row[0]}", picture(number))
    found = load_shared(tmp_path, "faces")
    assert list(found.pictures) == ["1.png"]
    assert found.labels == {"1.png": {"pose": "left", "glass": "open"}}
    assert found.pictures["1.png"]() == picture(0)
    assert "2 images where 464 are stated" in found.notes


def test_a_missing_zip_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"card\.zip"):
        load_shared(tmp_path, "cards")


def test_the_sample_is_read_as_a_set(tmp_path: Path) -> None:
    put(tmp_path / "images" / "card-0001.jpg", picture(1, "JPEG"))
    (tmp_path / "labels.csv").write_text("file,suit,rank,color,style\ncard-0001.jpg,hearts,ace,red,classic\n")
    found = load_sample(tmp_path)
    assert [row["suit"] for row in found.labels.values()] == ["hearts"]
    assert "trained" in found.notes[0]


def test_every_layout_says_what_is_known_and_what_is_assumed() -> None:
    for name, published in PUBLISHED.items():
        assert "Known" in published.layout_known or "Assumed" in published.layout_known, name
        assert {column for _, column in published.interests} >= set(published.labels), name
    sizes = {name: published.size for name, published in PUBLISHED.items()}
    assert json.dumps(sizes) == json.dumps(
        {"fruit": 105, "fruit360": 4856, "card": 8029, "cmuface": 640, "stanford_cars": 1200, "flowers": 1600,
         "cifar10": 60000, "coco4c": 5000, "food4c": 25250}
    )  # fmt: skip


def test_attribute_folders_ignore_what_is_no_image(tmp_path: Path) -> None:
    make_fruit(tmp_path)
    put(tmp_path / "color" / "red" / "Thumbs.db", b"x")
    put(tmp_path / "readme.txt", b"x")
    assert len(attribute_folders(tmp_path)) == 6


def test_every_set_that_the_comparison_may_load_has_a_stated_size() -> None:
    assert {zip_name for zip_name, _ in held_out.SETS.values()} <= set(loaders.SHARED_SIZES)
