"""The cache of visual features: append-only shards on the disk."""

from __future__ import annotations

import io
import json
import os
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manylens.files import check_resources, open_regular, own_folder, read_regular, write_atomically
from manylens.store.answers import Vector

_INDEX_NAMES = "[0-9][0-9][0-9][0-9]*.json"


class FeatureShards:
    """Visual features by image id, in append-only shards read through memory maps.

    A shard is its `.npy` and, written after it, the `.json` that names its rows: without the second it does not exist,
    so a kill between them loses that shard only. It is a cache: what is damaged is left out and computed again.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._guard = threading.Lock()
        self._shards: list[Vector] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._next_number = 0
        for index in _indexes(self.folder):
            self._next_number = max(self._next_number, int(index.stem) + 1)  # 10000 sorts before 9999
            shard = _open_shard(index.with_suffix(".npy"))
            ids, checksum = _read_index(index)
            same_shape = shard is not None and shard.shape[1:] == (self._shards[0] if self._shards else shard).shape[1:]
            whole = shard is not None and same_shape and len(shard) == len(ids)
            if shard is not None and whole and zlib.crc32(shard.data) == checksum:
                self._add(ids, shard)

    def _add(self, ids: Sequence[str], shard: Vector) -> None:
        self._places.update({image_id: (len(self._shards), row) for row, image_id in enumerate(ids)})
        self._shards.append(shard)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._places

    def append(self, ids: Sequence[str], features: NDArray[Any]) -> None:
        """Store features (n, ...) of n images as float16, on the disk when this returns. Known images are skipped."""
        if len(ids) != len(features):
            raise ValueError(f"one row per image: got {len(ids)} ids and {len(features)} rows")
        with self._guard:
            rows = {image_id: row for row, image_id in enumerate(ids) if image_id not in self._places}
            if not rows:
                return
            shard = np.ascontiguousarray(np.asarray(features)[list(rows.values())], np.float16)
            if self._shards and self._shards[0].shape[1:] != shard.shape[1:]:
                had, got = self._shards[0].shape[1:], shard.shape[1:]
                raise ValueError(f"features of one model have one shape, {had}, got {got}")
            own_folder(self.folder.parent)
            path = own_folder(self.folder) / f"{self._next_number:04d}.npy"
            write_atomically(path, _npy_bytes(shard))
            index = {"ids": list(rows), "checksum": zlib.crc32(shard.data)}
            write_atomically(path.with_suffix(".json"), json.dumps(index))
            self._next_number += 1
            mapped = _open_shard(path)
            self._add(list(rows), shard if mapped is None else mapped)

    def get(self, ids: Sequence[str]) -> Vector:
        """Features (n, ...) float16 in the order of `ids`. Raises KeyError for an image that has none."""
        places = [self._places[image_id] for image_id in ids]
        if not places:
            return np.zeros((0, *(self._shards[0].shape[1:] if self._shards else ())), np.float16)
        result = np.empty((len(places), *self._shards[0].shape[1:]), np.float16)
        for row, (shard, place) in enumerate(places):
            result[row] = self._shards[shard][place]
        return result

    @staticmethod
    def damaged(folder: Path) -> list[Path]:
        """Shards whose content does not match their index."""
        found = []
        for index in _indexes(folder):
            shard = _open_shard(index.with_suffix(".npy"))
            if shard is None or zlib.crc32(shard.data) != _read_index(index)[1]:
                found.append(index.with_suffix(".npy"))
        return found


def _indexes(folder: Path) -> list[Path]:
    try:
        found = sorted(folder.glob(_INDEX_NAMES))
    except OSError as error:
        check_resources(error)
        raise
    return [index for index in found if index.stem.isdecimal()]  # not what somebody put beside them


def _read_index(path: Path) -> tuple[list[str], int]:
    """The image ids of a shard's rows and its checksum; no rows and -1 where the index is damaged."""
    try:
        content = json.loads(read_regular(path))
        return list(map(str, content["ids"])), int(content["checksum"])
    except OSError as error:
        check_resources(error)
        return [], -1
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return [], -1


def _npy_bytes(array: Vector) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _open_shard(path: Path) -> Vector | None:
    """The shard through a memory map, or None where it is missing or damaged."""
    try:
        open_regular(path, follow=False).close()
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        check_resources(error)
        return None
    except (ValueError, TypeError, EOFError, OverflowError, RecursionError, MemoryError):
        return None
    return shard if shard.dtype == np.float16 else None
