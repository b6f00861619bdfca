import numpy as np
import pytest
from by_hand import by_label, drive, looks_of

from manylens.calibrate import Calibration, calibrate_judge, fit
from manylens.evidence import Question
from manylens.records import Settings


def controls(yes: float, no: float, true_yes: int, true_no: int, of: int = 20) -> list[tuple[float, bool]]:
    """`true_yes` of the positive and `true_no` of the negative controls are answered rightly."""
    positive = [(yes, True)] * true_yes + [(no, True)] * (of - true_yes)
    return positive + [(no, False)] * true_no + [(yes, False)] * (of - true_no)


def test_a_good_judge_is_left_about_as_it_is() -> None:
    found = fit(controls(0.95, 0.05, 20, 20))
    assert found.apply(0.95) > 0.9
    assert found.apply(0.05) < 0.1
    assert found.is_telling


@pytest.mark.parametrize(("true_yes", "true_no"), [(20, 0), (0, 20), (10, 10), (0, 0)])
def test_a_judge_who_says_the_same_to_all_or_anything_comes_out_near_one_half(true_yes: int, true_no: int) -> None:
    given = controls(0.95, 0.05, true_yes, true_no)
    found = fit(given)
    assert all(0.35 < found.apply(p) < 0.65 for p, _ in given)
    assert not found.is_telling


def test_a_shifted_judge_gets_its_threshold() -> None:
    """It says .3 for yes and .01 for no: .3 must come out above one half."""
    found = fit(controls(0.3, 0.01, 20, 20))
    assert found.apply(0.3) > 0.6
    assert found.apply(0.01) < 0.2


def test_the_fit_is_the_maximum_of_the_posterior() -> None:
    """Against a brute-force grid."""
    chance = np.random.default_rng(0)
    data = [(float(chance.uniform(0.02, 0.98)), bool(chance.random() < 0.5)) for _ in range(30)]

    def loss(scale: float, offset: float) -> float:
        total = (scale - 1) ** 2 / 2 + offset**2 / 2
        for p, expected in data:
            score = scale * np.log(p / (1 - p)) + offset
            total += np.logaddexp(0, score) - (0.98 if expected else 0.02) * score
        return float(total)

    found = fit(data)
    around = [loss(found.scale + a, found.offset + b) for a in (-0.01, 0, 0.01) for b in (-0.01, 0, 0.01)]
    assert min(around) == around[4] or found.scale == 0


def test_controls_are_half_yes_half_no_and_never_show_the_candidate() -> None:
    labels = ["hearts", "spades", "clubs"] * 40
    looks = looks_of(labels)
    asked: list[Question] = []
    found = drive(calibrate_judge(looks, Settings()), by_label(looks, labels), asked)
    assert found.is_telling
    assert len(asked) == 12
    assert sum(question.profile.words == looks.words[question.candidate] for question in asked) == 6
    assert all(question.candidate not in question.profile.exemplars for question in asked)


@pytest.mark.parametrize("labels", [[], ["a"] * 100, ["a", "b"] * 5, [str(number) for number in range(100)]])
def test_without_two_groups_nothing_is_asked(labels: list[str]) -> None:
    assert drive(calibrate_judge(looks_of(labels), Settings()), lambda question: 1 / 0) == Calibration()


def test_failed_controls_teach_nothing() -> None:
    assert drive(calibrate_judge(looks_of(["a", "b"] * 100), Settings()), lambda question: None) == Calibration()
