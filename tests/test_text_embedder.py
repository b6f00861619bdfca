"""The text embedder: what its vectors say, and what they do not depend on."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

import manylens
from manylens.models.openai_compatible import dialect
from manylens.models.text_embedder import FILES, TextEmbedder

TRIPLES = [
    ("a puppy", "a small dog", "a small boat"),
    ("an automobile", "a red car", "a red apple"),
    ("the seaside", "a sandy beach", "a sandy desert road"),
    ("smiling", "a happy face", "an angry face"),
    ("sneakers", "sports shoes", "sports car"),
    ("playing the guitar", "making music on strings", "playing football"),
    ("a passenger jet", "airplane", "air balloon"),
    ("riding a bicycle", "cycling down the street", "walking down the street"),
    ("snowy scenery", "winter landscape", "summer landscape"),
    ("a physician", "a doctor at work", "a farmer at work"),
    ("sofa", "couch", "coach"),
    ("infant", "a baby", "a lady"),
    ("taking pictures", "photography", "calligraphy"),
    # By their letters:
    ("красная машина", "красные машины", "большая собака"),
    ("一只小狗", "两只小狗", "一个青苹果"),
    ("赤いりんご", "りんご", "車"),
    ("강아지", "작은 강아지", "빨간 자동차"),
    ("สุนัข", "สุนัขตัวเล็ก", "รถยนต์สีแดง"),
    ("سيارة", "سيارة حمراء", "شاطئ رملي"),
    ("लाल सेब", "एक हरा सेब", "समुद्र तट"),
]

WEIRD = {
    "nothing": "",
    "blanks": " \n\t\u3000",
    "punctuation": "?!... --",
    "one long word": "a" * 100_000,
    "many words": "dog and cat " * 10_000,
    "a lone surrogate": "\ud800",
    "half an emoji": "happy \ud83d",
    "zero byte": "\0",
    "zero width": "\u200b\u202e",
    "a mark alone": "\u0301",
    "emoji": "\U0001f600",
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "many scripts": "собака 犬 كلب कुत्ता σκύλος",
    "unassigned": "\u0378\U000e0fff",
    "the tokenizer's own": "[SEP] [MASK] [PAD] [UNK]",
}


@pytest.mark.parametrize(("text", "alike", "unlike"), TRIPLES, ids=[text for text, _, _ in TRIPLES])
def test_synonyms_are_nearer_than_strangers(text: str, alike: str, unlike: str) -> None:
    asked, near, far = TextEmbedder().embed([text, alike, unlike])
    assert asked @ near > asked @ far + 0.03


def test_a_vector_does_not_depend_on_what_else_is_embedded() -> None:
    texts = [text for triple in TRIPLES for text in triple] + list(WEIRD.values())
    together = TextEmbedder().embed(texts)
    assert together.tobytes() == TextEmbedder().embed(texts[::-1])[::-1].tobytes()
    for row, text in zip(together, texts, strict=True):
        assert row.tobytes() == TextEmbedder().embed([text])[0].tobytes()


@pytest.mark.parametrize("text", WEIRD.values(), ids=WEIRD)
def test_any_text_has_a_unit_vector(text: str) -> None:
    (row,) = TextEmbedder().embed([text])
    assert row.shape == (384,)
    assert row.dtype == np.float32
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-5)


def test_no_texts_are_no_rows() -> None:
    assert TextEmbedder().embed([]).shape == (0, 384)


def test_letters_that_cancel_out_still_make_a_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zero:
        def __init__(self, piece: bytes, digest_size: int) -> None:
            self.sign = len(piece) % 2

        def digest(self) -> bytes:
            return bytes([self.sign, 0, 0, 0, 0])

    monkeypatch.setattr(hashlib, "blake2b", Zero)  # "^犬" and "犬$" have four bytes, "^犬$" has five
    (row,) = TextEmbedder().embed(["犬 犬"])
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-5)


def test_different_emoji_differ_and_one_beside_a_text_changes_it_little() -> None:
    """To MiniLM most emoji are the same unknown token."""
    texts = ["\U0001f697", "\U0001f415", "a happy face", "a happy face \U0001f600"]
    car, dog, plain, marked = TextEmbedder().embed(texts)
    assert car @ dog < 0.9
    assert plain @ marked > 0.9


def test_only_the_first_tokens_count() -> None:
    whole, cut, short = TextEmbedder().embed(["dog " * 300, "dog " * 126, "dog " * 20])
    assert whole.tobytes() == cut.tobytes() != short.tobytes()


def test_beta_and_b_put_these_vectors_on_the_graph_s_scale() -> None:
    found = dialect.edge_scale_of(TextEmbedder().embed(dialect.alike_texts()))
    assert found == pytest.approx((TextEmbedder.edge_scale, TextEmbedder.edge_offset), abs=0.01)


def test_other_weights_would_need_another_name() -> None:
    """A run folder tells by the name which vectors it holds."""
    folder = resources.files("manylens.models") / "minilm"
    digest = hashlib.sha256(b"".join((folder / file).read_bytes() for file in FILES))
    assert (TextEmbedder.name, digest.hexdigest()[:16]) == ("all-MiniLM-L6-v2-int8-1", "d8d469e99af87b8d")


def test_the_weights_are_loaded_when_they_are_used() -> None:
    told = "from manylens.models import text_embedder as t; t.TextEmbedder(); print(t._load.cache_info().currsize)"
    assert subprocess.check_output([sys.executable, "-c", told], text=True).strip() == "0"


def test_it_is_part_of_the_public_interface() -> None:
    assert manylens.TextEmbedder is TextEmbedder
