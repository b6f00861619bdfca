"""The trained encoder as what the wheel ships: two ONNX graphs, weights as int8, all else float32.

    python export_encoder.py --weights encoder.pt --out ../src/manylens/models/nano

eyes.onnx   pixels (b, side, side, 3) uint8 RGB -> positions (b, p, 256), pooled (b, 1664)
head.onnx   positions, pooled, interest (1, 384) unit length -> h (b, 384) of unit length
Weights are int8 with a scale for each output channel, multiplied out when they are loaded, so that every processor
computes the same up to rounding and no picture's answer depends on another's. Batch norms are folded first.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from encoder import POOLED, TEXT, WIDTH, Backbone, Block, Encoder
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

FEWEST = 4096  # numbers; smaller tensors stay float32


class Folded(nn.Module):
    """A convolution with its batch norm folded in."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = conv
        weight, bias = fuse_conv_bn_weights(
            conv.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        conv.weight, conv.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        k, s = self.conv.kernel_size[0], self.conv.stride[0]
        pad = max((-(x.shape[-1] // -s) - 1) * s + k - x.shape[-1], 0)
        x = F.pad(x, (pad // 2, pad - pad // 2, pad // 2, pad - pad // 2)) if pad % 2 else x
        return F.conv2d(x, self.conv.weight, self.conv.bias, s, 0 if pad % 2 else pad // 2, 1, self.conv.groups)


def fold(backbone: Backbone) -> None:
    same = nn.Identity()
    backbone.stem, backbone.norm0 = Folded(backbone.stem, backbone.norm0), same
    backbone.head, backbone.norm1 = Folded(backbone.head, backbone.norm1), same
    for block in backbone.blocks:
        assert isinstance(block, Block)
        if block.expand is not None:
            block.expand = nn.ModuleList([Folded(block.expand[0], block.expand[1]), same])
        block.depthwise, block.norm1 = Folded(block.depthwise, block.norm1), same
        block.project, block.norm2 = Folded(block.project, block.norm2), same


class EyesGraph(nn.Module):
    def __init__(self, model: Encoder) -> None:
        super().__init__()
        self.eyes = model.eyes

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        positions, pooled = self.eyes((pixels.permute(0, 3, 1, 2).float() - 127) / 128)
        return positions, pooled


class HeadGraph(nn.Module):
    def __init__(self, model: Encoder) -> None:
        super().__init__()
        self.head = model.head

    def forward(self, positions: Tensor, pooled: Tensor, interest: Tensor) -> Tensor:
        return F.normalize(self.head(positions, pooled, interest.expand(positions.shape[0], -1)), dim=1)


def smaller(model: onnx.ModelProto) -> None:
    """Large weights as int8 and a scale along their output channels."""
    graph = model.graph
    axis_of: dict[str, int] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            if node.op_type == "Conv" and place == 1:
                axis_of[name] = 0
            elif node.op_type == "Gemm" and place == 1:
                axis_of[name] = 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
            elif node.op_type == "MatMul" and place == 1:
                axis_of[name] = 1
    added = []
    for tensor in list(graph.initializer):
        value = numpy_helper.to_array(tensor)
        if tensor.name not in axis_of or value.size < FEWEST or value.dtype != np.float32:
            continue
        axis = axis_of[tensor.name]
        others = tuple(k for k in range(value.ndim) if k != axis)
        scale = np.maximum(np.abs(value).max(others), 1e-12) / 127
        shape = [-1 if k == axis else 1 for k in range(value.ndim)]
        codes = np.clip(np.rint(value / scale.reshape(shape)), -127, 127).astype(np.int8)
        graph.initializer.remove(tensor)
        name = tensor.name
        graph.initializer.extend([
            numpy_helper.from_array(codes, f"{name}.codes"), numpy_helper.from_array(scale.astype(np.float32), f"{name}.scale"),
            numpy_helper.from_array(np.zeros(len(scale), np.int8), f"{name}.zero"),
        ])  # fmt: skip
        added.append(
            onnx.helper.make_node(
                "DequantizeLinear", [f"{name}.codes", f"{name}.scale", f"{name}.zero"], [name], axis=axis
            )
        )
    for node in reversed(added):
        graph.node.insert(0, node)


def write(
    module: nn.Module, example: tuple[Tensor, ...], inputs: list[str], outputs: list[str], file: Path, *, quantize: bool
) -> None:
    dynamic = {name: {0: "b"} for name in [*inputs, *outputs] if name != "interest"}
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.onnx"
        torch.onnx.export(
            module,
            example,
            str(raw),
            input_names=inputs,
            output_names=outputs,
            dynamic_axes=dynamic,
            opset_version=17,
            dynamo=False,
        )
        model = onnx.load(raw)
    if quantize:
        smaller(model)
    onnx.checker.check_model(model)
    onnx.save(model, file)
    print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--float", action="store_true", help="weights as they are, to compare with")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kept = torch.load(options.weights, map_location="cpu", weights_only=True)
    side = kept["side"]
    model = Encoder(side)
    model.load_state_dict(
        {name: value.float() if value.dtype.is_floating_point else value for name, value in kept["model"].items()}
    )
    model.eval().requires_grad_(False)
    fold(model.eyes.backbone)
    places = (side // 32) ** 2
    pixels = torch.randint(0, 255, (2, side, side, 3), dtype=torch.uint8)
    write(
        EyesGraph(model),
        (pixels,),
        ["pixels"],
        ["positions", "pooled"],
        options.out / "eyes.onnx",
        quantize=not options.float,
    )
    example = torch.randn(2, places, WIDTH), torch.randn(2, POOLED), F.normalize(torch.randn(1, TEXT))
    write(
        HeadGraph(model),
        example,
        ["positions", "pooled", "interest"],
        ["h"],
        options.out / "head.onnx",
        quantize=not options.float,
    )
    print("scales", kept["scale"].exp().tolist())


if __name__ == "__main__":
    main()
