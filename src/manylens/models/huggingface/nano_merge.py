"""A tuned nano as ONNX files again: `--model nano:FOLDER` runs it like the embedded one, without torch.

In: nano's checkpoint, an adapter, and the files of a nano whose graphs are taken over. Out: a folder of the same files.
Promises: only weights change, never the graphs; a tensor that tuning did not touch keeps its bytes; no torch is needed.

A LoRA layer is W + alpha / r * B A. What changed is rounded to int8 as the graphs hold it: the decoder's matrices in
blocks of 64 along the input, the projector's with one scale per output.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manylens.errors import UsageError
from manylens.models.huggingface.nano_checkpoint import (
    DIALECT_FILE,
    HEAD_FILE,
    ZERO_CODE,
    FloatArray,
    decoder_matrices,
    missing_extra,
    packaged_files,
    projector_layers,
    stock_name,
)

_LORA = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")


def merge_into_nano(checkpoint: Path, adapter: Path, out: Path, folder: Path | None = None) -> None:
    """Write into `out` what `--model nano:OUT` reads: the weights of `checkpoint` with `adapter` merged into them.

    folder: whose graphs, words and tokenizer are taken, None for the packaged nano's; the checkpoint must be one that
    `write_checkpoint` made of it. An earlier `out` is replaced as a whole. Raises ModelUnavailable without `onnx`,
    UsageError for an adapter of another model.
    """
    try:
        import onnx
        from safetensors.numpy import load_file
    except ImportError as error:
        raise missing_extra(error.name or "onnx") from error
    folder = folder or packaged_files()
    weights = load_file(checkpoint / "model.safetensors")
    changed: dict[str, FloatArray] = {}
    for module, change in _changes(adapter, load_file(adapter / "adapter_model.safetensors")).items():
        name = f"{module}.weight"
        if name not in weights or weights[name].shape != change.shape:
            raise UsageError(f"an adapter of nano changes nano's layers, {adapter} has {module}", "pass nano's adapter")
        changed[name] = weights[name].astype(np.float32) + change
    head = adapter / HEAD_FILE
    changed["embedding_head.weight"] = np.load(head if head.is_file() else checkpoint / HEAD_FILE)

    vision = onnx.load(str(folder / "vision.onnx"))
    for name, node in projector_layers(vision.graph):
        if (wanted := changed.pop(_stock(name), None)) is not None:
            _put_columns(vision.graph, node.input[1], wanted.T)
    decoder = onnx.load(str(folder / "decoder.onnx"))
    for name, node in decoder_matrices(decoder.graph):
        if (wanted := changed.pop(_stock(name), None)) is not None:
            codes, scales = node.input[1:3]
            _put_blocks(decoder.graph, codes, scales, wanted)
    if changed:
        raise UsageError(f"an adapter of nano changes what nano's graphs hold, not {min(changed)}", "tune it anew")

    numbers: dict[str, Any] = json.loads((folder / "nano.json").read_text("utf-8"))
    dialect: dict[str, Any] = json.loads((adapter / DIALECT_FILE).read_text("utf-8"))
    numbers |= {name: dialect[name] for name in ("edge_scale", "edge_offset")}
    aside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    onnx.save(vision, str(aside / "vision.onnx"))
    onnx.save(decoder, str(aside / "decoder.onnx"))
    for file in ("words.npz", "tokenizer.json"):
        shutil.copyfile(folder / file, aside / file)
    (aside / "nano.json").write_text(json.dumps(numbers, indent=1) + "\n", "utf-8")
    shutil.rmtree(out, ignore_errors=True)
    aside.rename(out)


def _stock(name: str) -> str:
    return stock_name(name) or name


def _changes(adapter: Path, tensors: Mapping[str, NDArray[Any]]) -> dict[str, FloatArray]:
    """Module name -> alpha / r * B A, (out, in)."""
    config: dict[str, Any] = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    if config.get("peft_type") != "LORA" or config.get("use_rslora") or config.get("use_dora"):
        raise UsageError("a plain LoRA adapter can be merged into nano, this is another kind", "tune it anew")
    halves: dict[str, dict[str, FloatArray]] = {}
    for name, values in tensors.items():
        if (found := _LORA.fullmatch(name)) is None:
            raise UsageError(f"a LoRA adapter holds pairs of matrices, got {name}", "tune it anew")
        halves.setdefault(found["module"], {})[found["half"]] = values.astype(np.float32)
    changes: dict[str, FloatArray] = {}
    for module, of in halves.items():
        rank, alpha = len(of["A"]), config["lora_alpha"]
        for pattern, other in (config.get("alpha_pattern") or {}).items():
            if re.fullmatch(rf"(.*\.)?({pattern})", module):
                alpha = other
        changes[module] = alpha / rank * (of["B"] @ of["A"])
    return changes


def _find(tensors: Iterable[Any], name: str) -> Any:
    return next(tensor for tensor in tensors if tensor.name == name)


def _put_columns(graph: Any, name: str, wanted: FloatArray) -> None:
    """A matrix (in, out) with one scale per column, stored as `<name>_codes` and `<name>_scale`."""
    from onnx import numpy_helper

    codes, scale = (_find(graph.initializer, f"{name}_{part}") for part in ("codes", "scale"))
    if np.array_equal(numpy_helper.to_array(codes).astype(np.float32) * numpy_helper.to_array(scale), wanted):
        return
    new_codes, new_scale = quantize_columns(wanted)
    codes.CopyFrom(numpy_helper.from_array(new_codes, codes.name))
    scale.CopyFrom(numpy_helper.from_array(new_scale, scale.name))


def _put_blocks(graph: Any, codes_name: str, scales_name: str, wanted: FloatArray) -> None:
    """A matrix (out, in) of MatMulNBits: codes (out, blocks, 64) uint8, one scale per block."""
    from onnx import numpy_helper

    codes, scales = (_find(graph.initializer, name) for name in (codes_name, scales_name))
    old_codes, old_scales = (numpy_helper.to_array(tensor) for tensor in (codes, scales))
    blocks = wanted.reshape(old_codes.shape)
    old = (old_codes.astype(np.float32) - ZERO_CODE) * old_scales.reshape(*old_codes.shape[:2], 1)
    if np.array_equal(old, blocks):
        return
    new_codes, new_scales = quantize_blocks(blocks)
    codes.CopyFrom(numpy_helper.from_array(new_codes, codes.name))
    scales.CopyFrom(numpy_helper.from_array(new_scales.reshape(old_scales.shape), scales.name))


def quantize_columns(values: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """(in, out) -> int8 codes (in, out) and float32 scales (1, out), values = codes * scales."""
    scale = (np.maximum(np.abs(values).max(0, keepdims=True), 1e-12) / 127).astype(np.float32)
    return np.round(values / scale).astype(np.int8), scale


def quantize_blocks(blocks: FloatArray) -> tuple[NDArray[np.uint8], FloatArray]:
    """(out, blocks, width) -> uint8 codes of that shape and float32 scales (out, blocks), values = (codes - 128) *
    scales, as onnxruntime's MatMulNBits quantizer has it: the value of greatest magnitude is met exactly."""
    greatest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    scales = (greatest / -ZERO_CODE).astype(np.float32)
    steps = np.divide(blocks, scales, out=np.zeros_like(blocks), where=scales != 0)
    codes = np.clip(np.round(steps) + ZERO_CODE, 0, 255).astype(np.uint8)
    return codes, scales[..., 0]
