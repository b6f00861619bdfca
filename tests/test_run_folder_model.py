"""The run folder against a model of it in plain dicts: whatever is done in whatever order, it holds the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_store import look

from manylens.errors import StoreError
from manylens.files import write_atomically
from manylens.settings import Settings
from manylens.store.answers import Failure, StoredAnswer
from manylens.store.peek import Held, peek_held
from manylens.store.run_folder import RunFolder
from manylens.types import Image, Interest, Thumbnail, Unreadable

few = st.integers(0, 5)
some = st.lists(few, max_size=4)
words = st.sampled_from(["hearts", "spades", "\udcff\n"])


def picture(number: int) -> Thumbnail:
    return Thumbnail(f"id{number}", 10 + number, 20, b"\xff\xd8 picture %d \xff\xd9" % number)


class RunFolderMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.scratch = tempfile.TemporaryDirectory(prefix="manylens-test-")
        self.path = Path(self.scratch.name) / "run"
        self.thumbnails: dict[str, Thumbnail] = {}
        self.images: dict[str, Image] = {}
        self.unreadable: dict[str, Unreadable] = {}
        self.answers: dict[str, StoredAnswer] = {}
        self.failures: dict[str, Failure] = {}
        self.results: dict[str, tuple[str, str]] = {}
        """Path -> what it held when it was recorded, and what it holds."""

    @initialize()
    def begin(self) -> None:
        self.run = RunFolder.open(self.path)

    def teardown(self) -> None:
        self.run.close()
        self.scratch.cleanup()

    @rule(numbers=some)
    def put_thumbnails(self, numbers: list[int]) -> None:
        self.run.put_thumbnails(map(picture, numbers))
        for number in numbers:
            self.thumbnails.setdefault(picture(number).image_id, picture(number))

    @rule(numbers=some, broken=some, copies=st.integers(1, 2))
    def record_collection(self, numbers: list[int], broken: list[int], copies: int) -> None:
        images = [
            Image(f"id{n}", tuple(f"{n}-{copy}\udcff.png" for copy in range(copies)), 10 + n, 20)
            for n in sorted(set(numbers))
        ]
        unreadable = [Unreadable(f"broken{n}.jpg", "truncated") for n in broken]
        if {image.id for image in images} <= self.thumbnails.keys():
            self.run.record_collection(images, unreadable)
            self.images = {image.id: image for image in images}
            self.unreadable = {file.path: file for file in unreadable}
        else:
            with pytest.raises(StoreError, match="needs a stored thumbnail"):
                self.run.record_collection(images, unreadable)

    @rule(numbers=some, text=words)
    def put_answers(self, numbers: list[int], text: str) -> None:
        answers = [look(number, text) for number in numbers]
        self.run.put_answers(answers)
        for answer in answers:
            self.answers.setdefault(answer.key, answer)  # the first one stays
            self.failures.pop(answer.key, None)

    @rule(numbers=some)
    def put_half_of_a_transaction(self, numbers: list[int]) -> None:
        bad = StoredAnswer("key", "suit", None, "model", "look", look(0).reply)  # type: ignore[arg-type]
        with pytest.raises(StoreError):
            self.run.put_answers([*(look(number, "lost") for number in numbers), bad])

    @rule(numbers=some, reason=st.sampled_from(["busy", "refused"]))
    def record_failures(self, numbers: list[int], reason: str) -> None:
        failures = [Failure(look(n).key, "look", "suit", f"image{n}", reason) for n in numbers]
        self.run.record_failures(failures)
        self.failures |= {failure.key: failure for failure in failures}

    @rule(number=few, text=words)
    def write_result(self, number: int, text: str) -> None:
        path = f"suit/{number}.csv"
        self.run.forget_results([path])
        write_atomically(self.path / path, text)
        self.run.record_results([path])
        self.results[path] = text, text

    @rule(number=few, text=words)
    def change_a_result(self, number: int, text: str) -> None:
        path = f"suit/{number}.csv"
        if path in self.results:
            write_atomically(self.path / path, text)
            self.results[path] = self.results[path][0], text

    @rule()
    def reopen(self) -> None:
        self.run.close()
        ids = {answer.image_id for answer in self.answers.values()}
        held = peek_held(self.path, look(0).model_identity, [Interest(look(0).interest)], ids, Settings())
        assert held == Held(looks=len(ids))
        self.run = RunFolder.open(self.path, must_exist=True)

    @rule()
    def second_holder(self) -> None:
        with pytest.raises(StoreError, match="held by process"):
            RunFolder.open(self.path)

    @precondition(lambda self: hasattr(self, "run"))
    @invariant()
    def holds_what_the_model_holds(self) -> None:
        sizes = {i: (t.width_px, t.height_px) for i, t in self.thumbnails.items()}
        assert self.run.known_images() == sizes
        assert {i: self.run.thumbnail(i) for i in sizes} == {i: t.jpeg for i, t in self.thumbnails.items()}
        assert self.run.images() == tuple(self.images[i] for i in sorted(self.images))
        assert self.run.unreadable() == tuple(self.unreadable[p] for p in sorted(self.unreadable))
        keys = [look(number).key for number in range(6)]
        assert self.run.get_answers(keys) == {key: answer.reply for key, answer in self.answers.items()}
        assert self.run.failures() == tuple(self.failures[key] for key in sorted(self.failures))
        assert self.run.extent() == (len(self.answers), bool(self.results))
        changed = sorted(path for path, (recorded, now) in self.results.items() if recorded != now)
        assert [(damage.what, damage.id) for damage in self.run.verify()] == [("result", path) for path in changed]


TestRunFolder = RunFolderMachine.TestCase
TestRunFolder.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
