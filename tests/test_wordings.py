"""The scripted model's open words: how classes are described, where that lies, and what the writer makes of it."""

import asyncio
import hashlib
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from replies import embedding_of, request_of, values_of

from manylens.models.base import CompleteReply, JudgeReply, JudgeRequest, LookReply, LookRequest
from manylens.models.scripted import Noise, ScriptedModel
from manylens.models.wordings import REFUSALS, Wordings

CLASSES = [f"kind{number}" for number in range(9)]
IDS = [f"{number:04d}" for number in range(900)]
LABELS = {image_id: CLASSES[int(image_id) % 9] for image_id in IDS}
HONEST = Wordings(lost=0.0, invented=0.0, misfiled=0.0, drifting=0.0)


def model_of(wordings: Wordings | None, noise: Noise | None = None, seed: int = 0, **more: Any) -> ScriptedModel:
    return ScriptedModel({"kind": LABELS}, noise=noise, seed=seed, writes_text=True, wordings=wordings, **more)


def look(model: ScriptedModel, ids: Sequence[str] = IDS) -> list[LookReply]:
    replies = asyncio.run(model.look([LookRequest("kind", image_id) for image_id in ids]))
    return [reply for reply in replies if isinstance(reply, LookReply)]


def words_by_class(model: ScriptedModel) -> dict[str, Counter[str]]:
    said: dict[str, Counter[str]] = defaultdict(Counter)
    for image_id, reply in zip(IDS, look(model), strict=True):
        said[LABELS[image_id]][reply.description] += 1
    return said


def write(model: ScriptedModel, task: str, payload: Mapping[str, Any]) -> Any:
    (reply,) = asyncio.run(model.complete([request_of(task, {"interest": "kind", **payload})]))
    return values_of(reply)


def vocabulary(model: ScriptedModel, words: Sequence[str], level: str = "medium", known: Sequence[str] = ()) -> Any:
    payload = {"interest": "kind", "level": level, "categories": list(known), "descriptions": list(words)}
    return write(model, "vocabulary", payload)


def test_without_wordings_every_reply_is_what_it_was() -> None:
    labels = {image_id: f"kind{int(image_id) % 5}" for image_id in IDS[:60]}
    noise = Noise(0.1, 0.1, 0.2, 0.5, 0.1, 0.1, 0.05, 0.05)
    model = ScriptedModel({"kind": labels}, noise=noise, seed=3, writes_text=True)
    looks = asyncio.run(model.look([LookRequest("kind", image_id) for image_id in labels]))
    pairs = itertools.product(IDS[:9], labels)
    judged = asyncio.run(model.judge([JudgeRequest("kind", "alt kind1", "", (one,), other) for one, other in pairs]))
    payload = {"interest": "kind", "clusters": [{"id": 1, "descriptions": {"kind1": 3}}]}
    written = asyncio.run(model.complete([request_of(task, payload) for task in ("name_clusters", "vocabulary")]))
    # Of an embedding its largest part, which does not hang on the last bit of a processor's arithmetic.
    said = [
        (reply.description, round(reply.confidence, 9), int(embedding_of(reply).argmax()))
        if isinstance(reply, LookReply)
        else str(reply)
        for reply in looks
    ]
    judgements = [round(reply.probability, 9) if isinstance(reply, JudgeReply) else str(reply) for reply in judged]
    texts = [json.dumps(values_of(reply)) if isinstance(reply, CompleteReply) else str(reply) for reply in written]
    assert "Wordings" not in model.identity
    digest = hashlib.sha256(repr([said, judgements, texts]).encode()).hexdigest()
    assert digest == "289d95f81d5c3281b312d66f120d54c1d2db79b6e9da41df38ba799a0e112718"


@pytest.mark.parametrize("per_class", [10, 30])
def test_a_class_has_so_many_wordings_and_the_first_ones_are_used_most(per_class: int) -> None:
    said = words_by_class(model_of(Wordings(per_class)))
    assert all(len(counted) <= per_class for counted in said.values())
    assert len(set(itertools.chain.from_iterable(said.values()))) == sum(map(len, said.values())) > per_class * 5
    share = sum(counted[label] for label, counted in said.items()) / len(IDS)
    assert share == pytest.approx(1 / sum(1 / n for n in range(1, per_class + 1)), abs=0.05)


def test_in_free_prose_no_two_descriptions_are_equal_and_a_class_shares_words() -> None:
    said = words_by_class(model_of(Wordings(per_class=0)))
    assert sum(map(len, said.values())) == len(IDS)
    tokens = {label: [set(text.strip(".").split()) for text in counted] for label, counted in said.items()}
    everyone = set.intersection(*(set.union(*of) for of in tokens.values()))  # "the image shows", the shared adjectives

    def in_common(one: set[str], other: set[str]) -> int:
        return len((one & other) - everyone)

    own = np.mean([in_common(a, b) for of in tokens.values() for a, b in itertools.combinations(of[:30], 2)])
    foreign = np.mean([in_common(a, b) for a in tokens["kind0"] for b in tokens["kind1"]])
    assert own > 0.8 and foreign < 0.05


def test_wordings_of_one_class_lie_nearer_to_each_other_than_to_others() -> None:
    looks = look(model_of(Wordings(per_class=10), Noise(spread=0.0)))
    place = {reply.description: embedding_of(reply).astype(np.float64) for reply in looks}
    label = dict(zip((reply.description for reply in looks), LABELS.values(), strict=True))
    pairs = list(itertools.combinations(place, 2))
    within = [place[a] @ place[b] for a, b in pairs if label[a] == label[b]]
    between = [place[a] @ place[b] for a, b in pairs if label[a] != label[b]]
    assert np.mean(within) > np.mean(between) + 0.3
    assert min(within) < max(between)  # or every threshold would do


def test_so_many_wordings_lie_half_way_to_another_class() -> None:
    def near_misses(overlap: float) -> float:
        looks = look(model_of(Wordings(0, overlap=overlap, wording_spread=0.2), Noise(spread=0.0)))
        vectors = np.array([reply.embedding for reply in looks], np.float64)
        centres = np.array([vectors[number::9].mean(axis=0) for number in range(9)])
        nearest = np.sort(vectors @ centres.T, axis=1)
        return float(np.mean(nearest[:, -1] - nearest[:, -2] < 0.15))

    assert near_misses(0.0) < 0.02 and near_misses(0.3) == pytest.approx(0.3, abs=0.06)


def test_a_share_is_described_by_coarser_and_finer_words() -> None:
    said = words_by_class(model_of(Wordings(per_class=1, levels=0.4)))
    classes_of: dict[str, set[str]] = defaultdict(set)
    for label, counted in said.items():
        for text in counted:
            classes_of[text].add(label)
    coarse = {text for text, of in classes_of.items() if len(of) == 3}
    assert len(coarse) == 3 and all(len(of) in (1, 3) for of in classes_of.values())
    share = {kind: sum(c[t] for c in said.values() for t in c if (t in coarse) == kind) for kind in (True, False)}
    assert share[True] / len(IDS) == pytest.approx(0.2, abs=0.04)
    assert sum(c[label] for label, c in said.items()) / len(IDS) == pytest.approx(0.6, abs=0.05)
    assert len(classes_of) == 3 + 9 + 9 * 3


def test_a_third_is_described_in_other_words_nearby() -> None:
    home, abroad = (look(model_of(Wordings(foreign=share), Noise(spread=0.0))) for share in (0.0, 1 / 3))
    moved = [number for number in range(len(IDS)) if home[number].description != abroad[number].description]
    assert len(moved) / len(IDS) == pytest.approx(1 / 3, abs=0.05)
    assert not {abroad[number].description for number in moved} & {reply.description for reply in home}
    cosines = [cosine(embedding_of(home[number]), embedding_of(abroad[number])) for number in moved]
    assert 0.8 < np.mean(cosines) < 0.97


def cosine(one: NDArray[np.float16], other: NDArray[np.float16]) -> float:
    return float(one.astype(np.float64) @ other.astype(np.float64))


def test_correlated_mistakes_take_a_class_for_one_other() -> None:
    def taken_for(correlated: bool) -> dict[str, set[str]]:
        wordings = Wordings(per_class=1, correlated=correlated)
        said = words_by_class(model_of(wordings, Noise(wrong_description=0.3)))
        return {label: set(counted) - {label} for label, counted in said.items()}

    assert {len(others) for others in taken_for(True).values()} == {1}
    assert min(len(others) for others in taken_for(False).values()) > 3


def test_replies_depend_on_the_request_alone_and_the_seed() -> None:
    wordings = Wordings(levels=0.2, foreign=0.2, refusals=0.1)
    forward, backward = look(model_of(wordings)), look(model_of(wordings), IDS[::-1])
    assert forward == backward[::-1]
    assert forward != look(model_of(wordings, seed=1))
    assert model_of(wordings).identity != model_of(Wordings()).identity != model_of(None).identity


@pytest.mark.parametrize("per_class", [0, 10])
def test_an_honest_writer_groups_words_by_class_in_any_language(per_class: int) -> None:
    model = model_of(replace(HONEST, per_class=per_class, foreign=1 / 3, refusals=0.1))
    looks = look(model)
    distinct = {reply.description: label for reply, label in zip(looks, LABELS.values(), strict=True)}
    words = list(distinct)[:100]
    reply = vocabulary(model, words)
    assert [words[number - 1] for number in reply["no_answer"]] == [word for word in words if word in REFUSALS]
    found = {category["name"]: {words[n - 1] for n in category["descriptions"]} for category in reply["categories"]}
    expected = defaultdict(set)
    for word in words:
        if word not in REFUSALS:
            expected[distinct[word]].add(word)
    assert found == expected


@pytest.mark.parametrize(("level", "categories"), [("coarse", 3), ("medium", 3 + 9), ("fine", 3 + 9 + 27)])
def test_the_writer_groups_at_the_level_asked_for(level: str, categories: int) -> None:
    model = model_of(replace(HONEST, levels=0.5, per_class=3))
    words = sorted({reply.description for reply in look(model)})
    assert len(vocabulary(model, words, level)["categories"]) == categories


def shares(model: ScriptedModel) -> dict[str, float]:
    """What the writer loses, invents and misfiles, over batches of 40 wordings."""
    said = words_by_class(model)
    of = {word: label for label, counted in said.items() for word in counted}
    words, wrong = sorted(of), Counter[str]()
    batches = [words[start : start + 40] for start in range(0, len(words), 40)]
    for batch in batches:
        categories = vocabulary(model, batch)["categories"]
        numbers = [number for category in categories for number in category["descriptions"]]
        wrong["lost"] += len(set(range(1, len(batch) + 1)) - set(numbers))
        wrong["invented"] += sum(number > len(batch) for number in numbers)
        for category in categories:
            inside = [of[batch[number - 1]] for number in category["descriptions"] if number <= len(batch)]
            wrong["misfiled"] += sum(label != Counter(inside).most_common(1)[0][0] for label in inside)
    return {mistake: wrong[mistake] / len(words) for mistake in ("lost", "invented", "misfiled")}


def test_the_writer_errs_at_its_stated_shares() -> None:
    prose = replace(HONEST, per_class=0)
    assert shares(model_of(prose)) == {"lost": 0, "invented": 0, "misfiled": 0}
    found = shares(model_of(replace(prose, lost=0.05, invented=0.1, misfiled=0.08)))
    assert found["lost"] == pytest.approx(0.05, abs=0.02)
    assert found["invented"] == pytest.approx(0.1, abs=0.03)
    assert found["misfiled"] == pytest.approx(0.08, abs=0.03)


def test_names_differ_between_batches_unless_the_categories_are_shown() -> None:
    model = model_of(replace(HONEST, drifting=0.5))
    words = sorted({reply.description for reply in look(model)})
    batches = [words[start::4] for start in range(4)]
    by_model = {
        drifting: {category["name"] for batch in batches for category in vocabulary(writer, batch)["categories"]}
        for drifting, writer in ((False, model_of(HONEST)), (True, model))
    }
    assert by_model[False] == set(CLASSES) and len(by_model[True]) > 15
    shown = [f"{label}s" for label in CLASSES]
    for batch in batches:
        assert {category["name"] for category in vocabulary(model, batch, known=shown)["categories"]} <= set(shown)


def test_the_writer_knows_which_categories_are_one_kind() -> None:
    model = model_of(HONEST)
    said = words_by_class(model)
    categories = [
        {"id": number, "name": name, "examples": list(said[label])[:3]}
        for number, (name, label) in enumerate(
            [("kind0", "kind0"), ("kind1", "kind1"), ("any", "kind0"), ("kind1s", "kind1"), ("kind2", "kind2")]
        )
    ]
    categories[3]["examples"] = []
    payload = {"interest": "kind", "level": "medium", "categories": categories}
    groups = write(model, "reconcile", payload)["groups"]
    assert groups == [
        {"name": "kind0", "ids": [0, 2]},
        {"name": "kind1", "ids": [1, 3]},
        {"name": "kind2", "ids": [4]},
    ]
    assert len(write(model, "reconcile", {**payload, "level": "coarse"})["groups"]) == 1
    wrong = model_of(replace(HONEST, lost=1.0))
    assert write(wrong, "reconcile", payload)["groups"] == []


def test_clusters_get_distinct_names_of_their_class() -> None:
    model = model_of(HONEST)
    said = words_by_class(model)
    clusters = [{"id": n, "descriptions": dict(said[label])} for n, label in enumerate(["kind3", "kind3", "kind4"])]
    named = write(model, "name_clusters", {"clusters": clusters, "taken": ["kind4"]})["clusters"]
    assert [entry["name"] for entry in named] == ["kind3", "kind3s", "kind4s"]
    assert all(entry["definition"] for entry in named)


def test_a_judge_who_sees_no_exemplars_knows_what_a_name_means() -> None:
    model = model_of(Wordings(per_class=10), sees_exemplars=False)
    synonym = next(word for word in words_by_class(model)["kind5"] if "kind5" not in word)
    replies = asyncio.run(model.judge([JudgeRequest("kind", synonym, "", (), image_id) for image_id in IDS[:9]]))
    yes = [isinstance(reply, JudgeReply) and reply.probability > 0.5 for reply in replies]
    assert yes == [LABELS[image_id] == "kind5" for image_id in IDS[:9]]
