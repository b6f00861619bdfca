"""Models by name. A new kind of model is one file here and one line in `load_model`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from manylens.errors import UsageError
from manylens.images import ImageSource
from manylens.models.base import Model, ModelOptions
from manylens.models.nano import Nano
from manylens.store import FeatureShards

MODEL_NAMES = ("nano",)
OpenFeatures: TypeAlias = Callable[[str, str], FeatureShards]
"""(model name, model identity) -> the run's cache of that model's visual features."""


def check_model_name(spec: str) -> None:
    """Raises UsageError for a name nobody knows; loads nothing."""
    if spec not in MODEL_NAMES:
        raise UsageError(f"a model is known by its name, got {spec!r}", "pass --model nano, the embedded model")


def load_model(
    spec: str, images: ImageSource, open_features: OpenFeatures | None = None, options: ModelOptions | None = None
) -> Model:
    """The model that `--model spec` names. Raises UsageError for a name nobody knows."""
    check_model_name(spec)
    return Nano(images, open_features)
