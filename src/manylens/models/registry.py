"""Models by name. A new kind of model is one file here and one branch in `load_model`.

nano                       the embedded model
nano:FOLDER                the same with other weights, as `training/` writes them
openai:NAME                a model of OpenAI, or of the server at --base-url
NAME with --base-url URL   the same, for any OpenAI-compatible server
hf:FOLDER, hf:ORG/NAME     an image-text-to-text checkpoint on this computer
NAME, NAME:REST            a model of another package, by its entry point NAME in the group `manylens.models`: a
                           callable that takes REST (or an empty text) and `ModelOptions`, and gives a model
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TypeAlias

from manylens.collection.pictures import ImageSource
from manylens.errors import ModelUnavailable, UsageError
from manylens.models.base import Model, ModelOptions, check_model, open_model
from manylens.models.huggingface.checkpoint import check_source, find_checkpoint
from manylens.models.huggingface.model import HF_PREFIX, HuggingFace
from manylens.models.nano.model import MODEL_FILES, Nano
from manylens.models.nano.trial import Grey, trial
from manylens.models.openai_compatible.model import OpenAICompatible
from manylens.models.openai_compatible.records import find_dialect, server_url
from manylens.store.feature_shards import FeatureShards

PLUGINS = "manylens.models"
OPENAI_PREFIX = "openai:"
NANO_PREFIX = "nano:"

OpenFeatures: TypeAlias = Callable[[str, str], FeatureShards]
"""(model name, model identity) -> the run's cache of that model's visual features."""


def check_model_name(spec: str, options: ModelOptions | None = None) -> None:
    """Raises UsageError for a name that stands for no model; loads nothing and asks nothing."""
    options = options or ModelOptions()
    if _is_served(spec, options):
        if not spec.removeprefix(OPENAI_PREFIX):
            raise UsageError("a model behind a server has a name, got none", "pass --model openai:NAME")
        server_url(options)
    elif spec.startswith(HF_PREFIX):
        check_source(spec.removeprefix(HF_PREFIX))
    elif options.adapter is not None:
        raise UsageError(
            f"--adapter belongs to an hf: checkpoint, got it with {spec!r}",
            "leave it out",
        )
    elif spec.startswith(NANO_PREFIX):
        find_nano(spec)
    elif spec != "nano" and _plugin(spec) is None:
        also = "".join(f", {name}" for name in sorted(entry_points(group=PLUGINS).names))
        raise UsageError(
            f"a model is known by its name, got {spec!r}",
            f"pass --model nano{also}, --model hf:FOLDER for a checkpoint, or --model NAME with --base-url URL for one "
            "behind a server",
        )


def load_model(
    spec: str,
    images: ImageSource,
    open_features: OpenFeatures | None = None,
    options: ModelOptions | None = None,
    *,
    recorded: Path | None = None,
) -> Model:
    """The model that `--model spec` names.

    recorded: the run's file of what was found out about models behind servers. Raises UsageError for a name nobody
    knows, ModelUnavailable for a model that cannot be used.
    """
    options = options or ModelOptions()
    check_model_name(spec, options)
    if _is_served(spec, options):
        return OpenAICompatible(spec, spec.removeprefix(OPENAI_PREFIX), images, options, recorded=recorded)
    if spec.startswith(HF_PREFIX):
        return HuggingFace(spec, images, options)
    if spec.startswith(NANO_PREFIX):
        folder = find_nano(spec)
        _try_nano(folder)
        return Nano(images, open_features, folder=folder, name=spec)
    if (plugin := _plugin(spec)) is not None:
        model: Model = plugin.load()(spec.partition(":")[2], options)
        check_model(model)
        open_model(model, images)
        return model
    return Nano(images, open_features)


def _plugin(spec: str) -> EntryPoint | None:
    """The entry point that a package has registered for this name."""
    return next(iter(entry_points(group=PLUGINS, name=spec.partition(":")[0])), None)


def _try_nano(folder: Path) -> None:
    """Raises ModelUnavailable where files that are there do not work as nano: they are anyone's."""
    problem = trial(folder)
    if problem:
        raise ModelUnavailable(
            f"nano:FOLDER is a folder with nano's files, those in {str(folder)!r} do not work ({problem})",
            "copy it again",
        )


def find_nano(spec: str) -> Path:
    """The folder of `nano:FOLDER`. Raises UsageError where nano's files are not in it."""
    folder = Path(spec.removeprefix(NANO_PREFIX)).expanduser()
    missing = [file for file in MODEL_FILES if not (folder / file).is_file()]
    if missing:
        raise UsageError(
            f"nano:FOLDER is a folder with nano's files, {str(folder)!r} lacks {', '.join(missing)}",
            "pass the folder that training/encoder wrote",
        )
    return folder


def doubt_of(spec: str, interest: str, options: ModelOptions) -> str:
    """Why a named model may not read the words of an interest, before it has any picture; empty where it does."""
    if _is_served(spec, options) or spec != "nano":  # files of somebody else are tried before they are loaded
        return ""
    return Nano(Grey()).doubt(interest)


def identity_start(spec: str, options: ModelOptions) -> str:
    """How the identity of a named model begins, by which answers of earlier runs are known as its."""
    if _is_served(spec, options):
        return f"{server_url(options)} {spec.removeprefix(OPENAI_PREFIX)}"
    kind = spec.partition(":")[0]
    return f"{kind}:" if kind in ("nano", "hf") else spec


def probe_model(spec: str, options: ModelOptions, recorded: Path) -> None:
    """Find out, before any picture is read, whether a model behind a server can be used; `load_model` then finds it in
    `recorded`. Raises ModelUnavailable where it cannot."""
    if _is_served(spec, options):
        find_dialect(spec.removeprefix(OPENAI_PREFIX), options, recorded)
    elif spec.startswith(HF_PREFIX):
        find_checkpoint(spec.removeprefix(HF_PREFIX), options.device, options.adapter)


async def close_model(model: Model) -> None:
    """Give back what a model holds of a network; it may be used again."""
    if isinstance(model, OpenAICompatible):
        await model.close()


def is_local(spec: str, options: ModelOptions) -> bool:
    """Whether a name stands for a model in this process; one that is not may cost money."""
    return not _is_served(spec, options)


def is_nano(spec: str, options: ModelOptions) -> bool:
    """Whether a name stands for nano, which is quick: it needs no server and no large checkpoint. A model behind a
    server may be called nano, too."""
    return is_local(spec, options) and spec.partition(":")[0] == "nano"


def _is_served(spec: str, options: ModelOptions) -> bool:
    return spec.startswith(OPENAI_PREFIX) or options.base_url is not None
