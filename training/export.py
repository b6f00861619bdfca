"""Turn trained weights into what the wheel ships (ONNX) and into an ordinary Hugging Face checkpoint.

    python training/export.py --weights build/nano/weights/nano.pt --parts build/nano/parts \
        --onnx src/manylens/models/nano --checkpoint build/nano/checkpoint

ONNX, for `manylens.models.nano`:
  vision.onnx   pixels (b, 192, 192, 3) uint8 -> visual tokens (b, 9, 576); int8 weights, computed in float32
  decoder.onnx  embeds (b, t, 576), past keys and values (16, b, 3, p, 64) -> state of the last token (b, 576),
                H (b, 256) and the new keys and values; int8 weights in blocks (MatMulNBits), activations quantised
                per row, so that what one image gets does not depend on which others share its batch
  words.npz     the tied embedding table (16384, 576) int8 with one float32 scale a row, to embed and to score words
  tokenizer.json, nano.json (numbers the run-time needs)
The checkpoint is what `manylens checkpoint` makes of these files: a stock `FastVlmForConditionalGeneration` with the
de-quantised int8 values, so every backend computes the same function up to rounding.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from nano_model import (
    END_ID,
    HEAD_WIDTH,
    HEADS,
    IMAGE_PX,
    KV_HEADS,
    MEAN,
    START_ID,
    STD,
    TEXT_WIDTH,
    VISUAL_TOKENS,
    Nano,
    load_nano,
)
from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer
from torch import Tensor, nn

from manylens.models.huggingface.nano_checkpoint import write_checkpoint

BLOCK = 64  # weights that share a scale along the input dimension


class VisionGraph(nn.Module):
    """uint8 pixels, last axis RGB -> visual tokens after the projector."""

    def __init__(self, nano: Nano) -> None:
        super().__init__()
        self.tower, self.projector = nano.vision_tower, nano.multi_modal_projector
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * 255)

    def forward(self, pixels: Tensor) -> Tensor:
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return self.projector(self.tower.forward_features(x).flatten(2).permute(0, 2, 1))


class DecoderGraph(nn.Module):
    """The Llama decoder over embeddings with keys and values given from outside; equals transformers' (checked)."""

    def __init__(self, nano: Nano) -> None:
        super().__init__()
        self.layers = nano.language_model.model.layers
        self.norm = nano.language_model.model.norm
        self.head = nano.embedding_head
        base = 1.0 / (100_000.0 ** (torch.arange(0, HEAD_WIDTH, 2).float() / HEAD_WIDTH))
        self.register_buffer("inverse_frequency", base)

    def forward(self, embeds: Tensor, past_k: Tensor, past_v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        b, t = embeds.shape[0], embeds.shape[1]
        p = past_k.shape[3]
        position = torch.arange(p + t, device=embeds.device)
        angles = position[p:].float().unsqueeze(1) * self.inverse_frequency.unsqueeze(0)
        cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
        mask = torch.where(position.unsqueeze(0) <= position[p:].unsqueeze(1), 0.0, -1e9)

        def rotate(x: Tensor) -> Tensor:
            half = HEAD_WIDTH // 2
            return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

        x, keys, values = embeds, [], []
        for i, layer in enumerate(self.layers):
            attention = layer.self_attn
            y = layer.input_layernorm(x)
            q = rotate(attention.q_proj(y).view(b, t, HEADS, HEAD_WIDTH).transpose(1, 2))
            k = rotate(attention.k_proj(y).view(b, t, KV_HEADS, HEAD_WIDTH).transpose(1, 2))
            v = attention.v_proj(y).view(b, t, KV_HEADS, HEAD_WIDTH).transpose(1, 2)
            keys.append(k)
            values.append(v)
            k, v = torch.cat([past_k[i], k], 2), torch.cat([past_v[i], v], 2)
            # Three query heads share a key head: fold them into the rows instead of repeating keys.
            q = q.reshape(b, KV_HEADS, HEADS // KV_HEADS * t, HEAD_WIDTH)
            scores = (q @ k.transpose(2, 3) * HEAD_WIDTH**-0.5).view(b, KV_HEADS, HEADS // KV_HEADS, t, p + t) + mask
            weights = scores.softmax(-1).view(b, KV_HEADS, HEADS // KV_HEADS * t, p + t)
            y = (weights @ v).view(b, HEADS, t, HEAD_WIDTH).transpose(1, 2).reshape(b, t, TEXT_WIDTH)
            x = x + attention.o_proj(y)
            y = layer.post_attention_layernorm(x)
            x = x + layer.mlp.down_proj(F.silu(layer.mlp.gate_proj(y)) * layer.mlp.up_proj(y))
        state = self.norm(x[:, -1])
        return state, F.normalize(self.head(state), dim=-1), torch.stack(keys), torch.stack(values)


def export_graph(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: dict[str, dict[int, str]],
    outputs: dict[str, dict[int, str]],
    file: Path,
) -> onnx.ModelProto:
    torch.onnx.export(
        module,
        example,
        str(file),
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_axes={**inputs, **outputs},
        opset_version=17,
        dynamo=False,
    )
    return onnx.load(str(file))


def shrink_weights(model: onnx.ModelProto) -> None:
    """Store convolution and matrix weights as int8 with a float32 scale per output.

    The run-time multiplies them out once, when it loads (constant folding), and computes in float32. Batch norms are
    folded into the convolutions by then.
    """
    nodes = []
    for tensor in list(model.graph.initializer):
        values, name = onnx.numpy_helper.to_array(tensor), tensor.name
        if values.dtype != np.float32 or values.ndim not in (2, 4) or name in ("mean", "std"):
            continue
        output_axis = 0 if values.ndim == 4 else 1  # matrices are stored (in, out)
        others = tuple(i for i in range(values.ndim) if i != output_axis)
        scale = np.maximum(np.abs(values).max(others, keepdims=True), 1e-12) / 127
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.round(values / scale).astype(np.int8), f"{name}_codes"))
        model.graph.initializer.append(onnx.numpy_helper.from_array(scale.astype(np.float32), f"{name}_scale"))
        nodes.append(onnx.helper.make_node("Cast", [f"{name}_codes"], [f"{name}_float"], to=onnx.TensorProto.FLOAT))
        nodes.append(onnx.helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name]))
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def quantize_rows(table: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) -> int8 (n, d) and scale (n,) float32 with table = int8 * scale."""
    values = table.detach().numpy()
    scale = np.maximum(np.abs(values).max(1), 1e-8) / 127
    return np.round(values / scale[:, None]).astype(np.int8), scale.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--parts", type=Path, required=True)
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path)
    args = parser.parse_args()
    args.onnx.mkdir(parents=True, exist_ok=True)
    nano = load_nano(args.weights, args.parts / "tokenizer.json")
    layers = len(nano.language_model.model.layers)

    vision_file = args.onnx / "vision.onnx"
    vision = export_graph(
        VisionGraph(nano),
        (torch.zeros(2, IMAGE_PX, IMAGE_PX, 3, dtype=torch.uint8),),
        {"pixels": {0: "b"}},
        {"tokens": {0: "b"}},
        vision_file,
    )
    shrink_weights(vision)
    onnx.save(vision, str(vision_file))

    decoder_file = args.onnx / "decoder.onnx"
    past = torch.randn(layers, 2, KV_HEADS, 5, HEAD_WIDTH)
    kv = {1: "b", 3: "p"}
    decoder = export_graph(
        DecoderGraph(nano),
        (torch.randn(2, 7, TEXT_WIDTH), past, past),
        {"embeds": {0: "b", 1: "t"}, "past_k": kv, "past_v": kv},
        {"state": {0: "b"}, "embedding": {0: "b"}, "new_k": {1: "b", 3: "t"}, "new_v": {1: "b", 3: "t"}},
        decoder_file,
    )
    quantizer = MatMulNBitsQuantizer(
        decoder,
        bits=8,
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=4,
        algo_config=DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, bits=8, accuracy_level=4),
    )
    quantizer.process()
    onnx.save(quantizer.model.model, str(decoder_file))

    codes, scale = quantize_rows(nano.language_model.model.embed_tokens.weight)
    np.savez(args.onnx / "words.npz", codes=codes, scale=scale)
    shutil.copy(args.parts / "tokenizer.json", args.onnx / "tokenizer.json")
    description = {
        "image_px": IMAGE_PX,
        "visual_tokens": VISUAL_TOKENS,
        "width": TEXT_WIDTH,
        "layers": layers,
        "kv_heads": KV_HEADS,
        "head_width": HEAD_WIDTH,
        "start_id": START_ID,
        "end_id": END_ID,
        "edge_scale": round(nano.edge_scale.item(), 4),
        "edge_offset": round(nano.edge_offset.item(), 4),
    }
    (args.onnx / "nano.json").write_text(json.dumps(description, indent=1) + "\n")
    if args.checkpoint is not None:
        write_checkpoint(args.checkpoint, args.onnx)
    for file in sorted(args.onnx.iterdir()):
        print(f"{file.name:18} {file.stat().st_size / 1e6:7.2f} MB")


if __name__ == "__main__":
    main()
