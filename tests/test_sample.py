"""The sample collection: its labels are true, balanced and hidden; its bytes follow from the seed alone."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections import Counter
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from manylens.cli import sample as shipped
from manylens.errors import UsageError
from training.draw_cards import DECK_STYLES, RANKS, SUITS, Card, draw_card, write_sample

SIZE_PX = 64


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def pixels(card: Card, *seed: int, size_px: int = SIZE_PX) -> NDArray[np.float64]:
    return np.asarray(draw_card(card, rng=rng(*seed), size_px=size_px), dtype=np.float64)


def labels(images: Path) -> list[dict[str, str]]:
    with open(images.parent / "labels.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small sample, one image of each card; its images' folder."""
    return write_sample(tmp_path_factory.mktemp("sample"), images_per_card=1, size_px=SIZE_PX)


@pytest.fixture
def deal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes samples at once: the labels are real, each photo is one grey pixel."""
    monkeypatch.setattr("training.draw_cards.draw_card", lambda card, *, rng, size_px: Image.new("RGB", (1, 1), "grey"))


def test_a_photo_is_rgb_and_of_the_size_asked_for() -> None:
    photo = draw_card(Card("ace", "spades", "classic"), rng=rng(0), size_px=80)
    assert (photo.mode, photo.size) == ("RGB", (80, 80))


def test_equal_generators_give_equal_pixels() -> None:
    card = Card("queen", "hearts", "vintage")
    assert np.array_equal(pixels(card, 7), pixels(card, 7))


def test_other_generators_give_other_photos_of_the_same_card() -> None:
    card = Card("five", "clubs", "ornate")
    photos = [pixels(card, seed) for seed in range(4)]
    assert all(np.abs(a - b).mean() > 5 for a, b in combinations(photos, 2))


@pytest.mark.parametrize("style", DECK_STYLES)
def test_every_rank_looks_different_under_the_same_camera(style: str) -> None:
    photos = [pixels(Card(rank, "spades", style), 3) for rank in RANKS]
    assert all(np.abs(a - b).max() > 60 for a, b in combinations(photos, 2))


@pytest.mark.parametrize("style", DECK_STYLES)
def test_every_suit_looks_different_under_the_same_camera(style: str) -> None:
    photos = [pixels(Card("ace", suit, style), 3) for suit in SUITS]
    assert all(np.abs(a - b).max() > 60 for a, b in combinations(photos, 2))


def test_every_style_looks_different_under_the_same_camera() -> None:
    photos = [pixels(Card("nine", "hearts", style), 3) for style in DECK_STYLES]
    assert all(np.abs(a - b).max() > 60 for a, b in combinations(photos, 2))


@pytest.mark.parametrize("style", DECK_STYLES)
def test_red_suits_are_redder_than_black_suits(style: str) -> None:
    """Redness: the mean excess of red over green and blue. Same camera, so that ink makes the only difference."""

    def redness(suit: str) -> float:
        photo = np.mean([pixels(Card(rank, suit, style), 5) for rank in ("eight", "king")], axis=0)
        return float((photo[..., 0] - photo[..., 1:].mean(axis=-1)).mean())

    reds, blacks = [redness("hearts"), redness("diamonds")], [redness("clubs"), redness("spades")]
    assert min(reds) > max(blacks) + 1


def test_color_follows_from_the_suit() -> None:
    assert {suit: Card("two", suit, "jumbo").color for suit in SUITS} == {
        "clubs": "black",
        "diamonds": "red",
        "hearts": "red",
        "spades": "black",
    }


@pytest.mark.parametrize(
    "fields", [("one", "clubs", "classic"), ("ace", "clover", "classic"), ("ace", "clubs", "baroque")]
)
def test_an_unknown_card_is_refused_with_what_it_got(fields: tuple[str, str, str]) -> None:
    wrong = next(f for f in fields if f not in (*RANKS, *SUITS, *DECK_STYLES))
    with pytest.raises(ValueError, match=wrong):
        Card(*fields)


def test_a_photo_too_small_to_read_is_refused() -> None:
    with pytest.raises(ValueError, match="size_px must be at least"):
        draw_card(Card("ace", "clubs", "classic"), rng=rng(0), size_px=32)


def test_labels_and_images_name_the_same_files(sample: Path) -> None:
    assert [row["file"] for row in labels(sample)] == sorted(p.name for p in sample.iterdir())


def test_every_image_opens_at_its_full_size(sample: Path) -> None:
    for path in sample.iterdir():
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (SIZE_PX, SIZE_PX))


def test_one_image_per_card_shows_every_card_once(sample: Path) -> None:
    cards = [(row["rank"], row["suit"]) for row in labels(sample)]
    assert sorted(cards) == sorted(product(RANKS, SUITS))


def test_the_image_shows_the_card_its_label_names(sample: Path) -> None:
    """Of all 52 cards drawn into the same scene, the labelled one is nearest to the picture in the file."""
    for number, row in list(enumerate(labels(sample), start=1))[:2]:
        with Image.open(sample / row["file"]) as image:
            shown = np.asarray(image, dtype=np.float64)
        cards = [Card(rank, suit, row["style"]) for rank, suit in product(RANKS, SUITS)]
        nearest = min(cards, key=lambda card: np.abs(pixels(card, 0, number) - shown).mean())
        assert (nearest.rank, nearest.suit, nearest.color) == (row["rank"], row["suit"], row["color"])


def test_equal_seeds_give_equal_bytes(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path, images_per_card=1, size_px=SIZE_PX)
    assert contents(tmp_path) == contents(sample.parent)


def test_an_interrupted_call_is_completed_by_the_next(sample: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path, images_per_card=1, size_px=SIZE_PX, progress=stop)
    assert not (tmp_path / "labels.csv").exists()
    (tmp_path / "images" / "card-0004.jpg").write_bytes(b"half a fi")
    write_sample(tmp_path, images_per_card=1, size_px=SIZE_PX)
    assert contents(tmp_path) == contents(sample.parent)


@pytest.mark.usefixtures("deal")
def test_another_seed_deals_another_order(tmp_path: Path) -> None:
    first, second = (labels(write_sample(tmp_path / str(seed), seed=seed)) for seed in (0, 1))
    assert first != second
    assert sorted(map(str, ({**row, "file": ""} for row in first))) == sorted(
        map(str, ({**row, "file": ""} for row in second))
    )


@pytest.mark.usefixtures("deal")
def test_the_default_sample_holds_every_card_in_every_style_once(tmp_path: Path) -> None:
    rows = labels(write_sample(tmp_path))
    assert sorted((r["rank"], r["suit"], r["style"]) for r in rows) == sorted(product(RANKS, SUITS, DECK_STYLES))


@pytest.mark.usefixtures("deal")
def test_the_default_sample_is_balanced_in_all_four_clusterings(tmp_path: Path) -> None:
    rows = labels(write_sample(tmp_path))
    counts = {name: set(Counter(row[name] for row in rows).values()) for name in ("suit", "rank", "color", "style")}
    assert counts == {"suit": {78}, "rank": {24}, "color": {156}, "style": {52}}


@pytest.mark.usefixtures("deal")
@pytest.mark.parametrize("images_per_card", [1, 2, 4])
def test_a_smaller_sample_ties_no_style_to_a_suit(tmp_path: Path, images_per_card: int) -> None:
    rows = labels(write_sample(tmp_path, images_per_card=images_per_card))
    pairs = Counter((row["suit"], row["style"]) for row in rows)
    assert len(pairs) == len(SUITS) * len(DECK_STYLES)
    assert max(pairs.values()) - min(pairs.values()) <= 1


@pytest.mark.usefixtures("deal")
def test_names_and_their_order_say_nothing_of_the_labels(tmp_path: Path) -> None:
    """Neighbours in name order share a label about as often as cards drawn at random do."""
    rows = labels(write_sample(tmp_path))
    assert [row["file"] for row in rows] == [f"card-{i:04d}.jpg" for i in range(1, 313)]
    for name, groups in (("suit", 4), ("rank", 13), ("color", 2), ("style", 6)):
        values = [row[name] for row in rows]
        for step in (1, 2, groups):
            alike = np.mean([a == b for a, b in zip(values, values[step:], strict=False)])
            assert abs(alike - 1 / groups) < 4 * np.sqrt((1 / groups) * (1 - 1 / groups) / 312)


@pytest.mark.usefixtures("deal")
def test_progress_counts_every_image_up_to_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_sample(tmp_path, images_per_card=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 104) for i in range(1, 105)]


@pytest.mark.usefixtures("deal")
def test_a_folder_with_other_images_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """A larger sample's images would be left over without a label."""
    write_sample(tmp_path, images_per_card=2)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"card-0053\.jpg"):
        write_sample(tmp_path, images_per_card=1)
    assert contents(tmp_path) == before


@pytest.mark.usefixtures("deal")
@pytest.mark.parametrize("wrong", [{"images_per_card": 0}, {"seed": -1}, {"size_px": 63}])
def test_wrong_numbers_are_refused_before_anything_is_touched(tmp_path: Path, wrong: dict[str, int]) -> None:
    write_sample(tmp_path, images_per_card=1)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        write_sample(tmp_path, **{"images_per_card": 1, **wrong})  # type: ignore[arg-type]
    assert contents(tmp_path) == before


def test_what_ships_is_what_the_renderer_draws(tmp_path: Path) -> None:
    images = shipped.write_sample(tmp_path)
    rows = labels(images)
    assert len(rows) == 312 and sorted(row["file"] for row in rows) == sorted(p.name for p in images.iterdir())
    for number in (1, 100, 312):
        row = rows[number - 1]
        drawn = draw_card(Card(row["rank"], row["suit"], row["style"]), rng=rng(0, number), size_px=192)
        with Image.open(images / row["file"]) as image:
            assert np.abs(np.asarray(image, dtype=np.float64) - np.asarray(drawn)).mean() < 4  # JPEG, and no more


def test_an_interrupted_copy_is_completed_and_other_pictures_are_refused(tmp_path: Path) -> None:
    images = shipped.write_sample(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "labels.csv").unlink()
    (images / "card-0004.jpg").write_bytes(b"half a fi")
    shipped.write_sample(tmp_path)
    assert contents(tmp_path) == before
    (images / "holiday.jpg").write_bytes(b"")
    with pytest.raises(UsageError, match=r"holiday\.jpg"):
        shipped.write_sample(tmp_path)


def test_only_the_demo_opens_the_sample() -> None:
    """Neither the package nor the command line as it starts has anything to do with it."""
    code = "import sys, manylens.api, manylens.cli.main; sys.exit('manylens.cli.sample' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
