"""COCO's JSON: every cluster of every interest is a category, its interest the supercategory.

In: a `RunTable`. Out: one file. Promise: an image is a file, and has one annotation for each interest that placed it,
as large as the picture; numbers are the same for equal runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from manylens.files import write_atomically
from manylens.results.exports.run_table import Exported, RunTable
from manylens.results.files import json_bytes


def write_coco(run: RunTable, path: Path) -> Exported:
    sizes = {image.id: (image.width_px, image.height_px) for image in run.collection.images}
    rows = run.tables[0].rows
    images = []
    for number, row in enumerate(rows, start=1):
        width, height = sizes[row.image_id]
        images.append({"id": number, "file_name": row.path, "width": width, "height": height})
    categories: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for table in run.tables:
        interest, first = table.clustering.interest.text, len(categories)
        numbers = {cluster.id: first + place for place, cluster in enumerate(table.clusters, start=1)}
        categories += [{"id": numbers[c.id], "name": c.name, "supercategory": interest} for c in table.clusters]
        for number, row in enumerate(table.rows, start=1):
            if row.cluster is None:
                continue
            width, height = sizes[row.image_id]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": numbers[row.cluster],
                    "bbox": [0, 0, width, height],
                    "area": width * height,
                    "segmentation": [],
                    "iscrowd": 0,
                    "score": round(row.confidence, 4),
                }
            )
    info = {"description": "manylens: " + ", ".join(table.clustering.interest.text for table in run.tables)}
    values = {"info": info, "images": images, "categories": categories, "annotations": annotations}
    write_atomically(path, json_bytes(values))
    return Exported(path, len(rows))
