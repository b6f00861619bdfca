"""images: every odd file is used or reported, by content, without harm; the same folder gives the same collection."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from bad_images import BadFolder, make_bad_images, picture, png_bomb, textured

import manylens.collection.decode as decode_module
import manylens.collection.find as images_module
from manylens.collection.decode import decode, encode_jpeg
from manylens.collection.find import Collection, find_images
from manylens.collection.pictures import StoredImages
from manylens.errors import ImageUnreadable, UsageError
from manylens.text import printable
from manylens.types import Thumbnail


class Kept(dict[str, Thumbnail]):
    def __call__(self, thumbnails: object) -> None:
        for thumbnail in thumbnails:  # type: ignore[attr-defined]
            assert thumbnail.image_id not in self, "decoded twice"
            self[thumbnail.image_id] = thumbnail


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> tuple[BadFolder, Collection, Kept]:
    made = make_bad_images(tmp_path_factory.mktemp("bad"))
    kept = Kept()
    return made, find_images(made.root, keep=kept), kept


def center(jpeg: bytes) -> tuple[int, ...]:
    pixels = np.asarray(PIL.Image.open(io.BytesIO(jpeg)).convert("RGB"))
    return tuple(pixels[pixels.shape[0] // 2, pixels.shape[1] // 2].tolist())


def test_every_odd_but_whole_file_is_read(bad: tuple[BadFolder, Collection, Kept]) -> None:
    made, collection, _ = bad
    assert sorted(path for image in collection.images for path in image.paths) == sorted(made.readable)


def test_every_bad_file_is_reported_with_its_reason(bad: tuple[BadFolder, Collection, Kept]) -> None:
    made, collection, _ = bad
    reasons = {file.path: file.reason for file in collection.unreadable}
    assert reasons.keys() == made.unreadable.keys()
    assert [path for path, part in made.unreadable.items() if part not in reasons[path]] == []


def test_files_found_are_readable_plus_unreadable(bad: tuple[BadFolder, Collection, Kept]) -> None:
    made, collection, _ = bad
    assert (collection.files_found, collection.skipped_count) == (made.files_found, len(made.skipped))


def test_pictures_look_as_a_person_sees_them(bad: tuple[BadFolder, Collection, Kept]) -> None:
    made, collection, kept = bad
    wrong: list[object] = []
    for image in collection.images:
        color, size = made.readable[image.paths[0]]
        if (image.width_px, image.height_px) != size:
            wrong.append((image.paths, "size", image.width_px, image.height_px))
        found = center(kept[image.id].jpeg)
        if color is not None and np.abs(np.subtract(found, color)).max() > 4:
            wrong.append((image.paths, "color", found, color))
    assert wrong == []


def test_identity_is_the_hash_of_the_bytes_and_duplicates_share_it(bad: tuple[BadFolder, Collection, Kept]) -> None:
    made, collection, _ = bad
    twins = [image for image in collection.images if len(image.paths) > 1]
    assert [image.paths for image in twins] == [made.duplicates]
    assert twins[0].id == hashlib.sha256((made.root / "twin_a.jpg").read_bytes()).hexdigest()


def test_images_are_sorted_by_id_and_the_same_each_time(bad: tuple[BadFolder, Collection, Kept]) -> None:
    made, collection, kept = bad
    again = Kept()
    assert find_images(made.root, keep=again, workers=1) == collection
    assert again == kept
    assert [image.id for image in collection.images] == sorted(image.id for image in collection.images)


def test_known_images_are_not_decoded_again(
    bad: tuple[BadFolder, Collection, Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, collection, kept = bad
    known = {image_id: (thumbnail.width_px, thumbnail.height_px) for image_id, thumbnail in kept.items()}
    decoded: list[object] = []

    def spy(source: object, side: int) -> object:
        decoded.append(source)
        return decode(source, side)  # type: ignore[arg-type]

    monkeypatch.setattr(images_module, "decode", spy)
    fresh = Kept()
    assert find_images(made.root, known=known, keep=fresh) == collection
    assert fresh == {}
    assert len(decoded) == 4  # truncated, empty, no picture, bomb: the files that never became known


def test_every_path_can_be_written_as_utf8(bad: tuple[BadFolder, Collection, Kept]) -> None:
    made, _, _ = bad
    assert len({printable(path).encode("utf-8") for path in made.readable}) == len(made.readable)
    assert printable("emoji 🃏\n.png") == "emoji 🃏\n.png"


@pytest.mark.parametrize("side", [9_500, 20_000])
def test_a_bomb_is_refused_from_its_header(tmp_path: Path, side: int) -> None:
    """Nothing the size of the picture is ever allocated."""
    png_bomb(tmp_path / "bomb.png", side)
    script = (
        "import resource, sys; from manylens.collection.find import find_images\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert len(find_images(sys.argv[1]).unreadable) == 1\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40, "megabytes; Pillow holds a byte a pixel, 90 or 400"
    assert done.stderr == "", "Pillow's own warning must not reach the person"


def test_the_largest_picture_that_passes_is_read_without_a_warning() -> None:
    """Pillow's limit must stay above ours, or it writes to standard error on each step."""
    buffer = io.BytesIO()
    PIL.Image.new("L", (8_900, 10_000)).save(buffer, "TIFF")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(buffer, 256)[1] == (8_900, 10_000)


def test_no_permission_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture((1, 2, 3)).save(tmp_path / "locked.png")
    picture((1, 2, 4)).save(tmp_path / "open.png")
    real_open = os.open

    def refusing(path: object, *args: object, **kwargs: object) -> int:
        if str(path).endswith("locked.png"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refusing)
    collection = find_images(tmp_path)
    assert [(file.path, file.reason) for file in collection.unreadable] == [("locked.png", "no permission to read it")]
    assert len(collection.images) == 1


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture((1, 2, 3)).save(tmp_path / "open.png")
    (tmp_path / "shut").mkdir()
    real_listdir = os.listdir

    def refusing(path: str) -> list[str]:
        if str(path).endswith("shut"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_listdir(path)

    monkeypatch.setattr(os, "listdir", refusing)
    assert [file.path for file in find_images(tmp_path).unreadable] == ["shut"]


def test_a_pipe_that_takes_a_files_place_does_not_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the listing and the opening anything may happen."""
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.setattr(images_module, "_walk", lambda root, chosen: (["pipe.jpg"], [], 0))
    assert "not a regular file" in find_images(tmp_path).unreadable[0].reason


def test_linked_folders_are_read_once_by_their_own_path(tmp_path: Path) -> None:
    (tmp_path / "photos" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    picture((1, 2, 3)).save(tmp_path / "photos" / "b" / "x.png")
    picture((3, 2, 1)).save(tmp_path / "elsewhere" / "y.png")
    (tmp_path / "photos" / "a").symlink_to("b")
    (tmp_path / "photos" / "far").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "far2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "photos" / "up").symlink_to(tmp_path)
    collection = find_images(tmp_path / "photos")
    assert sorted(path for image in collection.images for path in image.paths) == ["b/x.png", "far/y.png"]
    assert [(file.path, file.reason) for file in collection.unreadable] == [("up", "symbolic link loop")]


def test_a_broken_link_is_an_unreadable_picture_only_where_its_name_is_a_pictures(tmp_path: Path) -> None:
    picture((1, 2, 3)).save(tmp_path / "x.png")
    for name in ("gone.jpg", "gone", "notes.txt", ".#lock.jpg"):
        (tmp_path / name).symlink_to("nowhere")
    collection = find_images(tmp_path)
    assert [(file.path, file.reason) for file in collection.unreadable] == [("gone.jpg", "broken symbolic link")]
    assert collection.skipped_count == 3


def test_a_linked_folder_that_vanishes_meanwhile_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk that it is on is unplugged while another one is listed."""
    (tmp_path / "photos").mkdir()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        picture((1, 2, len(name))).save(tmp_path / name / "x.png")
        (tmp_path / "photos" / name).symlink_to(tmp_path / name)
    real_listdir = os.listdir

    def unplugging(path: str) -> list[str]:
        if str(path).endswith("one"):
            shutil.rmtree(tmp_path / "two")
        return real_listdir(path)

    monkeypatch.setattr(os, "listdir", unplugging)
    collection = find_images(tmp_path / "photos")
    assert [image.paths for image in collection.images] == [("one/x.png",)]
    ((path, reason),) = [(file.path, file.reason) for file in collection.unreadable]
    assert path == "two"
    assert "vanished" in reason


def test_the_results_of_a_run_inside_the_folder_are_not_images(tmp_path: Path) -> None:
    picture((1, 2, 3)).save(tmp_path / "x.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.sqlite").touch()
    picture((3, 2, 1)).save(tmp_path / "out" / "y.png")
    assert [image.paths for image in find_images(tmp_path).images] == [("x.png",)]


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "no image"])
def test_a_folder_without_images_is_a_usage_error_with_a_cure(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "photos"
    if kind == "file":
        target.write_text("x")
    elif kind != "missing":
        target.mkdir()
        if kind == "no image":
            (target / "notes.txt").write_text("x")
    with pytest.raises(UsageError) as caught:
        find_images(target)
    assert str(target) in caught.value.rule
    assert caught.value.hint


def test_the_thumbnail_keeps_the_shape_and_never_enlarges(tmp_path: Path) -> None:
    for size, expected in [((1000, 500), (256, 128)), ((100, 50), (100, 50)), ((5000, 2), (256, 1))]:
        buffer = io.BytesIO()
        picture((9, 9, 9), size).save(buffer, "PNG")
        assert decode(buffer, 256)[0].size == expected


def test_a_large_jpeg_shrinks_to_what_full_decoding_gives(tmp_path: Path) -> None:
    """Decoding at an eighth is a short cut, not another picture."""
    gradient = np.add.outer(np.arange(1800) / 1800, np.arange(2400) / 2400) * 127
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.repeat(gradient.astype(np.uint8)[:, :, None], 3, 2)).save(buffer, "JPEG", quality=95)
    found = np.asarray(decode(buffer, 256)[0]).astype(int)
    exact = np.asarray(PIL.Image.open(buffer).resize((256, 192), PIL.Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(found - exact).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_exif_orientations_are_set_upright(orientation: int, kind: str) -> None:
    """Pillow turns a TIFF by itself while it is loaded."""
    upright = textured(4, (64, 48)).resize((16, 12)).resize((64, 48))
    stored = upright
    if orientation > 1:
        back = {6: 8, 8: 6}.get(orientation, orientation)
        stored = upright.transpose(decode_module._TURNS[back])
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, kind, exif=exif)
    found, size = decode(buffer, 256)
    assert size == (64, 48)
    assert np.array_equal(np.asarray(found), np.asarray(upright))


def test_sixteen_bit_gray_keeps_its_range() -> None:
    """Pillow's own conversion clips everything above 255 to white."""
    values = np.linspace(0, 65535, 200).astype(np.uint16).reshape(10, 20)
    buffer = io.BytesIO()
    PIL.Image.fromarray(values).save(buffer, "PNG")
    found = np.asarray(decode(buffer, 256)[0])[:, :, 0].astype(int)
    assert np.abs(found - np.round(values / 257)).max() <= 1


def test_float_pictures_outside_0_1_are_scaled_by_their_range_and_survive_nan() -> None:
    values = np.linspace(-50, 1000, 200, dtype=np.float32).reshape(10, 20)
    values[0, 0] = np.nan
    buffer = io.BytesIO()
    PIL.Image.fromarray(values).save(buffer, "TIFF")
    found = np.asarray(decode(buffer, 256)[0])[:, :, 0].astype(int)
    assert (found[0, 1], found[-1, -1]) == (0, 255)
    assert np.all(np.diff(found.ravel()[1:]) >= 0)


def test_only_a_few_files_are_in_flight(tmp_path: Path) -> None:
    started: list[str] = []
    guard = threading.Lock()

    def read(path: str) -> str:
        with guard:
            started.append(path)
        return path

    results = images_module._in_order(read, [str(i) for i in range(100)], 2)
    assert next(results) == ("0", "0")
    time.sleep(0.05)
    assert len(started) <= 10
    assert [path for path, _ in results] == [str(i) for i in range(1, 100)]


def test_progress_counts_every_candidate(tmp_path: Path) -> None:
    for i in range(3):
        picture((i, 0, 0)).save(tmp_path / f"{i}.png")
    seen: list[tuple[int, int]] = []
    find_images(tmp_path, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def _source(root: Path) -> tuple[StoredImages, str]:
    kept = Kept()
    collection = find_images(root, keep=kept)
    return StoredImages(root, collection.images, lambda i: kept[i].jpeg), collection.images[0].id


def test_larger_models_get_the_original_upright_and_shrunk(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    textured(5, (1200, 900)).save(tmp_path / "x.jpg", exif=exif)
    source, image_id = _source(tmp_path)
    assert PIL.Image.open(io.BytesIO(source.jpeg(image_id, 512))).size == (384, 512)
    assert source.thumbnail(image_id).size == (192, 256)


def test_small_requests_are_served_from_the_thumbnail_without_the_file(tmp_path: Path) -> None:
    textured(5, (1200, 900)).save(tmp_path / "x.jpg")
    source, image_id = _source(tmp_path)
    (tmp_path / "x.jpg").unlink()
    assert PIL.Image.open(io.BytesIO(source.jpeg(image_id, 128))).size == (128, 96)
    with pytest.raises(ImageUnreadable, match="moved or changed"):
        source.jpeg(image_id, 512)


def test_a_file_that_changed_is_not_passed_off_as_the_image(tmp_path: Path) -> None:
    textured(5, (1200, 900)).save(tmp_path / "x.jpg")
    source, image_id = _source(tmp_path)
    textured(6, (1200, 900)).save(tmp_path / "x.jpg")
    with pytest.raises(ImageUnreadable, match="moved or changed"):
        source.jpeg(image_id, 512)


def test_red_on_black_detail_survives_the_thumbnail() -> None:
    """Color subsampling would smear single-pixel red lines into gray."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, ::4] = (255, 0, 0)
    found = np.asarray(PIL.Image.open(io.BytesIO(encode_jpeg(PIL.Image.fromarray(pixels), quality=95))))
    assert found[16, 16, 0] > 200
    assert found[16, 18, 0] < 50


def test_a_pillow_without_some_format_still_reads_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    PIL.Image.init()
    monkeypatch.delitem(PIL.Image.OPEN, "AVIF")
    buffer = io.BytesIO()
    picture((9, 9, 9)).save(buffer, "PNG")
    assert decode(buffer, 256)[0].size == (40, 30)
