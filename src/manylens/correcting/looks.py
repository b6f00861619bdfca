"""The looks that a clustering rests on, from the store of its run."""

from __future__ import annotations

from collections import Counter

import numpy as np

from manylens.method.observations import Looks, directions, normalise_description
from manylens.store.run_folder import RunFolder
from manylens.types import Clustering


def looks_held(run: RunFolder, clustering: Clustering) -> Looks:
    """The looks that a clustering rests on, from the store: of images that share another's look there is none."""
    held = run.looked(clustering.interest.text, clustering.identity)
    ids = [a.image_id for a in clustering.assignments if a.image_id in held]
    sizes = Counter(held[image_id].embedding.size for image_id in ids)
    width = max(sizes, key=lambda size: (sizes[size], size), default=0)
    ids = [image_id for image_id in ids if held[image_id].embedding.size == width]
    rows = np.array([held[image_id].embedding for image_id in ids], dtype=np.float32).reshape(len(ids), width)
    return Looks(
        interest=clustering.interest,
        image_ids=tuple(ids),
        descriptions=tuple(" ".join(held[image_id].description.split()) for image_id in ids),
        words=tuple(normalise_description(held[image_id].description) for image_id in ids),
        confidences=np.array([held[image_id].confidence for image_id in ids], dtype=np.float32),
        embeddings=directions(rows),
    )
