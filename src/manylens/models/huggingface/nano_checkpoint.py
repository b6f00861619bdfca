"""nano as an ordinary Hugging Face checkpoint, made from the ONNX files that ship in the package.

In: `nano/` as `manylens.models.nano` reads it. Out: nano's weights as float32 arrays, or a folder that transformers
opens as a stock `FastVlmForConditionalGeneration`, to be LoRA-tuned, served, or compared across backends.
Promise: the weights are what the int8 codes stand for, to the last bit, so every backend computes the same function up
to the rounding of activations.

What the stock format has no place for stands beside it: `manylens.json` says that the prompts are nano's own, and holds
beta and b of the edge weight; `embedding_head.npy`, (256, width) float32, is the head that gives H(u).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from math import isqrt
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from manylens.errors import ModelUnavailable, UsageError
from manylens.models import prompts

FloatArray: TypeAlias = NDArray[np.float32]

DIALECT_FILE = "manylens.json"
HEAD_FILE = "embedding_head.npy"
IMAGE_TOKEN = "<|image|>"

# EfficientNet-Lite2, stage by stage. It has no squeeze-and-excitation and ReLU6 for an activation.
_STAGES: dict[str, list[int]] = {
    "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "in_channels": [32, 16, 24, 48, 88, 120, 208],
    "out_channels": [16, 24, 48, 88, 120, 208, 352],
    "strides": [1, 2, 2, 2, 1, 2, 1],
    "num_block_repeats": [1, 3, 3, 4, 4, 5, 1],
    "expand_ratios": [1, 6, 6, 6, 6, 6, 6],
}
_OPEN_GATE = 40.0  # sigmoid of this is 1: the stock class cannot leave out squeeze-and-excitation
_BATCH_NORM_EPS = 1e-3
_ROPE_THETA = 100_000.0
_NORM_EPS = 1e-5
_CONTEXT_TOKENS = 2048
ZERO_CODE = 128  # what stands for 0 in 8-bit MatMulNBits without zero points

_PROJECTION = re.compile(r"/(q|k|v|o|gate|up|down)_proj(?:_(\d+))?/MatMul")

# An ordinary chat message becomes nano's prompt: the texts first, whatever the order of its parts, then the images.
# An assistant's message is an answer to learn from.
_CHAT_TEMPLATE = (
    "{{ '<|im_start|>' }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] != 'text' %}{{ '<|image|>' }}{% endif %}{% endfor %}"
    "{% endif %}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '\\nAnswer: ' }}{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}{{ '<|im_end|>' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\nAnswer:' }}{% endif %}"
)


def packaged_files() -> Path:
    """The folder of nano's files in the installed package."""
    return Path(str(resources.files("manylens.models") / "nano"))


def read_weights(folder: Path | None = None) -> dict[str, FloatArray]:
    """nano's weights by the names of `training/nano_model.py`: `vision_tower.*` (timm's names; batch norms pass their
    input on but for the bias, since exporting folded them into the convolutions), `multi_modal_projector.*`,
    `language_model.model.*` and `embedding_head.weight`. Matrices are (out, in).

    folder: as `manylens.models.nano` reads it, or None for the packaged one. Raises ModelUnavailable without `onnx`.
    """
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx") from error
    folder = folder or packaged_files()
    vision = onnx.load(str(folder / "vision.onnx")).graph
    decoder = onnx.load(str(folder / "decoder.onnx")).graph
    with np.load(folder / "words.npz") as table:
        words: FloatArray = table["codes"].astype(np.float32) * table["scale"][:, None]
    return {
        **_vision_weights(vision),
        **_decoder_weights(decoder),
        "language_model.model.embed_tokens.weight": words,
    }


def read_normalisation(folder: Path | None = None) -> tuple[list[float], list[float]]:
    """Mean and deviation of the three channels, of pixels in [0, 1], with which vision.onnx normalises."""
    import onnx

    tensors = _tensors(onnx.load(str((folder or packaged_files()) / "vision.onnx")).graph)
    mean, deviation = ((tensors[name].reshape(3) / 255).tolist() for name in ("mean", "std"))
    return mean, deviation


def _tensors(graph: Any) -> dict[str, NDArray[Any]]:
    """All stored tensors; what is stored as `<name>_codes` and `<name>_scale` is multiplied out."""
    from onnx import numpy_helper

    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for name in [name.removesuffix("_codes") for name in tensors if name.endswith("_codes")]:
        tensors[name] = tensors[f"{name}_codes"].astype(np.float32) * tensors[f"{name}_scale"]
    return tensors


def _vision_weights(graph: Any) -> dict[str, FloatArray]:
    tensors = _tensors(graph)
    found: dict[str, FloatArray] = {}
    for node in graph.node:
        if node.op_type == "Conv":
            block, convolution = ["", *node.name.strip("/").split("/")][-3:-1]
            place = f"{block}." if block.startswith("blocks.") else ""
            norm = f"vision_tower.{place}{_norm_after(place, convolution)}"
            weight, bias = (tensors[name] for name in node.input[1:])
            width = len(bias)
            found[f"vision_tower.{place}{convolution}.weight"] = weight
            found[f"{norm}.weight"] = np.ones(width, np.float32)
            found[f"{norm}.bias"] = bias
            found[f"{norm}.running_mean"] = np.zeros(width, np.float32)
            found[f"{norm}.running_var"] = np.full(width, 1 - _BATCH_NORM_EPS, np.float32)
    for name, node in projector_layers(graph):
        layer = name.split(".")[1]
        found[name] = np.ascontiguousarray(tensors[node.input[1]].T)
        found[f"multi_modal_projector.{layer}.bias"] = tensors[f"projector.{layer}.bias"]
    return found


def projector_layers(graph: Any) -> Iterator[tuple[str, Any]]:
    """The projector's matrices in vision.onnx: our name, and the node that multiplies by it, as (in, out)."""
    for node in graph.node:
        if node.op_type == "MatMul" and node.name.startswith("/projector/linear_"):
            yield f"multi_modal_projector.{node.name.split('/')[2]}.weight", node


def _norm_after(place: str, convolution: str) -> str:
    """timm's name of the batch norm that follows a convolution."""
    if not place:
        return {"conv_stem": "bn1", "conv_head": "bn2"}[convolution]
    if place.startswith("blocks.0."):  # depthwise separable: no expansion comes first
        return {"conv_dw": "bn1", "conv_pw": "bn2"}[convolution]
    return {"conv_pw": "bn1", "conv_dw": "bn2", "conv_pwl": "bn3"}[convolution]


def _decoder_weights(graph: Any) -> dict[str, FloatArray]:
    tensors = _tensors(graph)
    found: dict[str, FloatArray] = {
        f"language_model.model.{name}": values for name, values in tensors.items() if name.endswith("norm.weight")
    }
    for name, node in decoder_matrices(graph):
        codes, scales = (tensors[part] for part in node.input[1:3])
        blocks = codes.astype(np.float32) - ZERO_CODE
        found[name] = (blocks * scales.reshape(*codes.shape[:2], 1)).reshape(len(codes), -1)
    return found


def decoder_matrices(graph: Any) -> Iterator[tuple[str, Any]]:
    """The matrices of decoder.onnx: our name, and the MatMulNBits node that multiplies by it, as (out, blocks, 64)."""
    for node in graph.node:
        if node.op_type != "MatMulNBits":
            continue
        if projection := _PROJECTION.match(node.name):
            kind, layer = projection[1], projection[2] or "0"
            group = "self_attn" if kind in "qkvo" else "mlp"
            yield f"language_model.model.layers.{layer}.{group}.{kind}_proj.weight", node
        else:
            yield "embedding_head.weight", node


def write_checkpoint(out: Path, folder: Path | None = None) -> None:
    """Write nano into the folder `out` as a stock checkpoint, some 290 MB in float32, which `--model hf:OUT` and
    transformers' Auto classes read.

    folder: as `manylens.models.nano` reads it, or None for the packaged one. Raises UsageError where `out` holds files,
    ModelUnavailable without the extra `[local]`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"a checkpoint is written into an empty folder, {out} holds something", "name another folder")
    try:
        import torch
        from transformers import (
            CLIPImageProcessor,
            EfficientNetConfig,
            FastVlmConfig,
            FastVlmForConditionalGeneration,
            LlamaConfig,
            LlavaProcessor,
            PreTrainedTokenizerFast,
        )
    except ImportError as error:
        raise missing_extra(error.name or "transformers") from error
    folder = folder or packaged_files()
    numbers: dict[str, Any] = json.loads((folder / "nano.json").read_text("utf-8"))
    weights = read_weights(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        extra_special_tokens={"image_token": IMAGE_TOKEN},
        padding_side="left",
    )
    words = weights["language_model.model.embed_tokens.weight"]
    queries, gates = (
        weights[f"language_model.model.layers.0.{name}_proj.weight"] for name in ("self_attn.q", "mlp.gate")
    )
    text = LlamaConfig(
        vocab_size=len(words),
        hidden_size=numbers["width"],
        intermediate_size=len(gates),
        num_hidden_layers=numbers["layers"],
        num_attention_heads=len(queries) // numbers["head_width"],
        num_key_value_heads=numbers["kv_heads"],
        head_dim=numbers["head_width"],
        rope_parameters={"rope_theta": _ROPE_THETA, "rope_type": "default"},
        rms_norm_eps=_NORM_EPS,
        max_position_embeddings=_CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=numbers["start_id"],
        eos_token_id=numbers["end_id"],
        pad_token_id=numbers["end_id"],
        attention_bias=False,
    )
    features = weights["multi_modal_projector.linear_1.weight"].shape[1]
    side = numbers["image_px"]
    patch = side // isqrt(numbers["visual_tokens"])  # pixels along the side of what one visual token stands for
    vision = EfficientNetConfig(
        image_size=side,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        squeeze_expansion_ratio=1e-6,
        hidden_act="relu6",
        hidden_dim=features,
        hidden_size=features,  # where FastVLM looks for it
        batch_norm_eps=_BATCH_NORM_EPS,
        # The last stage strides where tokens are few, and pads on both sides, as PyTorch does.
        depthwise_padding=[sum(_STAGES["num_block_repeats"]) - 1],
        **_STAGES | {"strides": [*_STAGES["strides"][:-1], patch // 32]},
    )
    model = FastVlmForConditionalGeneration(
        FastVlmConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            image_seq_length=numbers["visual_tokens"],
            projector_hidden_act="gelu",
            tie_word_embeddings=True,
        )
    )
    state = {stock: torch.tensor(values) for name, values in weights.items() if (stock := stock_name(name)) is not None}
    for name, value in model.state_dict().items():
        if ".squeeze_excite." in name:
            state[name] = torch.full_like(value, _OPEN_GATE if name.endswith("expand.bias") else 0.0)
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith(("lm_head.weight", "num_batches_tracked"))]
    if missing or unexpected:
        raise ModelUnavailable(
            f"nano's weights fit the stock class, missing {missing[:3]}, unexpected {unexpected[:3]}",
            "install the version of transformers that the extra names: pip install 'manylens[local]'",
        )
    model.tie_weights()
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = numbers["end_id"]
    model.generation_config.bos_token_id = numbers["start_id"]
    mean, deviation = read_normalisation(folder)
    images = CLIPImageProcessor(
        size={"height": side, "width": side}, do_center_crop=False, resample=3, image_mean=mean, image_std=deviation
    )
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="full",
        chat_template=_CHAT_TEMPLATE,
        image_token=IMAGE_TOKEN,
    )
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    processor.save_pretrained(out)
    np.save(out / HEAD_FILE, weights["embedding_head.weight"])
    dialect = {
        "dialect": "nano",
        "prompts": prompts.NANO_PROMPTS,
        "edge_scale": numbers["edge_scale"],
        "edge_offset": numbers["edge_offset"],
    }
    (out / DIALECT_FILE).write_text(json.dumps(dialect, indent=1) + "\n", "utf-8")


def stock_name(name: str) -> str | None:
    """The name in `FastVlmForConditionalGeneration`, or None for what it has no place for."""
    if name.startswith("vision_tower."):
        return f"model.vision_tower.{_stock_vision_name(name.removeprefix('vision_tower.'))}"
    for ours, stock in (
        ("multi_modal_projector.", "model.multi_modal_projector."),
        ("language_model.model.", "model.language_model."),
    ):
        if name.startswith(ours):
            return stock + name.removeprefix(ours)
    return None


def _stock_vision_name(name: str) -> str:
    """timm's name, `blocks.2.0.conv_dw.weight` say, as `EfficientNetModel` has it, whose blocks are counted through."""
    if not name.startswith("blocks."):
        layer, kind = name.split(".")
        return {
            "conv_stem": "embeddings.convolution",
            "bn1": "embeddings.batchnorm",
            "conv_head": "encoder.top_conv",
            "bn2": "encoder.top_bn",
        }[layer] + f".{kind}"
    _, stage, place, layer, kind = name.split(".")
    block = sum(_STAGES["num_block_repeats"][: int(stage)]) + int(place)
    stock = {
        "conv_pw": "expansion.expand_conv",
        "bn1": "expansion.expand_bn",
        "conv_dw": "depthwise_conv.depthwise_conv",
        "bn2": "depthwise_conv.depthwise_norm",
        "conv_pwl": "projection.project_conv",
        "bn3": "projection.project_bn",
    }
    if stage == "0":  # depthwise separable: no expansion comes first
        layer = {"conv_dw": "conv_dw", "bn1": "bn2", "conv_pw": "conv_pwl", "bn2": "bn3"}[layer]
    return f"encoder.blocks.{block}.{stock[layer]}.{kind}"


def missing_extra(package: str) -> ModelUnavailable:
    """The error for a package of the extra `[local]` that is not there."""
    return ModelUnavailable(
        f"Hugging Face checkpoints need the package {package}, it is not installed",
        "pip install 'manylens[local]'",
    )
