import numpy as np
import pytest
from by_hand import by_label, drive, looks_of

from manylens.calibrate import Calibration, calibrate_edges, calibrate_judge, draw_pairs, fit, fit_edges
from manylens.evidence import EdgeScale, Question
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
    """Against its own formula, by brute force around it."""
    chance = np.random.default_rng(0)
    data = [(float(chance.uniform(0.02, 0.98)), bool(chance.random() < 0.5)) for _ in range(30)]

    def loss(scale: float, offset: float) -> float:
        total = (scale - 1) ** 2 / 2 + offset**2 / 2
        for p, expected in data:
            yes = 0.025 + 0.95 / (1 + np.exp(-(scale * np.log(p / (1 - p)) + offset)))
            total -= np.log(yes if expected else 1 - yes)
        return float(total)

    found = fit(data)
    around = [loss(found.scale + a, found.offset + b) for a in (-0.02, 0, 0.02) for b in (-0.05, 0, 0.05)]
    assert min(around) == around[4] or found.scale == 0


def test_two_lapses_of_24_leave_a_good_judge_telling() -> None:
    found = fit(controls(0.97, 0.03, 10, 12, of=12))
    assert found.is_telling
    assert found.apply(0.97) > 0.9
    assert found.apply(0.03) < 0.15


def test_a_judge_who_seems_to_tell_nothing_gets_as_many_controls_again() -> None:
    labels = ["hearts", "spades", "clubs"] * 40
    looks = looks_of(labels)
    asked: list[Question] = []
    found = drive(calibrate_judge(looks, Settings()), lambda question: 0.95, asked)
    assert not found.is_telling
    assert len(asked) == 24
    assert len(set(asked)) == 24


def test_pairs_lie_over_the_whole_upper_range_of_similarities_and_use_no_image_twice() -> None:
    chance = np.random.default_rng(0)
    looks = looks_of(["hearts", "spades", "clubs"] * 100, chance.standard_normal((300, 4)))
    pairs = draw_pairs(looks, 24, seed=0)
    assert len(pairs) == 24
    assert len({group for group, _, _ in pairs}) == len({candidate for _, candidate, _ in pairs}) == 24
    found = [similarity for _, _, similarity in pairs]
    assert found == sorted(found)
    everything = np.sort((looks.embeddings @ looks.embeddings.T)[np.triu_indices(300, 1)])
    assert found[0] == pytest.approx(everything[len(everything) // 4], abs=0.01)
    assert found[-1] == pytest.approx(everything[-1], abs=0.01)
    assert max(np.diff(found)) < 0.1


@pytest.mark.parametrize(("scale", "middle"), [(12.0, 0.5), (6.0, 0.35), (20.0, 0.6)])
def test_edges_are_fitted_to_what_the_judge_says_of_pairs(scale: float, middle: float) -> None:
    """The judge's answers follow a known curve, one is an outlier; tau then means a probability."""
    similarity = np.linspace(-0.1, 0.95, 48)
    judged = [(float(s), float(1 / (1 + np.exp(-scale * (s - middle))))) for s in similarity]
    judged[3] = (judged[3][0], 0.97)
    found = fit_edges(judged, EdgeScale(10.0, -4.5))
    assert -found.offset / found.scale == pytest.approx(middle, abs=0.05)
    assert found.scale == pytest.approx(scale, rel=0.35)


def test_without_answers_or_trust_in_them_the_models_own_edges_stand() -> None:
    known = EdgeScale(12.0, -6.4)
    looks = looks_of(["a", "b"] * 100, np.random.default_rng(0).standard_normal((200, 4)))
    assert fit_edges([], known) == known
    assert drive(calibrate_edges(looks, known, Calibration(), Settings()), lambda question: None) == known
    assert drive(calibrate_edges(looks, known, Calibration(0.0, 0.0), Settings()), lambda question: 1 / 0) == known
    assert drive(calibrate_edges(looks, known, Calibration(), Settings(edge_questions=0)), lambda q: 1 / 0) == known


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
