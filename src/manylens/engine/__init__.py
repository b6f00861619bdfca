"""Who carries out many model calls: this process, or replicas of the model on the machines of a Ray cluster."""

from manylens.engine.base import ENGINES, Engine, LocalEngine, engine_named
from manylens.engine.ray_engine import RayEngine

__all__ = ["ENGINES", "Engine", "LocalEngine", "RayEngine", "engine_named"]
