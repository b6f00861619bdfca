"""exports.fiftyone_dataset: FiftyOne itself writes the dataset, reads it back and finds every label."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_notebook import sort

import manylens
from manylens.errors import ManylensError

HAS_FIFTYONE = importlib.util.find_spec("fiftyone") is not None
HAS_MOCK = importlib.util.find_spec("mongomock") is not None


def test_without_fiftyone_there_is_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sort(tmp_path)
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(ManylensError, match=r"pip install 'manylens\[fiftyone\]'"):
        manylens.export(tmp_path / "run", "fiftyone")


CHECK = """
import sys, tempfile
from pathlib import Path
import fiftyone_without_mongod
fo = fiftyone_without_mongod.start()
import manylens, numpy
from manylens.errors import UsageError
from test_notebook import sort

place = Path(sys.argv[1])
result = sort(place)
labels = result["kind of color"].labels
done = manylens.export(result, "fiftyone")
assert (done.files, done.left, str(done.path)) == (13, (), "run"), done

def check(dataset):
    found = {sample["path"]: sample["kind_of_color"] and sample["kind_of_color"].label for sample in dataset}
    assert found == labels, found
    for sample in dataset:
        assert Path(sample.filepath).is_file() and sample.metadata.width > 0
        assert abs(numpy.linalg.norm(sample["kind_of_color_embedding"]) - 1) < 1e-3
    clusters = dataset.info["manylens"][0]["clusters"]
    assert dataset.classes["kind_of_color"] == [cluster["name"] for cluster in clusters]
    views = {name.partition(": ")[2]: name for name in dataset.list_saved_views()}
    loose = dataset.load_saved_view(views["in no cluster"])
    assert [sample["path"] for sample in loose] == [path for path, name in labels.items() if name is None]
    sure = dataset.load_saved_view(views["least sure first"])
    confidences = [sample["kind_of_color"].confidence for sample in sure]
    assert confidences == sorted(confidences) and len(confidences) == 12
    assert "a group for each cluster" in views

dataset = fo.load_dataset("run")
assert dataset.persistent
check(dataset)
import fiftyone.brain
index = fiftyone.brain.compute_similarity(
    dataset, embeddings="kind_of_color_embedding", brain_key="like", backend="sklearn"
)
assert index.total_index_size == 13
try:
    manylens.export(result, "fiftyone")
except UsageError as error:
    assert "FiftyOne has a dataset 'run'" in str(error)
else:
    raise AssertionError("a dataset was overwritten")
before = fo.list_datasets()
done = manylens.export(result, "fiftyone", dest=place / "on disk")
assert fo.list_datasets() == before
check(fo.Dataset.from_dir(dataset_dir=str(place / "on disk"), dataset_type=fo.types.FiftyOneDataset))
print("every label found")
"""


@pytest.mark.exports
@pytest.mark.skipif(not (HAS_FIFTYONE and HAS_MOCK), reason="needs fiftyone and mongomock: make test-exports")
def test_fiftyone_reads_back_labels_embeddings_and_views(tmp_path: Path) -> None:
    """In a process of its own: FiftyOne connects to a database as it is imported, and here to one in memory."""
    root = Path(__file__).parents[1]
    paths = os.pathsep.join([str(root), str(root / "src"), str(root / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(tmp_path)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONPATH": paths, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert "every label found" in done.stdout, done.stderr[-3000:]
