"""A checkpoint on the disk: found, checked and hashed before anything of it is loaded.

In: a folder, or the id of a repository on the Hugging Face hub. Out: a `Checkpoint`. Promise: what cannot work is said
here, before a picture is read, with the cure.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manylens.errors import ModelUnavailable, UsageError
from manylens.files import read_regular

DIALECT_FILE = "manylens.json"
"""Beside an adapter that `manylens tune` wrote: beta and b of the edge weight."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LOADED_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".txt", ".npy", ".py")
_OLDER_WEIGHTS = (".bin", ".pt", ".pth")
"""Read by transformers only where there are no safetensors."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """folder: of config.json and weights. adapter: a LoRA adapter's folder, or None. device, dtype: torch's names.
    edge_scale, edge_offset: beta and b, if known."""

    folder: Path
    adapter: Path | None
    device: str
    dtype: str
    edge_scale: float | None = None
    edge_offset: float | None = None

    def digest(self) -> str:
        """SHA-256 over names and contents of all files that shape an answer, 32 hex digits."""
        digest = hashlib.sha256()
        for folder in [self.folder, *([self.adapter] if self.adapter is not None else [])]:
            for file in _files(folder):
                digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
                with file.open("rb") as stream:
                    digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()[:32]


def _files(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    has_safetensors = any(file.suffix == ".safetensors" for file in files)
    suffixes = _LOADED_SUFFIXES if has_safetensors else _LOADED_SUFFIXES + _OLDER_WEIGHTS
    return [file for file in files if file.suffix in suffixes]


def find_checkpoint(source: str, device: str | None = None, adapter: str | None = None) -> Checkpoint:
    """The checkpoint in a folder, or of a hub id (downloaded once into the hub's own cache).

    Raises UsageError for what is not there, ModelUnavailable for what cannot be run.
    """
    check_source(source)
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise missing_extra(package)
    # Read when torch is imported. Spinning threads starve each other where cores are shared: looks .6 -> 2.3 a second.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    folder = _folder(source)
    _check_kind(folder, source)
    place, dtype = _device(device)
    adapter_folder = None if adapter is None else _adapter(adapter)
    dialect = _dialect(folder)
    if adapter_folder is not None:
        dialect |= _dialect(adapter_folder)
    return Checkpoint(
        folder,
        adapter_folder,
        place,
        dtype,
        dialect.get("edge_scale"),
        dialect.get("edge_offset"),
    )


def check_source(source: str) -> None:
    """Raises UsageError for what is neither a folder nor may be a hub id; loads and asks nothing."""
    folder = Path(source).expanduser()
    if not folder.is_dir() and (folder.exists() or not _HUB_ID.fullmatch(source)):
        raise UsageError(
            f"a checkpoint is a folder or a hub id like org/name, got {source!r}",
            "pass --model hf:FOLDER, or an id of the hub",
        )


def _folder(source: str) -> Path:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    patterns = [f"*{suffix}" for suffix in _LOADED_SUFFIXES if suffix != ".py"]
    try:
        return Path(snapshot_download(source, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises the classes of three libraries
        said = single_line(error)
    raise UsageError(
        f"there is no folder {source!r} here, and the hub does not give a checkpoint of that name ({said})",
        "check the spelling and the network; for a private one, log in with the hub's own client",
    )


def _check_kind(folder: Path, source: str) -> None:
    try:
        config: dict[str, Any] = json.loads(read_regular(folder / "config.json", follow=True))
        kind = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        hint = "pass the folder that holds it"
        if (folder / "adapter_config.json").is_file():
            hint = "this is an adapter: pass --model hf:BASE --adapter FOLDER"
        raise UsageError(f"a checkpoint has a config.json with a model_type, {source!r} has none", hint) from None
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ModelUnavailable(
            f"a model must take pictures and write text, {source!r} is a {kind!r}",
            "use an image-text-to-text checkpoint; a newer transformers may know more: pip install -U transformers",
        )


def _device(wanted: str | None) -> tuple[str, str]:
    """The device and the number format: bfloat16 on a GPU that has it, else float32."""
    import torch

    place = wanted or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(place)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        said = single_line(error)
        raise UsageError(f"--device is a device of this computer, got {place!r} ({said})", "leave it out") from None
    short = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return place, "bfloat16" if short else "float32"


def _adapter(adapter: str) -> Path:
    folder = Path(adapter).expanduser()
    if not (folder / "adapter_config.json").is_file():
        raise UsageError(
            f"--adapter is a folder with adapter_config.json, got {adapter!r}", "pass the folder that training wrote"
        )
    if importlib.util.find_spec("peft") is None:
        raise ModelUnavailable("an adapter needs the package peft, it is not installed", "pip install 'manylens[tune]'")
    return folder


def _dialect(folder: Path) -> dict[str, Any]:
    file = folder / DIALECT_FILE
    if not file.is_file():
        return {}
    try:
        values: dict[str, Any] = json.loads(read_regular(file, follow=True))
        if values.get("dialect", "chat") != "chat":
            raise ValueError("it is of the nano of manylens 0.1, which wrote its descriptions")
        return values
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelUnavailable(
            f"{DIALECT_FILE} says how a checkpoint is asked, that in {folder} cannot be read ({single_line(error)})",
            "tune anew; a checkpoint needs no such file",
        ) from None


def single_line(error: BaseException, most_characters: int = 200) -> str:
    """The first line of an error from another library, for a message of ours."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:most_characters]


def missing_extra(package: str) -> ModelUnavailable:
    """The error for a package of the extra `[local]` that is not there."""
    return ModelUnavailable(
        f"Hugging Face checkpoints need the package {package}, it is not installed",
        "pip install 'manylens[local]'",
    )
