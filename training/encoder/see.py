"""What eyes.onnx sees of the packed pictures that nothing was trained on: positions and pooled features, kept in a file.

    python see.py --data packed --eyes eyes.onnx --out seen.npz [--left-out] [--taught 100]

Rows: the held-out part; with --left-out also up to 700 of each set that such a run leaves out. With --taught so many of
each set that was trained on instead, for the model of what it knows (`make_bank.py`).
"""

from __future__ import annotations

import argparse
import io
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image
from tasks import LEFT_OUT, Corpus

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "eyes", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--left-out", action="store_true")
    parser.add_argument("--taught", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    corpus = Corpus.read(options.data)
    rows = set(np.flatnonzero(corpus.valid).tolist())
    left_out = {key.split(".")[0] for key in LEFT_OUT} if options.left_out else set()
    if options.taught:
        rows = set()
        for number, name in enumerate(corpus.sets):
            own = np.flatnonzero((corpus.set_of == number) & ~corpus.valid)
            if name not in left_out:
                rows |= set(np.random.default_rng(1).permutation(own)[: options.taught].tolist())
    else:
        for name in left_out:
            own = np.flatnonzero(corpus.set_of == corpus.sets.index(name))
            rows |= set(np.random.default_rng(0).permutation(own)[:700].tolist())
    order = np.asarray(sorted(rows))
    shards = {k: np.memmap(options.data / f"shard-{k}.bin", np.uint8, "r") for k in np.unique(corpus.where[:, 0])}
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(str(options.eyes), settings, providers=["CPUExecutionProvider"])
    side = session.get_inputs()[0].shape[1]

    def decode(row: int) -> np.ndarray:
        shard, at, size = corpus.where[row]
        with Image.open(io.BytesIO(shards[shard][at : at + size].tobytes())) as opened:
            return np.asarray(opened.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))

    positions, pooled, began = [], [], time.time()
    with ThreadPoolExecutor(1) as pool:
        batches = [order[at : at + BATCH] for at in range(0, len(order), BATCH)]
        coming = pool.submit(lambda b: np.stack([decode(r) for r in b]), batches[0])
        for number, _ in enumerate(batches):
            pixels = coming.result()
            if number + 1 < len(batches):
                coming = pool.submit(lambda b: np.stack([decode(r) for r in b]), batches[number + 1])
            places, whole = session.run(None, {"pixels": pixels})
            positions.append(places.astype(np.float16))
            pooled.append(whole.astype(np.float16))
    print(f"{len(order)} pictures, {len(order) / (time.time() - began):.0f} a second")
    np.savez(options.out, rows=order, positions=np.concatenate(positions), pooled=np.concatenate(pooled))


if __name__ == "__main__":
    main()
