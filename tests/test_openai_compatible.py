"""Models behind servers, against a server that reads pixels: what is asked, and what is made of the answers."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer, images_of
from PIL import Image as PillowImage
from served import (
    BLUE,
    CLOSED,
    LOOK,
    NAMES,
    NO,
    RECONCILE,
    SERVERS,
    VOCABULARY,
    WORDS_ALONE,
    YES,
    Drawn,
    at,
    bodies,
    no_keys_and_no_patience,  # noqa: F401  a fixture
    run,
)

from manylens.models import prompts
from manylens.models.base import (
    LookReply,
    LookRequest,
    ModelOptions,
    request_key,
)
from manylens.models.openai_compatible import dialect
from manylens.models.prompts_writing import WRITING
from manylens.models.text_embedder import TextEmbedder

GOLDEN = Path(__file__).parent / "golden"

pytestmark = pytest.mark.usefixtures("no_keys_and_no_patience")


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SERVERS)
def test_every_kind_of_server_gives_the_same_answers(kind: str) -> None:
    with ChatServer(**SERVERS[kind]) as server:
        model = at(server)
        red_too = LookRequest("color", "red circle")
        green_one = LookRequest("color", "green square")
        red, again, green, yes, no = run(model, LOOK, red_too, green_one, YES, NO)
        assert [red.description, green.description] == ["red", "green"]
        assert yes.probability > 0.8
        assert no.probability < 0.2
        for reply in (red, green):
            assert 0 < reply.confidence <= 1
            assert reply.embedding.dtype == np.float16
            assert float(np.linalg.norm(reply.embedding.astype(np.float32))) == pytest.approx(1, abs=1e-3)
            assert reply.usage.tokens_in > 0
            assert reply.usage.tokens_out > 0
        alike = float(red.embedding.astype(float) @ again.embedding.astype(float))
        unlike = float(red.embedding.astype(float) @ green.embedding.astype(float))
        assert alike > 0.99 > unlike + 0.25
        if model.dialect.embeddings == "text":
            assert len([1 for body in bodies(server, "embeddings") if body.get("input") == "red"]) == 1
        assert server.repeated() == {}


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("all it could offer", {"structured": "json_schema", "logprobs": 20, "pictures": 9, "embeddings": "text"}),
        ("no logprobs", {"logprobs": 0}),
        ("rejects logprobs", {"logprobs": 0}),
        ("rejects formats", {"structured": "none", "words": "json"}),
        ("ignores formats", {"structured": "json_object"}),
        ("json mode only", {"structured": "json_object"}),
        ("embeds pictures", {"embeddings": "messages", "embedding_model": "fake"}),
        ("embeds nothing", {"embeddings": "local", "embedding_model": "all-MiniLM-L6-v2-int8-1"}),
        ("reasoning", {"limit": "max_completion_tokens", "temperature": False, "logprobs": 0}),
        ("thinks aloud", {"thinks": True}),
        ("four pictures", {"pictures": 4}),
        ("one picture", {"pictures": 1}),
        ("plain words", {"structured": "none", "words": "plain"}),
    ],
)
def test_the_probe_finds_what_a_server_can_do(kind: str, found: dict[str, Any]) -> None:
    with ChatServer(**SERVERS[kind]) as server:
        model = at(server)
        assert {name: model.dialect.to_dict()[name] for name in found} == found
        known = model.capabilities
        assert known.sees_exemplars == (model.dialect.pictures > 1)
        assert known.writes_text == (model.dialect.words == "json")
        assert (known.batch_size, known.concurrency) == (1, ModelOptions().concurrency)


def test_an_embedding_model_of_the_server_is_found_and_another_can_be_named() -> None:
    with ChatServer(models=("fake", "nomic-embed-text"), embedding_model="nomic-embed-text") as server:
        assert at(server).dialect.embedding_model == "nomic-embed-text"
    with ChatServer(embeddings="none") as server, ChatServer(models=("vectors",)) as embedder:
        model = at(server, embedding_model="vectors", embedding_url=embedder.url)
        assert model.dialect.embeddings == "text"
        before = embedder.count("embeddings")
        assert isinstance(run(model, LOOK)[0], LookReply)
        assert embedder.count("embeddings") == before + 1
        assert "vectors" in model.identity


def test_similarities_of_a_server_are_put_on_the_graph_s_scale() -> None:
    """Whatever a server's cosines are, what says the same ends above even odds and what does not below."""
    texts = dialect.alike_texts()
    rng = np.random.default_rng(0)
    meanings = np.repeat(rng.standard_normal((len(texts) // 2, 64)), 2, axis=0)
    for common in (0.0, 3.0):  # anisotropic embeddings: everything is like everything
        vectors = meanings + 0.4 * rng.standard_normal(meanings.shape) + common
        unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        edges = dialect.edge_scale_of(unit)
        assert edges is not None
        weights = 1 / (1 + np.exp(-(edges[0] * (unit[0::2] @ unit[1::2].T) + edges[1])))
        assert np.diag(weights).mean() > 0.8
        assert weights[~np.eye(len(weights), dtype=bool)].mean() < 0.25
    nothing = np.abs(rng.standard_normal((len(texts), 64))).astype(np.float32)
    assert dialect.edge_scale_of(nothing / np.linalg.norm(nothing, axis=1, keepdims=True)) is None


def test_descriptions_are_embedded_here_where_a_server_embeds_nothing() -> None:
    with ChatServer(embeddings="none") as server:
        model = at(server)
        (reply,) = run(model, LOOK)
        assert reply.embedding.tobytes() == TextEmbedder().embed([reply.description])[0].astype(np.float16).tobytes()
        assert model.capabilities.edge_scale == TextEmbedder.edge_scale
        assert model.capabilities.edge_offset == TextEmbedder.edge_offset
        assert TextEmbedder.name in json.loads(model.render(LOOK))


def test_words_are_hashed_as_ever_for_runs_begun_so() -> None:
    """Their folders hold such vectors: the numbers are those of the version that wrote them."""
    red = dialect.embed_by_words("red")
    where = [int(number) for number in np.flatnonzero(red)]
    assert (red.size, where) == (512, [130, 211, 264, 304])
    assert red[where].tolist() == pytest.approx([-0.4082, 0.4082, -0.7071, 0.4082], abs=1e-4)
    assert np.isfinite(dialect.embed_by_words("✨")).all()


# --- requests ---------------------------------------------------------------------------------------------------------


def shared(one: Any, other: Any) -> str:
    """What two requests share from the start of their messages."""
    texts = [json.dumps(body["messages"]) for body in (one, other)]
    length = next((i for i, pair in enumerate(zip(*texts, strict=False)) if pair[0] != pair[1]), min(map(len, texts)))
    return texts[0][:length]


def test_several_interests_of_one_picture_share_everything_before_the_interest() -> None:
    images = Drawn()
    with ChatServer() as server:
        run(at(server, images), LOOK, LookRequest("shape", LOOK.image_id))
        common = shared(*bodies(server, "look"))
        assert "base64" in common
        assert common.endswith('Interest: \\"')
        assert images.encoded.count((LOOK.image_id, 512)) == 1


def test_the_candidates_of_a_cluster_share_everything_before_the_candidate() -> None:
    with ChatServer() as server:
        run(at(server), YES, NO)
        one, other = bodies(server, "judge")
        assert [len(images_of(body)) for body in (one, other)] == [3, 3]
        assert images_of(one)[:2] == images_of(other)[:2]
        assert prompts.JUDGE_CANDIDATE in shared(one, other)


@pytest.mark.parametrize("side_px", [64, 512, 1024])
def test_pictures_are_shrunk_to_the_stated_size(side_px: int) -> None:
    with ChatServer() as server:
        run(at(server, Drawn(900), image_px=side_px), LOOK, YES)
        (look,), (judge,) = bodies(server, "look"), bodies(server, "judge")

        def longest(body: Any) -> list[int]:
            return [max(PillowImage.open(io.BytesIO(jpeg)).size) for jpeg in images_of(body)]

        assert longest(look) == [min(side_px, 900)]
        assert longest(judge) == [min(side_px, 256)] * 3


def test_a_rendered_request_is_what_is_sent_with_ids_for_pictures() -> None:
    with ChatServer() as server:
        model = at(server)
        run(model, LOOK)
        rendered = json.loads(model.render(LOOK))
        (sent,) = bodies(server, "look")
        assert rendered[0] == prompts.SERVER_PROMPTS
        sent["messages"][1]["content"][0] = {"image": LOOK.image_id, "px": 512, "quality": 90}
        assert rendered[1] == sent


def test_what_changes_an_answer_changes_its_key() -> None:
    with ChatServer() as server, ChatServer(logprobs="ignores", embeddings="none") as other:
        model = at(server)
        for request in (LOOK, YES):
            keys = [request_key(one, request) for one in (model, at(server, image_px=96), at(other), at(server))]
            assert keys[0] == keys[3]
            assert len(set(keys)) == 3
        assert request_key(model, YES) != request_key(model, NO)


def test_prompts_are_the_reviewed_text() -> None:
    """After a wanted change: MANYLENS_WRITE_GOLDEN=1, review the difference, raise prompts.SERVER_PROMPTS; for what is
    written, prompts_writing.WRITING_PROMPTS."""
    with ChatServer() as server, ChatServer(logprobs="ignores") as stating:
        shown = {
            "look": json.loads(at(server).render(LOOK)),
            "judge in a word": json.loads(at(server).render(YES)),
            "judge with a stated confidence": json.loads(at(stating).render(YES)),
            "choose a letter": json.loads(at(server).render(BLUE)),
            "choose with a stated confidence, by words alone": json.loads(at(stating).render(WORDS_ALONE)),
            "names": json.loads(at(server).render(NAMES)),
            "vocabulary": json.loads(at(server).render(VOCABULARY)),
            "vocabulary, closed": json.loads(at(server).render(CLOSED))[1][1]["messages"][1],
            "reconcile": json.loads(at(server).render(RECONCILE)),
            "repair": prompts.repair_question("it is empty", prompts.LOOK_SHAPE),
            "repair of what is written": {
                name: prompts.repair_question("it is empty", task.shape) for name, task in WRITING.items()
            },
        }
    text = json.dumps(shown, indent=1, ensure_ascii=False) + "\n"
    golden = GOLDEN / "server-prompts.json"
    if os.environ.get("MANYLENS_WRITE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text("utf-8")


# --- a run meets its model again --------------------------------------------------------------------------------------


def test_a_second_run_asks_the_server_nothing_about_itself(tmp_path: Path) -> None:
    recorded = tmp_path / "models.json"
    with ChatServer() as server:
        first = at(server, recorded=recorded)
        asked = len(server.log)
        again = at(server, recorded=recorded)
        assert len(server.log) == asked
        assert again.dialect == first.dialect
        server.logprobs = "ignores"  # an updated server must not change the keys of a run
        assert at(server, recorded=recorded).render(YES) == first.render(YES)


@pytest.mark.parametrize("content", ["", "[]", '{"x": 1}', "\x00", '{"http://a b": {"words": "json", "new": 1}}'])
def test_a_damaged_record_is_made_anew(content: str, tmp_path: Path) -> None:
    recorded = tmp_path / "models.json"
    recorded.write_text(content)
    with ChatServer() as server:
        model = at(server, recorded=recorded)
        assert dialect.Dialect.from_dict(json.loads(recorded.read_text())[model.identity]) == model.dialect
