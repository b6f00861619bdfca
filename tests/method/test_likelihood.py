from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from manylens.method.likelihood import (
    PRIOR_CATEGORY,
    PRIOR_CONFIDENCE,
    PRIOR_MISPLACED,
    ChoiceModel,
    MemberModel,
    member_features,
    pays_to_ask,
)

PRECISION = np.array([0.0625, 0.125, 0.5])


def simulate(
    seed: int, q: int, k: int = 4, sure: float = 0.97, truth: tuple[float, float, float] = (9.0, -5.0, 2.0)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(features, answers, shown) of q choices among at most k options, drawn from the conditional logit."""
    random = np.random.default_rng(seed)
    features = np.stack(
        [random.uniform(-0.2, 1, (q, k)), np.ones((q, k)), random.integers(0, 2, (q, k)).astype(float)], axis=2
    )
    shown = random.random((q, k)) < 0.8
    answers = np.full((q, k + 1), (1 - sure) / k)
    for row in range(q):
        z = np.append(np.where(shown[row], features[row] @ np.array(truth), -np.inf), 0)
        p = np.exp(z - z.max())
        answers[row, random.choice(k + 1, p=p / p.sum())] = sure
    return features, answers, shown


def negative_log_posterior(
    theta: np.ndarray, prior: np.ndarray, data: tuple[np.ndarray, ...], misplaced: np.ndarray, at: np.ndarray
) -> float:
    """An image is where its unit is, or, misplaced, anywhere: near by as likely as at any option. What the latter is
    worth is taken at `at`, so that it tells nothing of theta."""
    features, answers, shown = data
    said = np.where(np.append(shown, np.ones((len(shown), 1), bool), axis=1), answers, 0)
    here, near = ((softmax(features, shown, numbers) * said).sum(axis=1) for numbers in (theta, at))
    anywhere = 0.5 * near + 0.5 * said.sum(axis=1) / (shown.sum(axis=1) + 1)
    prior_term = 0.5 * float((PRECISION * (theta - prior) ** 2).sum())
    return prior_term - float(np.log((1 - misplaced) * here + misplaced * anywhere).sum())


def softmax(features: np.ndarray, shown: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """(..., k + 1): the probability of each option that was shown, and (last) of none."""
    z = np.where(shown, features @ theta, -np.inf)
    z = np.concatenate([z, np.zeros((*z.shape[:-1], 1))], axis=-1)
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    whole: np.ndarray = p / p.sum(axis=-1, keepdims=True)
    return whole


MISPLACED: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "none": lambda random, q: np.zeros(q),
    "few": lambda random, q: np.full(q, 0.06),
    "some": lambda random, q: random.uniform(0, 0.8, q),
}


@pytest.mark.parametrize("seed, q, sure", [(0, 3, 0.97), (1, 40, 0.97), (2, 300, 0.999), (3, 60, 0.7)])
@pytest.mark.parametrize("wrong", MISPLACED)
def test_the_choice_model_is_scipys_maximum_a_posteriori(seed: int, q: int, sure: float, wrong: str) -> None:
    prior = ChoiceModel(8.0, -4.0)
    data = simulate(seed, q, sure=sure)
    misplaced = MISPLACED[wrong](np.random.default_rng(seed), q)
    start = np.array([8.0, -4.0, PRIOR_CATEGORY])
    best, before = start, start + 1
    while np.abs(best - before).max() > 1e-3:
        before = best
        best = minimize(negative_log_posterior, best, (start, data, misplaced, best), method="BFGS").x
        if wrong == "none":
            break
    found = prior.fitted(*data, misplaced)
    theta = np.array([found.scale, found.offset, found.category])
    assert np.allclose(theta, best, atol=0.02)
    loss = [negative_log_posterior(numbers, start, data, misplaced, theta) for numbers in (theta, best)]
    assert loss[0] <= loss[1] + 1e-3


def test_many_choices_give_the_simulated_numbers_back() -> None:
    found = ChoiceModel(8.0, -4.0).fitted(*simulate(5, 2000, sure=0.999), np.zeros(2000))
    assert (found.scale, found.offset, found.category) == pytest.approx((9, -5, 2), abs=0.8)


def test_answers_about_misplaced_images_are_seen_through() -> None:
    """A fifth of the images are at random where their unit is not: taken for faithful, they flatten the odds."""
    features, answers, shown = simulate(5, 3000, sure=0.999)
    random = np.random.default_rng(0)
    for row in np.flatnonzero(random.random(3000) < 0.2):
        there = np.append(shown[row], True)
        near = softmax(features[row], shown[row], np.array([9.0, -5.0, 2.0]))
        at = random.choice(5, p=0.5 * near + 0.5 * there / there.sum())
        answers[row] = np.where(np.arange(5) == at, 0.999, 0.00025)
    prior = ChoiceModel(8.0, -4.0)
    found, believing = (prior.fitted(features, answers, shown, np.full(3000, wrong)) for wrong in (0.2, 0.0))
    assert (found.scale, found.offset, found.category) == pytest.approx((9, -5, 2), abs=0.8)
    assert believing.scale < 7


def test_images_that_are_surely_misplaced_leave_the_prior() -> None:
    prior = ChoiceModel(8.0, -4.0)
    assert prior.fitted(*simulate(1, 40), np.ones(40)) == prior


def test_no_answers_leave_the_prior() -> None:
    prior = ChoiceModel(7.0, -3.0, 2.0)
    assert prior.fitted(np.zeros((0, 4, 3)), np.zeros((0, 5)), np.zeros((0, 4), bool), np.zeros(0)) == prior


def test_answers_that_contradict_similarity_never_turn_it_around() -> None:
    """The less alike, the more often chosen: beta stays at least 1."""
    similarity = np.tile([[0.9, 0.1]], (500, 1))
    features = np.stack([similarity, np.ones_like(similarity), np.zeros_like(similarity)], axis=2)
    answers = np.tile([[0.01, 0.98, 0.01]], (500, 1))
    found = ChoiceModel(8.0, -4.0).fitted(features, answers, np.ones((500, 2), bool), np.zeros(500))
    assert found.scale == 1.0


def test_odds_are_the_edge_weights_and_a_shared_category_adds_to_them() -> None:
    model = ChoiceModel(8.0, -4.0)
    assert model.odds(np.array([0.5, 1.0, 1.0]), np.array([0.0, 0.0, 1.0])).tolist() == [0.0, 4.0, 7.0]
    assert 1 / (1 + np.exp(-PRIOR_CATEGORY)) == pytest.approx(20 / 21, abs=1e-3)


def simulated_members(seed: int, q: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    features = np.stack([np.ones(q), random.normal(0, 1, q), random.integers(0, 8, q).astype(float)], axis=1)
    p = 1 / (1 + np.exp(-(features @ np.array([-1.0, -0.8, -0.2]))))
    return features, (random.random(q) < p).astype(float)


@pytest.mark.parametrize("seed, q", [(0, 0), (1, 5), (2, 60), (3, 800)])
def test_the_member_model_is_scipys_maximum_a_posteriori(seed: int, q: int) -> None:
    features, misplaced = simulated_members(seed, q)
    prior = MemberModel.prior()

    def loss(weights: np.ndarray) -> float:
        z = features @ weights
        fit = float((np.logaddexp(0, z) - misplaced * z).sum())
        return fit + 0.5 * float((np.array([1.0, 2.0, 8.0]) * (weights - prior.weights) ** 2).sum())

    found = prior.fitted(features, misplaced)
    best = minimize(loss, prior.weights, method="BFGS")
    assert np.allclose(found.weights, best.x, atol=2e-3)
    p = found.misplaced(features)
    curvature = features.T @ (features * (p * (1 - p))[:, None]) + np.diag([1.0, 2.0, 8.0])
    assert np.allclose(found.covariance, np.linalg.inv(curvature), atol=1e-4)


def test_with_much_data_the_member_model_is_scikit_learns_logistic_regression() -> None:
    features, misplaced = simulated_members(4, 20_000)
    other = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-8).fit(features, misplaced)
    assert np.allclose(MemberModel.prior().fitted(features, misplaced).weights, other.coef_[0], atol=0.02)


def test_before_any_answer_six_images_in_a_hundred_are_misplaced_and_the_surer_ones_less_often() -> None:
    prior = MemberModel.prior()
    typical, surer, larger = prior.misplaced(np.array([[1.0, 0, 0], [1, 1, 0], [1, 0, 5]]))
    assert typical == pytest.approx(PRIOR_MISPLACED) == pytest.approx(0.06)
    assert surer == pytest.approx(1 / (1 + np.exp(-(np.log(0.06 / 0.94) + PRIOR_CONFIDENCE))))
    assert larger == pytest.approx(typical)


def test_extreme_features_give_probabilities() -> None:
    shares = MemberModel.prior().misplaced(np.array([[1, -1e6, 0], [1, 1e6, 0]]))
    assert 0 < shares[1] < 1e-9 and 1 - 1e-9 < shares[0] <= 1


def test_member_features_are_one_centred_log_odds_and_log_size() -> None:
    features = member_features(np.array([0.5, 0.9, 0.0], np.float32), np.array([1, 8, 2]))
    odds = np.log([1.0, 9.0, 0.02 / 0.98])
    assert np.allclose(features, np.stack([np.ones(3), odds - odds.mean(), [0, 3, 1]], axis=1), atol=1e-5)


@pytest.mark.parametrize("confidence", [0.0, 0.5, 1.0])
def test_equal_confidences_say_nothing(confidence: float) -> None:
    features = member_features(np.full(4, confidence, np.float32), np.ones(4, np.int64))
    assert np.allclose(features[:, 1], 0)


def test_certainty_is_cut_off_at_98_percent() -> None:
    one, other = member_features(np.array([0.98, 1.0], np.float32), np.ones(2, np.int64))[:, 1]
    assert one == pytest.approx(other, abs=1e-4)
    low, lower = member_features(np.array([0.02, 0.0], np.float32), np.ones(2, np.int64))[:, 1]
    assert low == pytest.approx(lower, abs=1e-4)


def test_features_of_no_images_are_none() -> None:
    assert member_features(np.zeros(0, np.float32), np.zeros(0, np.int64)).shape == (0, 3)


def brute_force(share: float, strength: float, price: float, images: int) -> list[list[bool]]:
    """The recursion as it is told: ask the next image, or stop for good."""

    @cache
    def worth(asked: int, wrong: int) -> tuple[float, bool]:
        if asked == images:
            return 0.0, False
        mean = (strength * share + wrong) / (strength + asked)
        on = mean - price + mean * worth(asked + 1, wrong + 1)[0] + (1 - mean) * worth(asked + 1, wrong)[0]
        return max(0.0, on), on > 0

    return [[worth(asked, wrong)[1] for wrong in range(asked + 1)] for asked in range(images + 1)]


@pytest.mark.parametrize("share", [0.02, 0.06, 0.2])
@pytest.mark.parametrize("strength", [0.5, 4.0, 30.0])
@pytest.mark.parametrize("price", [0.02, 0.07, 0.14, 0.5])
@pytest.mark.parametrize("images", [1, 2, 9, 40])
def test_asking_pays_as_the_recursion_has_it(share: float, strength: float, price: float, images: int) -> None:
    table = pays_to_ask(share, strength, price, images)
    assert [list(row) for row in table] == brute_force(share, strength, price, images)


def test_more_misplaced_images_seen_never_stop_the_asking_earlier() -> None:
    for images in (5, 60, 3000):
        for row in pays_to_ask(0.06, 4.0, 0.14, images):
            assert all(more or not fewer for fewer, more in pairwise(row))


def test_a_higher_price_asks_no_more() -> None:
    for share in (0.03, 0.1, 0.3):
        tables = [pays_to_ask(share, 4.0, price, 50) for price in (0.01, 0.03, 0.07, 0.14, 0.4)]
        for cheap, dear in pairwise(tables):
            assert all(a or not b for one, two in zip(cheap, dear, strict=True) for a, b in zip(one, two, strict=True))


def test_what_lies_beyond_a_hundred_answers_is_asked_or_left_at_the_expected_share() -> None:
    table = pays_to_ask(0.06, 4.0, 0.14, 5000)
    assert len(table) == 101
    assert next(wrong for wrong, asks in enumerate(table[100]) if asks) == 15, "(4 * .06 + 15) / 104 > .14"
    assert not any(pays_to_ask(0.06, 4.0, 0.14, 100)[100]), "nothing is left to ask about"


def test_a_larger_unit_is_worth_more_questions() -> None:
    assert not pays_to_ask(0.06, 4.0, 0.14, 3)[0][0]
    assert pays_to_ask(0.06, 4.0, 0.14, 300)[0][0]
