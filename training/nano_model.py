"""nano as a PyTorch module: EfficientNet-Lite2 -> projector -> 16 layers of SmolLM2 (+ a head for H).

In: `parts/` as `parts.py` wrote it. Out: `Nano`, whose submodules keep the names of the stock Hugging Face
architecture `FastVlmForConditionalGeneration`, so that exporting is renaming.

Prompts (see `manylens.prompts`): `<|im_start|>{question}` + 9 visual tokens + `\\nAnswer:` + ` {answer}<|im_end|>`.
H(u) is a linear head on the state of the last prompt token, unit length (256 numbers).
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

IMAGE_PX = 192
VISUAL_TOKENS = (IMAGE_PX // 64) ** 2
VISION_WIDTH = 1280
TEXT_WIDTH = 576
EMBEDDING_WIDTH = 256
HEADS, KV_HEADS, HEAD_WIDTH = 9, 3, 64
START_ID, END_ID = 1, 2
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def text_config(layers: int, vocabulary: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_WIDTH,
        rope_parameters={"rope_theta": 100_000.0, "rope_type": "default"},
        rms_norm_eps=1e-5,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=START_ID,
        eos_token_id=END_ID,
        pad_token_id=END_ID,
        attention_bias=False,
    )


_GGUF_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load_language_model(parts: Path) -> LlamaForCausalLM:
    """De-quantise `decoder.npz` into a Llama model. GGUF interleaves the rotary halves of q and k: undone here."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    types = json.loads((parts / "types.json").read_text())
    state: dict[str, Tensor] = {}
    with np.load(parts / "decoder.npz") as tensors:
        for name in tensors.files:
            values = dequantize(tensors[name], GGMLQuantizationType(types[name]))
            short = name.removesuffix(".weight")
            if short == "token_embd":
                state["model.embed_tokens.weight"] = torch.from_numpy(values.copy())
                continue
            if short == "output_norm":
                state["model.norm.weight"] = torch.from_numpy(values.copy())
                continue
            _, layer, kind = short.split(".")
            if kind in ("attn_q", "attn_k"):
                heads = HEADS if kind == "attn_q" else KV_HEADS
                half = values.shape[0] // heads // 2
                values = values.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(values.shape)
            state[f"model.layers.{layer}.{_GGUF_NAMES[kind]}.weight"] = torch.from_numpy(values.copy())
    layers = 1 + max(int(k.split(".")[2]) for k in state if k.startswith("model.layers."))
    model = LlamaForCausalLM(text_config(layers, state["model.embed_tokens.weight"].shape[0]))
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"decoder.npz does not fit the Llama class: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


def vision_tower(*, drop_path: float = 0.0) -> nn.Module:
    """EfficientNet-Lite2 whose last depthwise convolution strides: 3 x 3 places instead of 6 x 6.

    Most of a look's time goes into running visual tokens through the language model; nine cost a third of thirty-six.
    """
    vision = timm.create_model("tf_efficientnet_lite2", pretrained=False, drop_path_rate=drop_path)
    vision.blocks[-1][-1].conv_dw.stride = (2, 2)
    return vision


def load_vision(parts: Path, *, drop_path: float = 0.0) -> nn.Module:
    """The tower with EfficientNet-Lite2's ImageNet weights and classifier."""
    vision = vision_tower(drop_path=drop_path)
    vision.load_state_dict(torch.load(parts / "vision.pt", map_location="cpu", weights_only=True), strict=False)
    return vision


class Projector(nn.Module):
    """Two linear layers with GELU, 1,280 -> 576 (FastVLM's `multi_modal_projector`)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(VISION_WIDTH, TEXT_WIDTH)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(TEXT_WIDTH, TEXT_WIDTH)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear_2(self.act(self.linear_1(features)))


class Nano(nn.Module):
    """The whole model. `features`: (b, 9, 1280) from `visual_features`; `ids`: (b, t) with the image placeholder."""

    def __init__(self, vision: nn.Module, language: LlamaForCausalLM, image_token: int) -> None:
        super().__init__()
        self.vision_tower = vision
        self.multi_modal_projector = Projector()
        self.language_model = language
        self.embedding_head = nn.Linear(TEXT_WIDTH, EMBEDDING_WIDTH, bias=False)
        self.edge_scale = nn.Parameter(torch.tensor(10.0))
        self.edge_offset = nn.Parameter(torch.tensor(-4.0))
        self.image_token = image_token

    def visual_features(self, pixels: Tensor) -> Tensor:
        """pixels: (b, 3, 192, 192) normalised. Returns (b, 9, 1280), row-major over the grid."""
        return self.vision_tower.forward_features(pixels).flatten(2).permute(0, 2, 1)

    def hidden_states(self, ids: Tensor, features: Tensor) -> Tensor:
        """Last hidden states (b, t, 576). Rows are right-padded, which a causal mask hides from what comes before."""
        embeds = self.language_model.model.embed_tokens(ids)
        visual = self.multi_modal_projector(features).to(embeds.dtype)
        embeds = embeds.masked_scatter((ids == self.image_token).unsqueeze(-1), visual)
        return self.language_model.model(inputs_embeds=embeds, use_cache=False).last_hidden_state

    def logits(self, states: Tensor) -> Tensor:
        return F.linear(states, self.language_model.model.embed_tokens.weight)

    def embed(self, states: Tensor) -> Tensor:
        """H: (b, 256), unit length, from the last prompt token's states (b, 576)."""
        return F.normalize(self.embedding_head(states).float(), dim=-1)

    def edge_logits(self, embeddings: Tensor) -> Tensor:
        """beta * H(u).H(v) + b over all pairs, (b, b)."""
        return self.edge_scale * embeddings @ embeddings.T + self.edge_offset


def load_nano(weights: Path, tokenizer: Path) -> Nano:
    """nano from trained weights (`nano.pt`), float32, in evaluation mode."""
    image_token = Tokenizer.from_file(str(tokenizer)).token_to_id("<|image|>")
    state = {k: v.float() for k, v in torch.load(weights, map_location="cpu", weights_only=True).items()}
    layers = 1 + max(int(k.split(".")[3]) for k in state if k.startswith("language_model.model.layers."))
    language = LlamaForCausalLM(text_config(layers, state["language_model.model.embed_tokens.weight"].shape[0]))
    nano = Nano(vision_tower(), language, image_token)
    missing, unexpected = nano.load_state_dict(state, strict=False)
    if unexpected or any("lm_head" not in m for m in missing):
        raise SystemExit(f"{weights} does not fit nano: missing {missing}, unexpected {unexpected}")
    nano.language_model.tie_weights()
    return nano.eval()
