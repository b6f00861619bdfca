import numpy as np
import pytest
from answerers import Truthful, World, begin, choose, drive, looks_of, make_world

from manylens.method.estimate import estimate_misplaced
from manylens.method.sorting import NONE, Sorting
from manylens.types import Misplaced


def estimate(sorting: Sorting, seed: int = 0) -> tuple[Misplaced, list[Misplaced], np.ndarray]:
    """(overall, of each live cluster, the group of each image)."""
    row = {cluster: at for at, cluster in enumerate(sorting.live())}
    group_of = np.array([row.get(sorting.cluster_of(i), NONE) for i in range(len(sorting.looks))], dtype=np.int64)
    overall, each = estimate_misplaced(sorting, group_of, len(row), seed)
    return overall, each, group_of


def checked(world: World, price: float = 1 / 15, wrong: float = 0.0) -> Sorting:
    check = begin(world.looks, price=price)
    drive(check.run(), Truthful(world, wrong))
    return check.sorting


def share_misplaced(world: World, sorting: Sorting) -> float:
    """Of the placed images: those that are not of the kind that most of their cluster have."""
    kinds: dict[int, list[str]] = {}
    for image, kind in enumerate(world.kinds()):
        kinds.setdefault(sorting.cluster_of(image), []).append(kind)
    kinds.pop(NONE, None)
    right = sum(max(map(of.count, of)) for of in kinds.values())
    return 1 - right / sum(map(len, kinds.values()))


def red_and_blue(asked: int = 0, elsewhere: int = 0) -> Sorting:
    """200 images of each; of the red ones so many were asked, of which the first ones are elsewhere."""
    sorting = begin(looks_of(["red"] * 200 + ["blue"] * 200)).sorting
    sorting.refresh()
    names = [cluster.name for cluster in sorting.clusters]
    for image in range(asked):
        wrong = image < elsewhere
        at = names.index("blue" if wrong else "red")
        sorting.learn(image, [0, 1], choose(at, 2, 0.99).probabilities)
    sorting.refresh()
    sorting.refresh()
    return sorting


def test_where_every_image_was_asked_without_doubt_almost_none_is_misplaced() -> None:
    world = make_world(3, 30)
    check = begin(world.looks)
    check.sorting.reliability = 1.0
    check.sorting.refresh()
    for _ in range(2):
        drive(check.ask([(image, check.sorting.live()) for image in range(30)]), Truthful(world))
    check.sorting.refresh()
    overall, each, _ = estimate(check.sorting)
    assert overall.share < 0.002 and overall.high < 0.04
    assert all(part.share < 0.005 for part in each)


def test_the_interval_contains_the_share() -> None:
    inside = total = 0
    for seed in range(12):
        world = make_world(4, 160, wordings=3, misdescribed=0.12, seed=seed)
        sorting = checked(world)
        overall, _, _ = estimate(sorting)
        inside += overall.low <= share_misplaced(world, sorting) <= overall.high
        total += 1
        assert 0 <= overall.low < overall.share < overall.high <= 1
    assert inside >= total - 2


def test_the_share_is_about_what_it_is_on_average() -> None:
    worlds = [make_world(4, 160, wordings=2, misdescribed=0.12, seed=seed) for seed in range(8)]
    sortings = [checked(world, price=1 / 7) for world in worlds]
    found = np.mean([estimate(sorting)[0].share for sorting in sortings])
    truth = np.mean([share_misplaced(w, s) for w, s in zip(worlds, sortings, strict=True)])
    assert 0.5 * truth < found < 2 * truth


def test_it_grows_with_the_share_of_misplaced_images() -> None:
    found = [estimate(red_and_blue(40, elsewhere))[0] for elsewhere in (0, 4, 12)]
    shares = [overall.share for overall in found]
    assert shares == sorted(shares) and shares[2] > 4 * shares[0]
    assert [overall.high for overall in found] == sorted(overall.high for overall in found)


def test_before_any_answer_it_is_the_prior_and_the_interval_is_wide() -> None:
    overall, _, _ = estimate(red_and_blue())
    assert 0.04 < overall.share < 0.15
    assert overall.low < 0.02 and overall.high > 0.15


def test_answers_narrow_the_interval() -> None:
    found = [estimate(red_and_blue(asked, asked // 16))[0] for asked in (0, 20, 150)]
    widths = [overall.high - overall.low for overall in found]
    assert widths == sorted(widths, reverse=True)


def test_a_units_doubt_counts_for_all_of_its_images() -> None:
    sorting = red_and_blue()
    sorting.sure[:] = 1.0
    before = estimate(sorting)[0]
    sorting.sure[0] = 0.6
    after = estimate(sorting)[0]
    assert after.share == pytest.approx(before.share + 0.4 / 2, abs=0.06)
    assert after.high > 0.5


def test_the_doubt_that_an_images_own_answers_leave_is_counted_as_it_is() -> None:
    """Singles that were asked: 20 images, each one in five wrong."""
    looks = looks_of([f"w{k}" for k in range(20)])
    check = begin(looks, into=["a"])
    sorting = check.sorting
    sorting.refresh()
    for image in range(20):
        sorting.image_place[image], sorting.image_sure[image] = 0, 0.8
        sorting.place[sorting.units.of_image[image]] = 0
    sorting.answers = {image: [] for image in range(20)}
    overall, each = estimate_misplaced(sorting, np.zeros(20, np.int64), 1, 0)
    assert overall.share == pytest.approx(0.2, abs=0.02) and each == [overall]
    assert overall.low == pytest.approx(0.05, abs=0.051) and overall.high == pytest.approx(0.4, abs=0.051)


def test_a_single_image_that_was_not_asked_is_misplaced_only_with_its_unit() -> None:
    looks = looks_of(["red"] * 2 + ["odd"])
    sorting = begin(looks, into=["a", "b"]).sorting
    sorting.refresh()
    sorting.sure[:] = 1.0
    overall, _ = estimate_misplaced(sorting, np.array([NONE, NONE, 0]), 1, 0)
    assert (overall.share, overall.high) == (0.0, 0.0)


@pytest.mark.parametrize("seed", range(3))
def test_the_groups_add_up_to_the_whole(seed: int) -> None:
    world = make_world(4, 160, wordings=3, misdescribed=0.12, seed=seed)
    sorting = checked(world, price=1 / 7)
    overall, each, group_of = estimate(sorting)
    sizes = np.bincount(group_of[group_of != NONE], minlength=len(each))
    assert overall.share * sizes.sum() == pytest.approx(
        sum(part.share * size for part, size in zip(each, sizes, strict=True)), abs=0.05
    )
    assert overall.high - overall.low < max(part.high - part.low for part in each)


def test_groups_without_images_have_none_misplaced() -> None:
    sorting = checked(make_world(2, 20))
    overall, each = estimate_misplaced(sorting, np.full(20, NONE, np.int64), 2, 0)
    assert overall == each[0] == each[1] == Misplaced(0.0, 0.0, 0.0)


def test_the_same_seed_gives_the_same_numbers_and_another_nearly_so() -> None:
    sorting = checked(make_world(3, 90, wordings=2, misdescribed=0.1))
    one, again, other = (estimate(sorting, seed)[0] for seed in (0, 0, 1))
    assert one == again
    assert other.share == pytest.approx(one.share, rel=0.3)
    assert all(value == round(value, 4) for value in (one.share, one.low, one.high))


def test_less_sure_looks_are_the_more_often_misplaced() -> None:
    looks = looks_of(["red"] * 100 + ["blue"] * 100, None, [0.95] * 100 + [0.5] * 100)
    sorting = begin(looks).sorting
    sorting.refresh()
    _, each, _ = estimate(sorting)
    by_name = {sorting.clusters[cluster].name: part for cluster, part in zip(sorting.live(), each, strict=True)}
    assert by_name["blue"].share > 3 * by_name["red"].share


def test_what_a_unit_showed_counts_for_that_unit() -> None:
    """Of both descriptions 20 of 100 were asked; only one had misplaced images."""
    looks = looks_of(["red"] * 100 + ["blue"] * 100 + ["green"] * 100)
    sorting = begin(looks).sorting
    sorting.refresh()
    at = {sorting.clusters[c].name: c for c in sorting.live()}
    for image in range(20):
        sorting.learn(image, [at["red"], at["blue"], at["green"]],
                      choose(2 if image < 6 else 0, 3, 0.99).probabilities)  # fmt: skip
        sorting.learn(100 + image, [at["red"], at["blue"], at["green"]], choose(1, 3, 0.99).probabilities)
    for _ in range(3):
        sorting.refresh()
    group_of = np.repeat(np.arange(3), 100)
    _, each = estimate_misplaced(sorting, group_of, 3, 0)
    assert each[0].share > 2 * each[1].share
    assert each[1].share < each[2].share, "of which nothing was asked"
