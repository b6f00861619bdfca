"""What `InterestClustering` takes and gives: pictures of every form, embeddings, graph, new pictures."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks

from manylens import InterestClustering
from manylens.collection.pictures import ImageSource
from manylens.errors import UsageError
from manylens.models.scripted import ScriptedModel

COLORS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (30, 60, 200)}


class ByPixels(ScriptedModel):
    """The scripted model that reads a picture's color off its pixels, whatever file they are in."""

    def __init__(self) -> None:
        super().__init__(self._color, classes={"color": set(COLORS)})

    def open(self, images: ImageSource) -> None:
        self._images = images

    def _color(self, interest: str, image_id: str) -> str:
        red, green, _ = np.asarray(self._images.thumbnail(image_id)).mean(axis=(0, 1))
        return min(COLORS, key=lambda name: abs(COLORS[name][0] - red) + abs(COLORS[name][1] - green))


def pictures(each: int = 6) -> tuple[list[PillowImage.Image], list[str]]:
    made: list[PillowImage.Image] = []
    colors: list[str] = []
    for number in range(each):
        for color, value in COLORS.items():
            image = PillowImage.new("RGB", (30, 20), value)
            image.putpixel((number, 0), (255, 255, 255))
            made.append(image)
            colors.append(color)
    return made, colors


def encoded(image: PillowImage.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def as_arrays(made: list[PillowImage.Image]) -> Any:
    return np.stack([np.asarray(image) for image in made])


FORMS: dict[str, Callable[[list[PillowImage.Image]], Any]] = {
    "PIL images": list,
    "bytes": lambda made: [encoded(image) for image in made],
    "undecoded rows": lambda made: [{"bytes": encoded(image), "path": None} for image in made],
    "one array": as_arrays,
    "a list of arrays": lambda made: list(as_arrays(made)),
    "a generator": iter,
}


@pytest.mark.parametrize("form", FORMS)
def test_pictures_of_every_form_are_sorted(form: str) -> None:
    made, colors = pictures()
    found = InterestClustering("color", model=ByPixels()).fit(FORMS[form](made))
    assert [found.cluster_names_[label] for label in found.labels_] == colors


def saved(folder: Path, made: list[PillowImage.Image]) -> list[Path]:
    folder.mkdir()
    for number, image in enumerate(made):
        image.save(folder / f"{number:03d}.png")
    return sorted(folder.iterdir())


def test_an_image_is_sorted_as_it_is_seen() -> None:
    """A photograph that lies on its side says so in its EXIF data."""
    made, _ = pictures()
    exif = PillowImage.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    made[0].save(buffer, "JPEG", exif=exif)
    buffer.seek(0)
    model = ByPixels()
    sizes: list[tuple[int, int]] = []
    model.open = lambda images: sizes.append(images.thumbnail(next(iter(images._images))).size)  # type: ignore[method-assign, attr-defined]
    with pytest.raises(AttributeError):  # opened and then not asked: it has no pictures
        InterestClustering("color", model=model).fit([PillowImage.open(buffer)])
    assert sizes == [(20, 30)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "got none"),
        ("photos", "a list of images is needed, got 'photos'"),
        (b"one picture", "got a bytes"),
        (7, "got a int"),
        ([np.zeros((4, 4, 3), np.uint8), None], "got None at position 1"),
        ([np.zeros((4, 4, 3))], "got float64 of shape"),
        ([np.zeros((3, 8, 8), np.uint8)], r"shape \(3, 8, 8\) at position 0"),
        (np.zeros((5, 2)), "position 0"),
        ([b"no picture"], "none of the 1 images is one"),
        ([b"x", "a.png"], "a path at position 1 among pictures"),
        (["a.png", float("nan")], "got a float at position 1"),
        (["https://me:word@host/a.png"], r"got the address https://host/a.png: write .* list.txt"),
        ({"a.png", "b.png"}, r"got a set: pass a list"),
    ],
)
def test_what_is_no_picture_is_named(given: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        InterestClustering("color", model=ByPixels()).fit(given)


def test_embeddings_probabilities_and_graph_are_in_the_order_given(tmp_path: Path) -> None:
    made, _ = pictures()
    files = [*saved(tmp_path / "pictures", made), tmp_path / "missing.png"]
    found = InterestClustering("color", model=ByPixels()).fit(files)
    assert found.embeddings_.shape == (19, 64) and np.isnan(found.embeddings_[-1]).all()
    lengths = np.linalg.norm(found.embeddings_[:-1], axis=1)
    assert np.allclose(lengths, 1)
    assert found.probabilities_[-1] == 0 and (found.probabilities_[:-1] > 0.5).all()
    dense = found.graph_.toarray()
    assert dense.shape == (19, 19) and (dense == dense.T).all() and not dense[-1].any() and not dense.diagonal().any()
    weights = 1 / (1 + np.exp(-(8 * found.embeddings_[:-1] @ found.embeddings_[:-1].T - 4)))
    np.fill_diagonal(weights, 0)
    assert np.allclose(dense[:-1, :-1], np.where(weights >= 0.6, weights, 0), atol=0.002)


def test_new_pictures_go_where_those_like_them_are_for_one_look_each(tmp_path: Path) -> None:
    made, colors = pictures()
    model = ByPixels()
    kinds = InterestClustering("color", model=model).fit([m for m, c in zip(made, colors, strict=True) if c != "blue"])
    before = kinds.labels_.copy()
    model.calls.clear()
    new, truth = [PillowImage.new("RGB", (50, 50 + n), COLORS[c]) for n, c in enumerate(COLORS)], list(COLORS)
    labels = kinds.predict([*new, PillowImage.new("RGB", (50, 50), COLORS["red"])])
    named = [kinds.cluster_names_[label] if label >= 0 else "none" for label in labels]
    assert named == ["red", "green", "none", "red"], truth
    assert dict(model.calls) == {"look": 3}, "equal pictures are looked at once"
    assert (kinds.labels_ == before).all()


def test_transform_gives_new_pictures_the_embeddings_of_their_looks() -> None:
    made, colors = pictures()
    found = InterestClustering("color", model=ByPixels())
    assert (found.fit_transform(made) == found.embeddings_).all()
    new = found.transform([PillowImage.new("RGB", (9, 9), COLORS["red"]), b"broken"][:1])
    nearest = (found.embeddings_ @ new[0]).argmax()
    assert colors[nearest] == "red"


def test_an_estimator_that_is_not_fitted_says_so() -> None:
    estimator = InterestClustering("color", model=ByPixels())
    for ask in (estimator.predict, estimator.transform, lambda _: estimator.graph_):
        with pytest.raises(NotFittedError, match="call fit first"):
            ask(pictures()[0])


APPLICABLE = (
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
)
"""The others fit numbers."""


@pytest.mark.parametrize("check", APPLICABLE)
def test_scikit_learns_checks_hold(check: str) -> None:
    getattr(estimator_checks, check)("InterestClustering", InterestClustering())


@pytest.mark.exports
def test_columns_of_pandas_and_data_sets_are_read(tmp_path: Path) -> None:
    pandas, datasets = pytest.importorskip("pandas"), pytest.importorskip("datasets")
    made, colors = pictures()
    files = list(map(str, saved(tmp_path / "pictures", made)))
    table = pandas.DataFrame({"file": files, "color": colors})
    rows = datasets.Dataset.from_dict({"photo": files}).cast_column("photo", datasets.Image())
    streamed = rows.to_iterable_dataset()
    for given in (
        table["file"],
        rows["photo"],
        rows,
        streamed,
        rows.cast_column("photo", datasets.Image(decode=False))["photo"],
    ):
        found = InterestClustering("color", model=ByPixels()).fit(given)
        assert [found.cluster_names_[label] for label in found.labels_] == colors
    with pytest.raises(UsageError, match=r"got all of 'train': pass one"):
        InterestClustering("color").fit(datasets.DatasetDict({"train": rows}))
    with pytest.raises(UsageError, match="a table with 'file', 'color'"):
        InterestClustering("color").fit(table)
    with pytest.raises(UsageError, match="one column of images"):
        InterestClustering("color").fit(datasets.Dataset.from_dict({"file": files}))


def test_labels_are_0_to_k_though_ids_go_on_across_runs(tmp_path: Path) -> None:
    made, colors = pictures()
    files = [tmp_path / f"{number}.png" for number in range(len(made))]
    for file, picture in zip(files, made, strict=True):
        picture.save(file)
    for n_clusters in (1, 2, None):
        fitted = InterestClustering("color", model=ByPixels(), out=tmp_path / "run", n_clusters=n_clusters).fit(files)
        assert set(fitted.labels_.tolist()) == set(range(len(fitted.cluster_names_)))
    assert [fitted.cluster_names_[label] for label in fitted.labels_] == colors
