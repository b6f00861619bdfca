from collections import Counter
from collections.abc import Sequence
from itertools import combinations

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
from manylens.method.trial import Trial, _options, _tail, _weigh, try_judge

CHANCE = 0.002 / 6
"""In each of six rounds; a guesser passes in one run of 500 at most."""


def choices(rounds: list[list[Question]]) -> list[Choice]:
    return [question for questions in rounds for question in questions if isinstance(question, Choice)]


@pytest.mark.parametrize("kinds", [2, 3, 8, 15])
def test_a_good_judge_tells(kinds: int) -> None:
    for seed in range(8):
        world = make_world(kinds, 20 * kinds, misdescribed=0.1, seed=seed)
        trial = drive(try_judge(begin(world.looks, seed=seed)), Truthful(world))
        assert trial.tells and trial.differing == 0, (seed, trial)


@pytest.mark.parametrize("kinds", [2, 3, 8, 15])
def test_a_judge_who_errs_in_one_of_twenty_tells(kinds: int) -> None:
    for seed in range(24):
        world = make_world(kinds, 20 * kinds, misdescribed=0.1, seed=seed)
        trial = drive(try_judge(begin(world.looks, seed=seed)), Truthful(world, 0.05, seed))
        assert trial.tells, (seed, trial)


def test_a_judge_who_is_right_is_more_reliable_than_one_who_errs() -> None:
    world = make_world(8, 160)
    right = drive(try_judge(begin(world.looks)), Truthful(world))
    errs = [drive(try_judge(begin(world.looks)), Truthful(world, 0.3, seed)) for seed in range(10)]
    assert right.pairs == 6 and right.differing == 0
    assert np.mean([trial.differing / trial.pairs for trial in errs]) > 0.3
    assert right.reliability >= max(trial.reliability for trial in errs)
    assert right.reliability > np.mean([trial.reliability for trial in errs]) + 0.05


@pytest.mark.parametrize("kinds", [2, 3, 4])
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


def test_a_guesser_passes_in_at_most_one_run_of_500_in_whichever_round() -> None:
    random, passed = np.random.default_rng(0), 0
    for options in (3, 5):
        for _ in range(1500):
            said: list[tuple[int, int]] = []
            for turn in range(6):
                said += map(tuple, random.integers(options, size=(6, 2)).tolist())
                trial, luck = _weigh(said, options, options)
                if trial.tells or (turn and luck > 0.2):
                    break
            passed += trial.tells
    assert passed <= 3000 / 500


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


def test_first_of_each_option_its_surest_image_that_is_no_exemplar_then_its_least_sure_one() -> None:
    world = make_world(4, 160, misdescribed=0.1)
    for seed in range(20):
        check, rounds = begin(world.looks, seed=seed), list[list[Question]]()
        units = check.sorting.units.members
        drive(try_judge(check), AtRandom(world, seed), rounds)
        put = [question.image for question in choices(rounds)[::2]]
        assert sorted(put[:4]) == sorted(int(unit[check.sorting.exemplars]) for unit in units)
        assert sorted(put[4:8]) == sorted(int(unit[-1]) for unit in units)
        assert len(set(put)) == len(put), "none is put again"


def test_of_a_description_with_no_image_but_exemplars_the_least_sure_is_planted_and_is_none_of_them() -> None:
    world, rounds = World(looks_of(["a", "b", "c"] * 2), {}), list[list[Question]]()
    check = begin(world.looks)
    drive(try_judge(check), AtRandom(world), rounds)
    assert {question.image for question in choices(rounds)[:6]} == {
        int(unit[1]) for unit in check.sorting.units.members
    }
    assert all(question.image not in option.exemplars for question in choices(rounds) for option in question.options)


def test_that_the_least_sure_of_many_are_misdescribed_silences_no_good_judge() -> None:
    """Of thirty kinds five are options, so of a misdescribed image it is right to say none of them."""
    for seed in range(8):
        world = make_world(30, 6000, misdescribed=0.1, seed=seed)
        check, judge = begin(world.looks, seed=seed), Truthful(world)
        wrong = [unit for unit in check.sorting.units.members if world.kinds()[unit[0]] != world.kinds()[unit[-1]]]
        assert len(wrong) >= 28
        assert drive(try_judge(check), judge) == Trial(6, 0, False, True), seed


@pytest.mark.parametrize("angles", [[0.0], [0.0, 0.3, 0.35, 0.4, 0.45]])
def test_with_one_cluster_and_nothing_unlike_it_there_is_no_trial(angles: list[float]) -> None:
    said = [f"red {at}" for at in range(len(angles)) for _ in range(20 - at)]
    rows = np.array([(np.cos(angles[int(words[4])]), np.sin(angles[int(words[4])])) for words in said])
    check, rounds = begin(looks_of(said, rows)), list[list[Question]]()
    trial = drive(try_judge(check), always_first, rounds)
    assert len(check.sorting.live()) == 1
    assert trial == Trial() and trial.tells and not rounds


def test_the_same_choice_is_put_twice_in_another_order_and_never_shows_the_image_itself() -> None:
    world = make_world(4, 160)
    rounds: list[list[Question]] = []
    check = begin(world.looks)
    trial = drive(try_judge(check), AtRandom(world), rounds)
    put = choices(rounds)
    assert len(put) == 2 * trial.pairs <= 72
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


def test_at_most_five_options_the_largest_in_all_rounds() -> None:
    looks = looks_of([f"k{kind}" for kind in range(12) for _ in range(3 + kind)])
    many = set[int]()
    for seed in range(20):
        rounds: list[list[Question]] = []
        drive(try_judge(begin(looks, seed=seed)), AtRandom(World(looks, {}), seed), rounds)
        many.add(len(rounds))
        for question in choices(rounds):
            assert {option.name for option in question.options} == {"k7", "k8", "k9", "k10", "k11"}
            assert len(question.options) == 5
    assert max(many) > 2


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
    names = [check.sorting.clusters[cluster].name for cluster in _options(check)]
    assert names == ["red", "green", "blue", "grey", "near blue"]


def test_beside_a_single_cluster_an_unlike_description_is_an_option_and_nothing_is_learned() -> None:
    """Scarlet and crimson are like red; green is alone of its description, and so is no cluster."""
    vectors = {"red": (1, 0, 0), "scarlet": (0.95, 0.3, 0), "crimson": (0.9, 0.44, 0), "green": (0, 0, 1)}
    said = ["red"] * 20 + ["scarlet"] * 18 + ["crimson"] * 10 + ["green"]
    looks = looks_of(said, np.array([vectors[words] for words in said]))
    kinds = {words: "green" if words == "green" else "red" for words in said}
    world = World(looks, {image_id: kinds[words] for image_id, words in zip(looks.image_ids, said, strict=True)})
    check = begin(looks)
    assert len(check.sorting.live()) == 1
    rounds: list[list[Question]] = []
    trial = drive(try_judge(check), Truthful(world), rounds)
    assert trial == Trial(12, 0, False, True) and not check.sorting.answers
    for question in choices(rounds):
        assert {option.name for option in question.options} == {"red", "green"}
        for option in question.options:
            assert question.image not in option.exemplars
            assert len(option.exemplars) == (3 if option.name == "red" else said[question.image] != "green")


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


class CachingModel:
    """What a judge said of each pair, by name; "" is none of them."""

    def __init__(self, judge: Judge) -> None:
        self.judge, self.said, self.names = judge, list[str](), set[str]()

    def __call__(self, question: Question) -> Answer:
        assert isinstance(question, Choice)
        answer = self.judge(question)
        names = [option.name for option in question.options]
        self.names.update(names)
        self.said.append("" if answer.chosen is None else names[answer.chosen])
        return answer

    def pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.said[::2], self.said[1::2], strict=True))

    def luck(self, pairs: Sequence[tuple[str, str]]) -> tuple[float, int]:
        """How likely a guesser agrees with itself so well, and the pairs that differ, in the reading that speaks best
        for the judge: options as they are, or every set of them against the others and none."""
        many = len(self.names)
        differing = sum(one != other for one, other in pairs)
        found = [(float(binom.sf(len(pairs) - differing - 1, len(pairs), 1 / many)), differing)]
        for size in range(1, many + 1):
            chance = (size / many) ** 2 + (1 - size / many) ** 2
            for kind in combinations(sorted(self.names), size):
                differing = sum((one in kind) != (other in kind) for one, other in pairs)
                tail = float(binom.sf(len(pairs) - differing - 1, len(pairs), chance))
                found.append((2**many * tail, differing))
        return min(found)

    def expected(self) -> Trial:
        pairs = self.pairs()
        for rounds in range(1, 7):
            luck, differing = self.luck(pairs[: 6 * rounds])
            if luck <= CHANCE or (rounds > 1 and luck > 0.2):
                break
        plain = sum(one != other for one, other in pairs[: 6 * rounds])
        return Trial(6 * rounds, differing if luck <= CHANCE else plain, False, luck <= CHANCE)


class Contradicting:
    """Names the planted kind, but of so many of the pairs, the first ones, says none of them the second time."""

    def __init__(self, world: World, differing: int) -> None:
        self.judge, self.left, self.second = Truthful(world), differing, False

    def __call__(self, question: Question) -> Answer:
        assert isinstance(question, Choice)
        answer = self.judge(question)
        errs = self.second and self.left > 0
        self.left -= errs
        self.second = not self.second
        many = len(question.options)
        return choose(many, many) if errs else answer


@pytest.mark.parametrize(
    "kinds, contradictions, pairs, differing, tells",
    [
        (5, 0, 6, 0, True),  # .2^6 = .00006
        (5, 1, 12, 1, True),  # 6 * .2^5 * .8 + .2^6 = .0016, 12 * .2^11 * .8 + .2^12 = 2e-7
        (5, 2, 12, 2, True),
        (5, 7, 18, 7, True),
        (5, 8, 12, 8, False),  # 4 of 12: .21
        (3, 0, 12, 0, True),  # 3^-6 = .0014, 3^-12
        (3, 1, 12, 1, True),
        (3, 6, 24, 6, True),
        (3, 8, 12, 8, False),
        (2, 0, 12, 0, True),  # 2^-6 = .016, 2^-12 = .00024
        (2, 1, 18, 0, True),  # 19 * 2^-18; none is not the one kind, as the other is not: 4 * 2^-18
        (2, 2, 18, 1, True),  # 4 * 19 * 2^-18 = .0003
        (2, 8, 12, 8, False),
    ],
)
def test_rounds_follow_each_other_until_a_guesser_agrees_so_often_once_in_3000_or_once_in_five(
    kinds: int, contradictions: int, pairs: int, differing: int, tells: bool
) -> None:
    world = make_world(kinds, 40 * kinds)
    judge = CachingModel(Contradicting(world, contradictions))
    trial = drive(try_judge(begin(world.looks)), judge)
    assert trial == judge.expected() == Trial(pairs, differing, False, tells)


@pytest.mark.parametrize("kinds", [2, 3, 4, 8])
def test_a_guesser_is_put_two_rounds_and_at_most_six(kinds: int) -> None:
    world, many = make_world(kinds, 160), list[int]()
    for seed in range(20):
        judge = CachingModel(AtRandom(world, seed))
        trial = drive(try_judge(begin(world.looks, seed=seed)), judge)
        assert trial == judge.expected() and len(judge.pairs()) == trial.pairs, seed
        many.append(trial.pairs)
    assert min(many) == 12 and max(many) <= 36 and float(np.median(many)) == 12


def test_between_options_read_as_one_kind_nothing_differs() -> None:
    """Who takes either of two synonyms, and tells the others from them, is as reliable as one who has no synonyms."""
    torn = 0
    for seed in range(10):
        world = make_world(2, 120, wordings=2, spread=1.5, seed=seed)
        judge = CachingModel(Truthful(world))
        trial = drive(try_judge(begin(world.looks)), judge)
        assert trial == judge.expected() and trial.tells and trial.differing == 0, seed
        torn += any(one != other for one, other in judge.pairs())
    assert torn >= 5


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
    assert [len(questions) for questions in rounds] == [12] * 2


@pytest.mark.parametrize("sizes, tells", [((6, 5), False), ((6, 6), True), ((3, 2, 2), False), ((3, 3, 2), True)])
def test_as_no_image_is_put_again_twelve_of_two_kinds_are_enough_and_eight_of_three(
    sizes: tuple[int, ...], tells: bool
) -> None:
    """2^-11 = .0005, 2^-12 = .00024; 3^-7 = .0005, 3^-8 = .00015."""
    looks = looks_of([f"k{kind}" for kind, size in enumerate(sizes) for _ in range(size)])
    world = World(looks, dict(zip(looks.image_ids, looks.words, strict=True)))
    rounds: list[list[Question]] = []
    assert drive(try_judge(begin(looks)), Truthful(world), rounds) == Trial(sum(sizes), 0, False, tells)
    assert len(choices(rounds)) == 2 * sum(sizes)
    for cheat in (always_first, always_none):
        assert not drive(try_judge(begin(looks)), cheat).tells


def test_a_cheat_is_told_how_often_it_contradicted_itself_after_two_rounds() -> None:
    for kinds in (2, 5):
        world = make_world(kinds, 80)
        judge = CachingModel(always_first)
        trial = drive(try_judge(begin(world.looks)), judge)
        differing = sum(one != other for one, other in judge.pairs())
        assert trial == Trial(12, differing, False, False) and differing >= 11
        assert drive(try_judge(begin(world.looks)), always_none) == Trial(12, 0, True, False)


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
