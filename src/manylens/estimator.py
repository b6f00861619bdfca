"""`InterestClustering`: manylens with scikit-learn's conventions.

In: a list of image files. Out: integer labels in the order of the list, -1 for what is in no cluster. Promise: files
are only read; without `out` nothing stays on the disk. scikit-learn (extra `[sklearn]`) is used where it is installed
and not needed where it is not: it would be a seventh of the base install.
"""

from __future__ import annotations

import inspect
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from manylens.api import cluster
from manylens.collection.find import NO_IMAGE
from manylens.errors import UsageError
from manylens.models.base import Model
from manylens.results.result import Result
from manylens.settings import Level, ModelOptions, Settings

try:
    from sklearn.base import BaseEstimator, ClusterMixin
except ImportError:

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
    temporary one.

    After `fit`: labels_ (n,) int64, -1 where unassigned or unreadable, clusters by falling number of
    distinct images. cluster_names_ and definitions_: lists, by label. confidence_ (n,) float64 in [0, 1].
    unreadable_: {position: reason}.
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
    ) -> None:
        self.by = by
        self.model = model
        self.options = options
        self.settings = settings
        self.level = level
        self.n_clusters = n_clusters
        self.into = into
        self.out = out

    def fit(self, X: Sequence[str | os.PathLike[str]], y: object = None) -> Self:
        """Cluster the files X; y is ignored.

        Raises UsageError where X is no list of files or none can be read, and where `by` is not one interest.
        """
        if not isinstance(self.by, str):
            raise UsageError(
                f"the estimator has one interest, a string, got {self.by!r}",
                'by="color"; manylens.cluster takes several in one run',
            )
        if isinstance(X, (str, os.PathLike)):
            raise UsageError(
                f"fit takes a list of image files, got {os.fspath(X)!r}", 'pass sorted(Path(folder).glob("*.jpg"))'
            )
        files = [Path(os.path.abspath(file)) for file in X]
        if not files:
            raise UsageError("fit needs at least one image file, got none", "pass a list of paths")
        try:
            folder = Path(os.path.commonpath([file.parent for file in files]))
        except ValueError:
            raise UsageError("fit takes files of one disk, got several disks", "fit each disk's files alone") from None
        names = [file.relative_to(folder).as_posix() for file in files]
        with tempfile.TemporaryDirectory(prefix="manylens-") as scratch:
            try:
                result = cluster(
                    folder,
                    self.by,
                    files=names,
                    model=self.model,
                    options=self.options,
                    out=self.out if self.out is not None else Path(scratch) / "run",
                    settings=self.settings,
                    level=self.level,
                    n_clusters=self.n_clusters,
                    into=self.into,
                )
            except UsageError as error:
                if folder.is_dir() and not error.rule.startswith(NO_IMAGE):
                    raise
                raise UsageError(  # not about a folder that nobody has named
                    f"fit needs at least one image, none of the {len(files):,} files is one, the first: {files[0]}",
                    error.hint,
                ) from None
        self._take(result, names, files)
        return self

    def _take(self, result: Result, names: Sequence[str], files: Sequence[Path]) -> None:
        (one,) = result.values()
        positions: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            positions.setdefault(name, []).append(index)
        decided = {a.image_id: a for a in one.clustering.assignments}
        labels: NDArray[np.int64] = np.full(len(names), -1, np.int64)
        confidence: NDArray[np.float64] = np.zeros(len(names))
        for image in result.collection.images:
            assignment = decided.get(image.id)
            if assignment is None or assignment.cluster is None:
                continue
            for path in image.paths:
                labels[positions[path]] = assignment.cluster - 1
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
        self.confidence_ = confidence
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
