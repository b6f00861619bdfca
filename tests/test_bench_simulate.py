"""The simulated worlds, and the benches that run them."""

import pytest

pytest.importorskip("sklearn")
from bench import cheats, estimate, simulate, thresholds
from bench.worlds import NOISES, OPEN, WORLDS, see_world
from manylens.results.evaluate import evaluate_labels
from manylens.settings import Settings


@pytest.mark.parametrize("name", WORLDS)
def test_every_world_is_run_with_and_without_a_writer(name: str) -> None:
    for writes in (False, True):
        seen = see_world(WORLDS[name], 80, 0, writes, classes=5)
        found = simulate.simulate(seen, Settings())
        assert (found["writer calls"] > 0) == writes
        assert 0.3 < found["NMI"] <= 1 and 0 < found["calls/image"] < 4 and found["K"] >= 2


def test_open_words_say_less_than_closed_ones() -> None:
    said = {}
    for name in ("closed words", *OPEN):
        seen = see_world(WORLDS[name], 200, 0, False, classes=5)
        said[name] = evaluate_labels(seen.truth, seen.looks.words).nmi
    assert max(said, key=lambda name: said[name]) == "closed words"
    assert said["free prose"] < said["30 wordings"] < said["10 wordings"]


def test_there_is_a_row_for_each_world_number_of_images_and_model(capsys: pytest.CaptureFixture[str]) -> None:
    simulate.main(
        ["--worlds", "no noise", "10 wordings", "--images", "60", "--classes", "4", "--seeds", "1", "--plain"]
    )
    rows = [line.split(" | ")[:3] for line in capsys.readouterr().out.splitlines()[2:]]
    models = ("writes", "does not", "plain walk")
    assert rows == [[f"| {name}", "60", model] for name in ("no noise", "10 wordings") for model in models]


def test_the_plain_walk_finds_the_classes_where_nobody_errs() -> None:
    seen = see_world(NOISES["no noise"], 60, 0, False, classes=3)
    found = simulate.walk_plainly(seen)
    assert found["NMI"] == 1 and found["calls/image"] >= 0.9


@pytest.mark.parametrize("judge", cheats.JUDGES)
def test_cheating_judges_are_noticed_and_good_ones_believed(judge: str) -> None:
    for classes in (3, 8):
        seen = see_world(WORLDS["closed words"], 80, 1, False, classes)
        found = cheats.cheat(seen, judge, 1)
        assert found.believed == (judge == "good") == (not found.said) and found.nmi >= found.described - 0.02


def test_the_interval_and_the_confidences_of_a_run_are_compared_with_the_truth() -> None:
    found = estimate.estimate(see_world(WORLDS["12% wrong"], 200, 3, False, classes=5), 3)
    assert found is not None
    share, low, high = found.interval
    assert low <= share <= high and len(found.right) == len(found.confidences) <= 200
    assert found.misplaced == pytest.approx(1 - sum(found.right) / len(found.right))
    assert found.holds == (low <= found.misplaced <= high)


def test_the_calibration_error_is_that_of_its_bins() -> None:
    right = (True, True, True, False, True, False)
    run = estimate.Estimated((0.1, 0.0, 0.2), 2 / 6, (0.95, 0.97, 0.93, 0.95, 0.35, 0.35), right, 0.1)
    bins = estimate.reliability([run])
    assert [count for count, *_ in bins] == [0, 0, 0, 2, 0, 0, 0, 0, 0, 4]
    assert bins[9][1:] == pytest.approx((0.95, 0.75)) and bins[3][1:] == pytest.approx((0.35, 0.5))
    assert estimate.calibration_error([run]) == pytest.approx(4 / 6 * 0.2 + 2 / 6 * 0.15)
    assert "0.0%" in estimate.row("a", [run]) and "| 0, 1 |" in estimate.row("a", [run])


def test_of_units_with_uneven_shares_some_are_all_wrong() -> None:
    def worst(strength: float) -> float:
        seen = estimate.spread_shares(0.1, strength, 1000, 1)
        members: dict[str, list[str]] = {}
        for words, true in zip(seen.looks.words, seen.truth, strict=True):
            members.setdefault(words, []).append(true)
        large = [kinds for kinds in members.values() if len(kinds) >= 15]
        return max(1 - max(map(kinds.count, kinds)) / len(kinds) for kinds in large)

    assert worst(0.3) > 0.45 > 0.3 > worst(1e6)


def test_lying_confidences_are_turned_around() -> None:
    liar, honest = estimate.lying_confidence(300, 1), see_world(WORLDS["12% wrong"], 300, 1, True)
    assert (liar.looks.confidences + honest.looks.confidences).tolist() == pytest.approx([1.2] * 300)


def test_without_walks_there_are_more_units() -> None:
    seen = see_world(OPEN["free prose"], 120, 0, False, classes=4)
    units = [thresholds.measure(seen, Settings(), sure)[1] for sure in (0.8, 2.0)]
    assert units[0] < units[1] == 120
