"""manylens: one image collection, many clusterings. Sort pictures by an interest said in plain words.

    import manylens
    result = manylens.cluster("photos/", by=["suit", "rank"])
    result["suit"].labels                                     # {path: cluster name or None}

Promise: importing this is quick. The names below are imported when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manylens.api import add, cluster, correct, export, plan, redo, resort, review, undo, watch
    from manylens.correcting.corrector import Change
    from manylens.engine import RayEngine
    from manylens.errors import ManylensError
    from manylens.estimator import InterestClustering
    from manylens.models.text_embedder import TextEmbedder
    from manylens.pipeline.plan import Plan
    from manylens.results.exports.run_table import Exported
    from manylens.results.result import InterestResult, Result
    from manylens.settings import ModelOptions, Settings
    from manylens.types import Correction

__version__ = "0.1.0"

__all__ = [
    "Change",
    "Correction",
    "Exported",
    "InterestClustering",
    "InterestResult",
    "ManylensError",
    "ModelOptions",
    "Plan",
    "RayEngine",
    "Result",
    "Settings",
    "TextEmbedder",
    "__version__",
    "add",
    "cluster",
    "correct",
    "export",
    "plan",
    "redo",
    "resort",
    "review",
    "undo",
    "watch",
]

_HOMES = {
    "Change": "correcting.corrector",
    "Correction": "types",
    "Exported": "results.exports.run_table",
    "InterestClustering": "estimator",
    "InterestResult": "results.result",
    "ManylensError": "errors",
    "ModelOptions": "settings",
    "Plan": "pipeline.plan",
    "RayEngine": "engine",
    "Result": "results.result",
    "Settings": "settings",
    "TextEmbedder": "models.text_embedder",
    "add": "api",
    "cluster": "api",
    "correct": "api",
    "export": "api",
    "plan": "api",
    "redo": "api",
    "resort": "api",
    "review": "api",
    "undo": "api",
    "watch": "api",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"manylens.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'manylens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
