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
    from manylens.api import add, cluster, correct, export, plan, redo, resort, review, undo
    from manylens.correcting.corrector import Change
    from manylens.engine import RayEngine
    from manylens.errors import ManylensError
    from manylens.estimator import InterestClustering
    from manylens.explore import cross, preview, suggest
    from manylens.models.text_embedder import TextEmbedder
    from manylens.pipeline.plan import Plan
    from manylens.results.cross import CrossTable
    from manylens.results.exports.run_table import Exported
    from manylens.results.result import InterestResult, Result
    from manylens.results.sampled import Preview, Suggestions
    from manylens.settings import ModelOptions, Settings
    from manylens.types import Correction
    from manylens.watching import watch

__version__ = "0.1.0"

__all__ = [
    "Change",
    "Correction",
    "CrossTable",
    "Exported",
    "InterestClustering",
    "InterestResult",
    "ManylensError",
    "ModelOptions",
    "Plan",
    "Preview",
    "RayEngine",
    "Result",
    "Settings",
    "Suggestions",
    "TextEmbedder",
    "__version__",
    "add",
    "cluster",
    "correct",
    "cross",
    "export",
    "plan",
    "preview",
    "redo",
    "resort",
    "review",
    "suggest",
    "undo",
    "watch",
]

_HOMES = {
    "Change": "correcting.corrector",
    "Correction": "types",
    "CrossTable": "results.cross",
    "Exported": "results.exports.run_table",
    "InterestClustering": "estimator",
    "InterestResult": "results.result",
    "ManylensError": "errors",
    "ModelOptions": "settings",
    "Plan": "pipeline.plan",
    "Preview": "results.sampled",
    "RayEngine": "engine",
    "Result": "results.result",
    "Settings": "settings",
    "Suggestions": "results.sampled",
    "TextEmbedder": "models.text_embedder",
    "add": "api",
    "cluster": "api",
    "correct": "api",
    "cross": "explore",
    "export": "api",
    "plan": "api",
    "preview": "explore",
    "redo": "api",
    "resort": "api",
    "review": "api",
    "suggest": "explore",
    "undo": "api",
    "watch": "watching",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"manylens.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'manylens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
