"""Sentence embeddings of many short texts, by all-MiniLM-L6-v2 as its package ships it.

In: the package's `model.zip` unpacked (model.safetensors, tokenizer.json), texts. Out: (n, 384) float32, unit length:
the mean over a text's tokens, as sentence-transformers computes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional as F

LAYERS, HEADS, MOST_TOKENS = 6, 12, 64


class TextEmbedder:
    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self._device = device
        self._weights = {
            name.removeprefix("bert."): value.float().to(device)
            for name, value in load_file(folder / "model.safetensors").items()
        }
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MOST_TOKENS)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], batch: int = 256) -> np.ndarray:
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        made = np.zeros((len(ids), 384), np.float32)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            longest = max(len(ids[i]) for i in rows)
            padded = torch.zeros(len(rows), longest, dtype=torch.long)
            real = torch.zeros(len(rows), longest)
            for row, i in enumerate(rows):
                padded[row, : len(ids[i])] = torch.tensor(ids[i])
                real[row, : len(ids[i])] = 1
            made[rows] = self._forward(padded.to(self._device), real.to(self._device)).cpu().numpy()
        return made

    def _forward(self, ids: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        w = self._weights
        b, t = ids.shape

        def norm(x: torch.Tensor, name: str) -> torch.Tensor:
            return F.layer_norm(x, (384,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)

        def linear(x: torch.Tensor, name: str) -> torch.Tensor:
            return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:t]
        x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        mask = (1 - real)[:, None, None, :] * -1e9
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}"
            q, k, v = (
                linear(x, f"{at}.attention.self.{part}").view(b, t, HEADS, -1).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(b, t, 384)
            x = norm(x + linear(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
            inner = F.gelu(linear(x, f"{at}.intermediate.dense"))
            x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        pooled = (x * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)
        return F.normalize(pooled, dim=1)
