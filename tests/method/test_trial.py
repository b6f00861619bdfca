from collections import Counter

import numpy as np
import pytest
from answerers import (
    FAILED,
    AtRandom,
    Judge,
    SameForAll,
    Truthful,
    World,
    always_first,
    always_none,
    begin,
    choose,
    clusters_of,
    drive,
    looks_of,
    make_world,
    sort_all,
    within,
)
from scipy.stats import binom
from sklearn.metrics import normalized_mutual_info_score as nmi

from manylens.method.questions import Answer, Choice, Question
from manylens.method.trial import Trial, _options, _tail, try_judge


def choices(rounds: list[list[Question]]) -> list[Choice]:
    return [question for questions in rounds for question in questions if isinstance(question, Choice)]


@pytest.mark.parametrize("kinds", [2, 3, 8, 15])
def test_a_good_judge_tells(kinds: int) -> None:
    for seed in range(8):
        world = make_world(kinds, 20 * kinds, misdescribed=0.1, seed=seed)
        trial = drive(try_judge(begin(world.looks, seed=seed)), Truthful(world))
        assert trial.tells and trial.differing == 0, (seed, trial)


@pytest.mark.parametrize("kinds, at_least", [(2, 20), (3, 24), (8, 24), (15, 24)])
def test_a_judge_who_errs_in_one_of_twenty_tells_and_between_two_kinds_mostly(kinds: int, at_least: int) -> None:
    """With two options and none, a guesser agrees with itself so often that four contradictions of 18 are too many."""
    tells = 0
    for seed in range(24):
        world = make_world(kinds, 20 * kinds, misdescribed=0.1, seed=seed)
        tells += drive(try_judge(begin(world.looks, seed=seed)), Truthful(world, 0.05, seed)).tells
    assert tells >= at_least


def test_a_judge_who_is_right_is_more_reliable_than_one_who_errs() -> None:
    world = make_world(8, 160)
    right = drive(try_judge(begin(world.looks)), Truthful(world))
    errs = [drive(try_judge(begin(world.looks)), Truthful(world, 0.3, seed)) for seed in range(10)]
    assert right.pairs == 6 and right.differing == 0
    assert np.mean([trial.differing / trial.pairs for trial in errs]) > 0.3
    assert right.reliability >= max(trial.reliability for trial in errs)
    assert right.reliability > np.mean([trial.reliability for trial in errs]) + 0.05


TORN = pytest.mark.xfail(strict=True, reason="with two kinds there are no other options: see trial._options")


@pytest.mark.parametrize("kinds", [pytest.param(2, marks=TORN), 3, 4])
@pytest.mark.parametrize("wordings", [2, 4])
def test_options_of_one_kind_do_not_silence_a_good_judge(kinds: int, wordings: int) -> None:
    """Asked which of two synonyms it is, it names the one that stands first."""
    for seed in range(6):
        world = make_world(kinds, 120, wordings=wordings, spread=1.5, seed=seed)
        trial = drive(try_judge(begin(world.looks, seed=seed)), Truthful(world))
        assert trial.tells and trial.reliability > 0.8, (seed, trial)


def test_descriptions_that_say_nothing_do_not_silence_a_good_judge() -> None:
    tells, scores = 0, []
    for seed in range(10):
        world = make_world(4, 120, seed=seed)
        random = np.random.default_rng(seed)
        nonsense = World(looks_of([f"word{random.integers(6)}" for _ in range(120)]), world.truth)
        check = begin(nonsense.looks, seed=seed)
        tells += sort_all(check, Truthful(nonsense)).tells
        scores.append(nmi(nonsense.kinds(), clusters_of(check.sorting)))
    assert tells >= 9
    assert np.mean(scores) > 0.5


@pytest.mark.parametrize("images", [60, 240])
@pytest.mark.parametrize("kinds", [2, 5])
@pytest.mark.parametrize("cheat", ["first", "same for all", "none"])
def test_a_judge_who_cheats_does_not_tell_and_costs_nothing(images: int, kinds: int, cheat: str) -> None:
    for seed in range(4):
        world = make_world(kinds, images, wordings=2, misdescribed=0.1, seed=seed)
        judges: dict[str, Judge] = {"first": always_first, "same for all": SameForAll(world), "none": always_none}
        check = begin(world.looks)
        assert not sort_all(check, judges[cheat]).tells
        assert nmi(world.kinds(), clusters_of(check.sorting)) > nmi(world.kinds(), world.looks.words) - 0.02


@pytest.mark.parametrize("kinds", [2, 3, 5, 8])
def test_a_judge_who_answers_at_random_seldom_tells(kinds: int) -> None:
    tells = 0
    for seed in range(40):
        world = make_world(kinds, 20 * kinds, misdescribed=0.1, seed=seed % 4)
        tells += drive(try_judge(begin(world.looks, seed=seed)), AtRandom(world, seed)).tells
    assert tells <= 1


def test_one_answer_to_all_may_be_right_where_fewer_than_two_clusters_have_an_image_to_plant() -> None:
    """Of the same answers, those count that were given of images known to differ."""
    for each, tells in ((2, False), (1, True)):
        said = ["red"] * 30 + ["blue"] * each + ["green"] * each
        check = begin(looks_of(said))
        if each == 1:  # an image alone of its description is no first cluster
            check._found_by(check.sorting.units.words.index("blue"))
            check._found_by(check.sorting.units.words.index("green"))
        trial = drive(try_judge(check), SameForAll(World(check.sorting.looks, {})))
        assert (trial.tells, trial.same_for_all, trial.differing) == (tells, not tells, 0), each


def test_an_image_of_each_option_is_planted_first_the_last_of_its_founders() -> None:
    world = make_world(4, 160)
    check, rounds = begin(world.looks), list[list[Question]]()
    units = check.sorting.units.members
    drive(try_judge(check), AtRandom(world, 3), rounds)
    assert len(rounds) == 4
    put = [[question.image for question in choices([questions])[::2]] for questions in rounds]
    assert sorted(put[0][:4]) == sorted(int(unit[-1]) for unit in units)
    untried = [[image for image in unit.tolist() if image not in put[0] + put[1]] for unit in units]
    assert sorted(put[2][:4]) == sorted(of_unit[-1] for of_unit in untried)


def test_with_one_cluster_and_nothing_else_there_is_no_trial() -> None:
    rounds: list[list[Question]] = []
    trial = drive(try_judge(begin(looks_of(["red"] * 9))), always_first, rounds)
    assert trial == Trial() and trial.tells and not rounds


def test_the_same_choice_is_put_twice_in_another_order_and_never_shows_the_image_itself() -> None:
    world = make_world(4, 160)
    rounds: list[list[Question]] = []
    check = begin(world.looks)
    trial = drive(try_judge(check), AtRandom(world), rounds)
    put = choices(rounds)
    assert len(put) == 2 * trial.pairs <= 48
    assert [len(questions) for questions in rounds] == [12] * len(rounds)
    for one, other in zip(put[::2], put[1::2], strict=True):
        assert one.image == other.image
        assert one.options != other.options
        assert sorted(one.options, key=str) == sorted(other.options, key=str)
        own = [[image for image in unit.tolist() if image != one.image][:3] for unit in check.sorting.units.members]
        assert all(list(option.exemplars) in own for option in one.options), "the first, whatever was learned"
    assert len({question.image for question in put}) == trial.pairs


def test_with_two_options_the_second_order_is_the_other_one() -> None:
    world = make_world(2, 80)
    rounds: list[list[Question]] = []
    drive(try_judge(begin(world.looks)), always_first, rounds)
    put = choices(rounds)
    assert len(put[0].options) == 2
    assert all(one.options[0].name == other.options[1].name for one, other in zip(put[::2], put[1::2], strict=True))
    assert len({one.options[0].name for one in put[::2]}) == 2, "neither is always the first"


def test_every_option_has_an_image_of_its_own_in_the_first_round() -> None:
    world = make_world(5, 100)
    rounds: list[list[Question]] = []
    drive(try_judge(begin(world.looks)), Truthful(world), rounds)
    kinds = Counter(world.kinds()[question.image] for question in choices(rounds[:1]))
    assert sum(kinds.values()) == 12 and min(kinds[f"kind{k}"] for k in range(5)) == 2


def test_at_most_five_options_the_largest_and_from_the_third_round_on_others() -> None:
    said = [f"k{kind}" for kind in range(12) for _ in range(3 + kind)]
    rounds: list[list[Question]] = []
    drive(try_judge(begin(looks_of(said))), always_first, rounds)
    assert len(rounds) == 4
    for turn, of_turn in enumerate(rounds):
        expected = range(7, 12) if turn < 2 else range(2, 7)
        for question in choices([of_turn]):
            assert sorted(option.name for option in question.options) == sorted(f"k{kind}" for kind in expected)


def test_fewer_than_three_others_are_no_other_options() -> None:
    for kinds, others in ((7, set[str]()), (8, {"k0", "k1", "k2"})):
        said = [f"k{kind}" for kind in range(kinds) for _ in range(3 + kind)]
        rounds: list[list[Question]] = []
        drive(try_judge(begin(looks_of(said))), always_first, rounds)
        first = {option.name for option in choices(rounds[:1])[0].options}
        assert len(first) == 5
        assert {option.name for option in choices(rounds[2:3])[0].options} == (others or first)


def test_options_are_unlike_each_other() -> None:
    """The largest, then what is least like those taken, of the likest of them: near red is left out."""
    e = np.eye(5)
    rows = {"red": e[0], "near red": 0.95 * e[0] + 0.31 * e[1], "green": e[1], "blue": e[2],
            "near blue": 0.8 * e[2] + 0.6 * e[4], "grey": e[3]}  # fmt: skip
    said = [words for at, words in enumerate(rows) for _ in range(20 - at)]
    check = begin(looks_of(said, np.array([rows[words] for words in said])))
    for unit, words in enumerate(check.sorting.units.words):
        if words.startswith("near"):
            check._found_by(unit)
    check.sorting.refresh()
    names = [check.sorting.clusters[cluster].name for cluster in _options(check, 0)]
    assert names == ["red", "green", "blue", "grey", "near blue"]


def test_where_clusters_are_few_other_descriptions_are_options_and_nothing_is_learned_of_those() -> None:
    rows = np.array([(1.0, 0)] * 20 + [(0.95, 0.3)] * 18 + [(0.9, 0.44)] * 10)
    looks = looks_of(["red"] * 20 + ["scarlet"] * 18 + ["crimson"] * 10, rows)
    world = World(looks, dict(zip(looks.image_ids, looks.words, strict=True)))
    check = begin(looks)
    assert len(check.sorting.live()) == 1
    rounds: list[list[Question]] = []
    trial = drive(try_judge(check), Truthful(world), rounds)
    assert {option.name for option in choices(rounds)[0].options} == {"red", "scarlet", "crimson"}
    assert trial.tells and not check.sorting.answers
    assert all(
        question.image not in option.exemplars and len(option.exemplars) == 3
        for question in choices(rounds)
        for option in question.options
    )


def test_what_a_good_judge_said_is_learned_and_its_reliability_too() -> None:
    world = make_world(4, 80)
    check = begin(world.looks)
    trial = drive(try_judge(check), Truthful(world))
    assert sum(map(len, check.sorting.answers.values())) == 12
    assert check.sorting.reliability == trial.reliability == 1 - 0.5 / 16 / 2
    for image, answers in check.sorting.answers.items():
        assert {check.sorting.clusters[answer.chosen].name[:5] for answer in answers} == {world.kinds()[image]}


def test_what_a_cheat_said_is_not_learned() -> None:
    world = make_world(4, 80)
    check = begin(world.looks)
    assert not drive(try_judge(check), always_first).tells
    assert not check.sorting.answers and check.sorting.reliability == 0.95


def test_reliability_is_half_the_pairs_that_differ_around_one_in_twenty() -> None:
    assert Trial().reliability == 0.975
    assert Trial(12, 6).reliability == 1 - 6.5 / 22 / 2


@pytest.mark.parametrize("agreeing, pairs, options", [(6, 6, 2), (5, 6, 5), (12, 12, 2), (15, 18, 3), (0, 24, 2)])
def test_a_guesser_agrees_with_itself_as_scipys_binomial_tail_has_it(agreeing: int, pairs: int, options: int) -> None:
    assert _tail(agreeing, pairs, 1 / options) == pytest.approx(float(binom.sf(agreeing - 1, pairs, 1 / options)))


class Contradicting:
    """Names the planted kind, or for so many of the pairs, the first ones, another the second time."""

    def __init__(self, world: World, differing: int) -> None:
        self.judge, self.left, self.second = Truthful(world), differing, False

    def __call__(self, question: Question) -> Answer:
        assert isinstance(question, Choice)
        answer = self.judge(question)
        errs = self.second and self.left > 0
        self.left -= errs
        self.second = not self.second
        at, many = answer.chosen, len(question.options)
        return choose(((many if at is None else at) + 1) % (many + 1), many) if errs else answer


@pytest.mark.parametrize(
    "kinds, differing, pairs, tells",
    [
        (5, 0, 6, True),  # .2^6
        (5, 1, 6, True),  # 6 * .2^5 * .8 + .2^6 = .0016
        (5, 2, 12, True),
        (3, 0, 6, True),  # 3^-6 = .0014
        (3, 1, 12, True),
        (2, 0, 12, True),  # 2^-6 = .016, 2^-12
        (2, 1, 18, True),  # 13 * 2^-12 = .0032
        (2, 2, 18, True),
        (2, 3, 24, True),  # 15 of 18: .0038
        (2, 4, 24, True),
        (2, 5, 24, False),  # 19 of 24: .0033
    ],
)
def test_rounds_follow_each_other_until_a_guesser_agrees_so_often_twice_in_a_thousand(
    kinds: int, differing: int, pairs: int, tells: bool
) -> None:
    world = make_world(kinds, 40 * kinds)
    trial = drive(try_judge(begin(world.looks)), Contradicting(world, differing))
    assert trial == Trial(pairs, differing, False, tells)
    assert (float(binom.sf(pairs - differing - 1, pairs, 1 / kinds)) <= 0.002) is tells


def test_with_other_options_the_count_begins_anew() -> None:
    """Torn in all of the first twelve, and never between the others."""
    world = make_world(10, 200)
    trial = drive(try_judge(begin(world.looks)), Contradicting(world, 12))
    assert trial == Trial(6, 0, False, True)


def test_a_guesser_is_put_four_rounds() -> None:
    world = make_world(4, 160)
    for seed in range(20):
        rounds: list[list[Question]] = []
        trial = drive(try_judge(begin(world.looks, seed=seed)), AtRandom(world, seed), rounds)
        assert trial.tells or (len(rounds) == 4 and trial.pairs == 24), trial


def test_calls_that_fail_are_no_evidence() -> None:
    world = make_world(4, 80)
    judge, rounds = Truthful(world), list[list[Question]]()
    flaky = iter([False, True, False, False] * 20)
    trial = drive(try_judge(begin(world.looks)), lambda q: FAILED if next(flaky) else judge(q), rounds)
    assert (2 * trial.pairs, trial.differing) == (len(choices(rounds)) // 2, 0)
    assert trial.tells


def test_a_judge_who_never_answers_does_not_tell() -> None:
    world, rounds = make_world(4, 80), list[list[Question]]()
    trial = drive(try_judge(begin(world.looks)), lambda _: FAILED, rounds)
    assert trial == Trial(0, 0, False, False)
    assert [len(questions) for questions in rounds] == [12] * 4


def test_few_images_are_enough_where_their_answers_differ() -> None:
    looks = looks_of(["red"] * 2 + ["blue"] * 2 + ["green"])
    world = World(looks, dict(zip(looks.image_ids, looks.words, strict=True)))
    assert drive(try_judge(begin(looks)), Truthful(world)).tells
    assert not drive(try_judge(begin(looks)), always_none).tells


def test_a_cheat_is_told_how_often_it_contradicted_itself() -> None:
    world = make_world(2, 80)
    assert drive(try_judge(begin(world.looks)), always_first) == Trial(24, 24, False, False)
    assert drive(try_judge(begin(world.looks)), always_none) == Trial(24, 0, True, False)


def test_a_budget_that_ends_within_the_trial_is_noticed() -> None:
    world = make_world(4, 80)
    check = begin(world.looks)
    trial = drive(try_judge(check), within(Truthful(world), 7))
    assert check.spent and trial.pairs == 3
    whole = begin(world.looks)
    drive(try_judge(whole), Truthful(world))
    assert not whole.spent


def test_which_other_images_are_tried_depends_on_the_seed_and_their_ids_alone() -> None:
    world = make_world(3, 200, misdescribed=0.1)
    tried = []
    for seed in (0, 0, 1):
        rounds: list[list[Question]] = []
        drive(try_judge(begin(world.looks, seed=seed)), AtRandom(world), rounds)
        tried.append([question.image for question in choices(rounds)][6:])
    assert tried[0] == tried[1] != tried[2]
    assert tried[0] != sorted(tried[0])


def test_three_options_are_enough() -> None:
    angles = [0.0, 0.3, 0.35, 0.4, 0.45]
    said = [f"red {at}" for at in range(5) for _ in range(20 - at)]
    rows = np.array([(np.cos(angles[int(words[4])]), np.sin(angles[int(words[4])])) for words in said])
    rounds: list[list[Question]] = []
    check = begin(looks_of(said, rows))
    drive(try_judge(check), always_first, rounds)
    assert len(check.sorting.live()) == 1
    assert {option.name for option in choices(rounds)[0].options} == {"red 0", "red 1", "red 2"}
