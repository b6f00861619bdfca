"""`InterestClustering`: manylens with scikit-learn's conventions.

In: a list of images: paths, PIL images, arrays, bytes, or a column of those. Out: integer labels in the order of the
list, -1 for what is in no cluster. Promise: files are only read; without `out` nothing stays on the disk. scikit-learn
(extra `[sklearn]`) is used where it is installed and not needed where it is not: it would be a seventh of the base
install.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from manylens.api import cluster, describe
from manylens.collection.find import NO_IMAGE, Collection
from manylens.collection.given import GivenFiles, as_files
from manylens.errors import UsageError
from manylens.method.graph import build_graph, edge_weight
from manylens.models.base import Model
from manylens.results.result import Result
from manylens.settings import Level, ModelOptions, Settings
from manylens.store.run_folder import RunFolder

try:
    from sklearn.base import BaseEstimator, ClusterMixin
    from sklearn.exceptions import NotFittedError as _NotFittedError
except ImportError:

    class _NotFittedError(ValueError, AttributeError):  # type: ignore[no-redef]
        """As scikit-learn's own."""

    class BaseEstimator:  # type: ignore[no-redef]
        """Parameters as scikit-learn's own class handles them."""

        def get_params(self, deep: bool = True) -> dict[str, Any]:
            return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

        def set_params(self, **params: Any) -> Self:
            known = self.get_params()
            for name, value in params.items():
                if name not in known:
                    raise ValueError(f"a parameter is one of {', '.join(known)}, got {name!r}")
                setattr(self, name, value)
            return self

    class ClusterMixin:  # type: ignore[no-redef]
        def fit_predict(self, X: Any, y: object = None) -> Any:
            return self.fit(X).labels_  # type: ignore[attr-defined]


class InterestClustering(ClusterMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Cluster image files by an interest in plain words.

    by: the interest. model: a name or a `Model`. options: of a named model (`ModelOptions`): its server's address, for
    one. settings: `Settings`, or None for the defaults. level, n_clusters, into: of these, said alone. out: a run
    folder to keep and continue, which names the files by their paths in the folder that holds them all; or None for a
    temporary one. progress: as for `manylens.cluster`.

    After `fit`: labels_ (n,) int64, -1 where unassigned or unreadable, clusters by falling number of
    distinct images. cluster_names_ and definitions_: lists, by label. probabilities_ (n,) float64 in [0, 1]: that the
    image belongs where it is; confidence_ is the same. embeddings_ (n, d) float32, rows of unit length, NaN where an
    image was not described. graph_: the relational graph, (n, n). unreadable_: {position: reason}.
    """

    def __init__(
        self,
        by: str = "main subject",
        *,
        model: str | Model = "nano",
        options: ModelOptions | None = None,
        settings: Settings | None = None,
        level: Level | None = None,
        n_clusters: int | None = None,
        into: Sequence[str] | None = None,
        out: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
    ) -> None:
        self.by = by
        self.model = model
        self.options = options
        self.settings = settings
        self.level = level
        self.n_clusters = n_clusters
        self.into = into
        self.out = out
        self.progress = progress

    def fit(self, X: Any, y: object = None) -> Self:
        """Cluster the images X; y is ignored. X: paths, PIL images, uint8 arrays (height, width) or (height, width, 3
        or 4), encoded bytes, a pandas column of those, or a Hugging Face data set with one column of images.

        Raises UsageError where X is no such list or none can be read, and where `by` is not one interest.
        """
        if not isinstance(self.by, str):
            raise UsageError(
                f"the estimator has one interest, a string, got {self.by!r}",
                'by="color"; manylens.cluster takes several in one run',
            )
        with tempfile.TemporaryDirectory(prefix="manylens-") as scratch:
            given = as_files(X, Path(scratch) / "pictures")
            out = Path(self.out) if self.out is not None else Path(scratch) / "run"
            with _about(given):
                result = cluster(
                    given.folder,
                    self.by,
                    files=given.names,
                    model=self.model,
                    options=self.options,
                    out=out,
                    settings=self.settings,
                    level=self.level,
                    n_clusters=self.n_clusters,
                    into=self.into,
                    progress=self.progress,
                )
            self._take(result, given)
            with RunFolder.open(out) as run:
                ((interest, found),) = result.items()
                vectors = run.embeddings(interest, found.clustering.identity)
        self.embeddings_ = _in_order(given, result.collection, vectors)
        self._edge = result.edge
        return self

    def fit_transform(self, X: Any, y: object = None) -> NDArray[np.float32]:
        """`fit`, then its embeddings_: no image is looked at twice."""
        return self.fit(X).embeddings_

    def transform(self, X: Any) -> NDArray[np.float32]:
        """The embeddings of other images through the interest, (n, d) float32 of unit length, NaN where one cannot be
        read or described. Costs one look an image, and changes nothing. Raises as `fit` does; X as for `fit`."""
        self._check_is_fitted()
        with tempfile.TemporaryDirectory(prefix="manylens-") as scratch:
            given = as_files(X, Path(scratch) / "pictures")
            with _about(given):
                looks, collection = describe(
                    given.folder,
                    self.by,
                    given.names,
                    model=self.model,
                    options=self.options,
                    progress=self.progress,
                )
            vectors = dict(zip(looks.image_ids, looks.embeddings, strict=True))
            return _in_order(given, collection, vectors, dimensions=self.embeddings_.shape[1])

    def predict(self, X: Any) -> NDArray[np.int64]:
        """The cluster of other images, (n,) int64: the one whose members' mean embedding is nearest, of those with a
        member that would be a neighbor in the graph (its edge weighs at least tau); -1 where there is none.

        Costs one look an image, and changes nothing: for a whole answer, `fit` all images in the same `out`.
        """
        found = self.transform(X)
        labels: NDArray[np.int64] = np.full(len(found), -1, np.int64)
        members = [self.embeddings_[self.labels_ == label] for label in range(len(self.cluster_names_))]
        members = [rows[np.isfinite(rows).all(axis=1)] for rows in members]
        tau = (self.settings or Settings()).tau
        for row, vector in enumerate(found):
            similarities = [rows @ vector for rows in members]
            near = [
                (float(each.mean()), -label)
                for label, each in enumerate(similarities)
                if each.size and edge_weight(float(each.max()), *self._edge) >= tau
            ]
            if near:
                labels[row] = -max(near)[1]
        return labels

    @property
    def graph_(self) -> Any:
        """The relational graph of the images: `scipy.sparse.csr_matrix` (n, n) float32, symmetric; entries are edge
        weights in [tau, 1), of an image's strongest `Settings.neighbors` at least. The method walks the same relation,
        with images of one description as one node.

        Raises UsageError without scipy.
        """
        self._check_is_fitted()
        try:
            from scipy.sparse import csr_matrix
        except ImportError:
            raise UsageError(
                "the graph is a sparse matrix of scipy's, which is not installed", "pip install scipy"
            ) from None
        settings = self.settings or Settings()
        known = np.flatnonzero(np.isfinite(self.embeddings_).all(axis=1))
        graph = build_graph(self.embeddings_[known], *self._edge, tau=settings.tau, neighbors=settings.neighbors)
        rows = np.repeat(known, np.diff(graph.indptr))
        shape = (len(self.labels_), len(self.labels_))
        return csr_matrix((graph.weights, (rows, known[graph.indices])), shape=shape)

    def _check_is_fitted(self) -> None:
        if not hasattr(self, "embeddings_"):
            raise _NotFittedError("an estimator is fitted before it is asked, this one is not: call fit first")

    def _take(self, result: Result, given: GivenFiles) -> None:
        names, files = given.names, given.files
        (one,) = result.values()
        positions: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            positions.setdefault(name, []).append(index)
        decided = {a.image_id: a for a in one.clustering.assignments}
        number = {cluster.id: at for at, cluster in enumerate(one.clusters)}
        labels: NDArray[np.int64] = np.full(len(names), -1, np.int64)
        confidence: NDArray[np.float64] = np.zeros(len(names))
        for image in result.collection.images:
            assignment = decided.get(image.id)
            if assignment is None or assignment.cluster is None:
                continue
            for path in image.paths:
                labels[positions[path]] = number[assignment.cluster]
                confidence[positions[path]] = assignment.confidence
        reasons = {index: file.reason for file in result.unreadable for index in positions[file.path]}
        reasons |= {index: "no such file" for index, file in enumerate(files) if not os.path.lexists(file)}
        reasons |= {index: "a folder, not a file" for index, file in enumerate(files) if file.is_dir()}
        seen = {path for image in result.collection.images for path in image.paths}
        left = {index for index, name in enumerate(names) if name not in seen} - set(reasons)
        reasons |= dict.fromkeys(left, "not an image")
        if not result.collection.images:
            raise UsageError(
                f"fit needs at least one image that can be read, got {len(files):,} files, the first: {reasons[0]}",
                "check the paths",
            )
        self.labels_ = labels
        self.confidence_ = self.probabilities_ = confidence
        self.cluster_names_ = [c.name for c in one.clusters]
        self.definitions_ = [c.definition for c in one.clusters]
        self.unreadable_ = dict(sorted(reasons.items()))
        self.n_features_in_ = 1

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.no_validation = True
        return tags


def _in_order(
    given: GivenFiles, collection: Collection, vectors: Mapping[str, NDArray[Any]], dimensions: int = 0
) -> NDArray[np.float32]:
    """The embeddings in the order given."""
    width = next((len(vector) for vector in vectors.values()), dimensions)
    ids = {path: image.id for image in collection.images for path in image.paths}
    rows: NDArray[np.float32] = np.full((len(given.names), width), np.nan, np.float32)
    for row, name in enumerate(given.names):
        vector = vectors.get(ids.get(name, ""))
        if vector is not None:
            whole = vector.astype(np.float32)
            rows[row] = whole / np.linalg.norm(whole)
    return rows


@contextlib.contextmanager
def _about(given: GivenFiles) -> Iterator[None]:
    """What is wrong with a folder that nobody has named, in words about what was given."""
    try:
        yield
    except UsageError as error:
        if given.folder.is_dir() and not error.rule.startswith(NO_IMAGE):
            raise
        first = "" if given.is_held else f", the first: {given.files[0]}"
        what = "images" if given.is_held else "files"
        raise UsageError(
            f"at least one image is needed, none of the {len(given.names):,} {what} is one{first}", error.hint
        ) from None
