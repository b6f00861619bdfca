"""A FiftyOne dataset (extra `[fiftyone]`): classifications, embeddings that similarity can use, and saved views.

In: a `RunTable`. Out: a persistent dataset in the person's FiftyOne, or, with a folder as the destination, the same in
FiftyOne's own form on disk, which `fiftyone.Dataset.from_dir` reads. Promises: FiftyOne itself writes it, so that it is
of the version that is installed; a dataset that is there is left alone; pictures stay where they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from manylens.errors import UsageError
from manylens.results.exports.run_table import Exported, RunTable, picture_files, prefix
from manylens.results.files import cluster_values
from manylens.results.table import FileTable
from manylens.text import printable

_TAKEN = {"id", "filepath", "tags", "metadata", "created_at", "last_modified_at", "media_type", "sha256", "group"}
"""Names of fields that a sample has already."""


def write_fiftyone(run: RunTable, name: str, folder: Path | None, pictures: Path) -> Exported:
    """name: of the dataset. folder: where to write it instead of into FiftyOne's database; new or empty. pictures:
    where pictures are written that are no files of their own.

    Fields: `<interest>` a classification with `cluster`, `decided_by` and `reason`, none where a file is in no cluster;
    `<interest>_state`; `<interest>_embedding`. Raises UsageError without FiftyOne, where its database cannot be
    reached, or where a dataset has that name.
    """
    fo = _fiftyone()
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"a data set is written into a new or empty folder, {folder} holds something",
            "name another destination, or delete it",
        )
    try:
        if folder is None and fo.dataset_exists(name):
            raise UsageError(
                f"nothing is overwritten, FiftyOne has a dataset {name!r}",
                f"delete it there (fiftyone datasets delete {name}), or write to a folder: a destination",
            )
        dataset = fo.Dataset(None if folder is not None else name, persistent=folder is None)
    except UsageError:
        raise
    except Exception as error:  # of several libraries: FiftyOne's, pymongo's, mongoengine's
        raise UsageError(
            f"FiftyOne needs its database, which cannot be reached ({printable(str(error)).splitlines()[0][:200]})",
            "see whether `fiftyone app launch` works; FIFTYONE_DATABASE_URI names a MongoDB of your own",
        ) from error
    try:
        files, left = picture_files(run, pictures)
        fields = {id(table): _field(table) for table in run.tables}
        dataset.info = {
            "manylens": [
                {
                    "interest": table.clustering.interest.text,
                    "field": fields[id(table)],
                    "clusters": cluster_values(table),
                }
                for table in run.tables
            ]
        }
        dataset.classes = {fields[id(table)]: [cluster.name for cluster in table.clusters] for table in run.tables}
        dataset.add_samples(list(_samples(fo, run, files, fields)), progress=False)
        for table in run.tables:
            _complete(fo, dataset, fields[id(table)], table)
        if folder is not None:
            dataset.export(
                export_dir=str(folder), dataset_type=fo.types.FiftyOneDataset, export_media=False, progress=False
            )
    except BaseException:
        dataset.delete()
        raise
    if folder is not None:
        dataset.delete()
    return Exported(folder or Path(name), len(files), left)


def _fiftyone() -> Any:
    try:
        import fiftyone
    except ImportError:
        raise UsageError(
            "a FiftyOne dataset needs FiftyOne, which is not installed", "pip install 'manylens[fiftyone]'"
        ) from None
    except Exception as error:  # it looks for its database as it is imported
        raise UsageError(
            f"FiftyOne cannot be used ({printable(str(error)).splitlines()[0][:200]})", "see whether it works by itself"
        ) from error
    return fiftyone


def _field(table: FileTable) -> str:
    name = prefix(table)
    return f"by_{name}" if name in _TAKEN or name.startswith("_") else name


def _samples(fo: Any, run: RunTable, files: dict[int, Path], fields: dict[int, str]) -> Iterator[Any]:
    sizes = {image.id: (image.width_px, image.height_px) for image in run.collection.images}
    for number, path in files.items():
        first = run.tables[0].rows[number]
        width, height = sizes[first.image_id]
        sample = fo.Sample(
            filepath=str(path),
            metadata=fo.ImageMetadata(width=width, height=height),
            sha256=first.image_id,
            path=printable(first.path),
        )
        for table in run.tables:
            row, field = table.rows[number], fields[id(table)]
            sample[f"{field}_state"] = row.state
            if row.cluster is not None:
                sample[field] = fo.Classification(
                    label=row.name,
                    confidence=row.confidence,
                    cluster=row.cluster,
                    decided_by=row.decided_by,
                    reason=printable(row.reason),
                )
            vector = run.embeddings[table.clustering.interest.text].get(row.image_id)
            if vector is not None:
                sample[f"{field}_embedding"] = vector.astype(np.float32)
        yield sample


def _complete(fo: Any, dataset: Any, field: str, table: FileTable) -> None:
    """Fields that no sample may have filled, and what a person looks at first."""
    if not dataset.has_sample_field(field):
        dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    if not dataset.has_sample_field(f"{field}_embedding"):
        dataset.add_sample_field(f"{field}_embedding", fo.VectorField)
    interest = table.clustering.interest.text
    placed = dataset.match(fo.ViewField(f"{field}_state") == "assigned")
    dataset.save_view(f"{interest}: least sure first", placed.sort_by(f"{field}.confidence"))
    dataset.save_view(f"{interest}: in no cluster", dataset.match(fo.ViewField(f"{field}_state") != "assigned"))
    dataset.save_view(f"{interest}: a group for each cluster", placed.group_by(f"{field}.label"))
