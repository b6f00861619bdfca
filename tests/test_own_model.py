"""A model of one's own: checked before anything is asked, and given the pictures. (The documented one: test_docs.)"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage

import manylens
from manylens.collection.pictures import ImageSource
from manylens.errors import ModelError, UsageError
from manylens.models.base import (
    Capabilities,
    ChooseReply,
    ChooseRequest,
    CompleteReply,
    CompleteRequest,
    JudgeReply,
    JudgeRequest,
    LookReply,
    LookRequest,
    ModelWrapper,
    Request,
    check_model,
)
from manylens.models.scripted import ScriptedModel

LEVELS = ("dark", "bright")


class Own:
    """Sorts pictures into dark and bright ones; notes when it got them."""

    name = "own"
    identity = "own 1"
    capabilities = Capabilities()

    def __init__(self) -> None:
        self.log: list[str] = []
        self._images: ImageSource | None = None

    def open(self, images: ImageSource) -> None:
        self.log.append("open")
        self._images = images

    def render(self, request: Request) -> str:
        return repr(request)

    def _is_bright(self, image_id: str) -> bool:
        assert self._images is not None
        return float(np.asarray(self._images.thumbnail(image_id)).mean()) > 128

    async def look(self, requests: Sequence[LookRequest]) -> list[LookReply | ModelError]:
        self.log.append("look")
        shades = [self._is_bright(request.image_id) for request in requests]
        return [LookReply(LEVELS[bright], 1.0, np.eye(2, dtype=np.float16)[int(bright)]) for bright in shades]

    async def judge(self, requests: Sequence[JudgeRequest]) -> list[JudgeReply | ModelError]:
        return [JudgeReply(float(LEVELS[self._is_bright(r.candidate_id)] == r.cluster_name)) for r in requests]

    async def choose(self, requests: Sequence[ChooseRequest]) -> list[ChooseReply | ModelError]:
        return [ChooseReply((*(0.0 for _ in request.options), 1.0)) for request in requests]

    async def complete(self, requests: Sequence[CompleteRequest]) -> list[CompleteReply | ModelError]:
        return [ModelError("own writes no text") for _ in requests]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    for number in range(12):
        gray = (40, 220)[number % 2] + number
        PillowImage.new("RGB", (32, 32), (gray, gray, gray)).save(place / f"{number:02d}.png")
    return place


def test_an_object_gets_the_pictures_once_before_it_is_asked(folder: Path, tmp_path: Path) -> None:
    model = Own()
    result = manylens.cluster(folder, by="brightness", model=model, out=tmp_path / "out")
    assert result["brightness"].labels == {f"{n:02d}.png": LEVELS[n % 2] for n in range(12)}
    assert model.log[:2] == ["open", "look"]
    assert model.log.count("open") == 1


def test_a_wrapper_passes_the_pictures_on_and_a_model_without_open_needs_none(folder: Path, tmp_path: Path) -> None:
    model = Own()
    wrapper = ModelWrapper(model)
    wrapper.open(images := object())  # type: ignore[arg-type]
    assert model._images is images
    assert not hasattr(ScriptedModel({}), "open")
    ModelWrapper(ScriptedModel({})).open(images)  # type: ignore[arg-type]


def without(name: str) -> Any:
    """An object like `Own` without one attribute."""
    members = {key: value for key, value in vars(Own).items() if key != name and not key.startswith("__weak")}
    members.pop("__dict__", None)
    return type("Lacking", (), members)()


@pytest.mark.parametrize("name", ["name", "identity", "capabilities", "render", "look", "judge", "choose"])
def test_what_a_model_lacks_is_named_before_a_run_folder_is_made(name: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"a model has '{name}', Lacking has none") as caught:
        manylens.cluster(folder, by="brightness", model=without(name), out=tmp_path / "out")
    assert name in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_complete_may_be_missing_where_no_text_is_written_and_open_always(folder: Path, tmp_path: Path) -> None:
    check_model(without("complete"))
    check_model(without("open"))
    writing = without("complete")
    writing.capabilities = Capabilities(writes_text=True)
    with pytest.raises(UsageError, match="'complete'"):
        check_model(writing)


@pytest.mark.parametrize("verb", ["look", "judge", "choose", "complete"])
def test_a_verb_that_is_no_coroutine_function_is_refused_with_the_cure(verb: str) -> None:
    model = Own()
    setattr(model, verb, lambda requests: [])
    with pytest.raises(UsageError, match=f"'{verb}' of a model is a coroutine function") as caught:
        check_model(model)
    assert f"async def {verb}(self, requests)" in caught.value.hint


def test_open_is_a_plain_function() -> None:
    async def begin(images: ImageSource) -> None:
        raise AssertionError

    for wrong in (begin, "images"):
        model = Own()
        model.open = wrong  # type: ignore[method-assign,assignment]
        with pytest.raises(UsageError, match="'open' of a model is a plain function"):
            check_model(model)


def test_a_class_for_an_object_and_capabilities_of_another_kind_are_refused() -> None:
    with pytest.raises(UsageError, match=r"pass Own\(\)"):
        check_model(Own)
    model = Own()
    model.capabilities = {"writes_text": False}  # type: ignore[assignment]
    with pytest.raises(UsageError, match="Capabilities"):
        check_model(model)


def test_a_package_s_model_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package as an installer leaves it: a module, and a `.dist-info` that names the entry point."""
    site = tmp_path / "site"
    about = site / "brightness-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: brightness\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[manylens.models]\nbrightness = brightness_model:make\n")
    (site / "brightness_model.py").write_text(
        "from test_own_model import Own\n\n\n"
        "def make(rest, options):\n"
        "    model = Own()\n"
        "    model.name = f'brightness {rest} {options.image_px}'\n"
        "    return model\n"
    )
    monkeypatch.syspath_prepend(str(site))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for shade in (0, 10, 20, 230, 240, 250):
        PillowImage.new("RGB", (8, 8), (shade,) * 3).save(pictures / f"{shade}.png")
    result = manylens.cluster(pictures, "brightness", model="brightness:x", out=tmp_path / "out")
    assert result["brightness"].clustering.model == "brightness x 512"
    assert set(result["brightness"].labels.values()) == {"dark", "bright"}
    with pytest.raises(UsageError, match="pass --model nano, brightness"):
        manylens.cluster(pictures, "brightness", model="darkness", out=tmp_path / "other")


@pytest.mark.parametrize("text", ["features", "Clusters", "report?"])
def test_an_interest_may_not_take_the_run_folder_s_own_names(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="one of the run's own"):
        manylens.cluster(tmp_path, text, out=tmp_path / "out")
