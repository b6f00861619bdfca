"""nano.pt from the ONNX files that ship in the package, so that training can go on from the shipped weights.

    python training/from_package.py --out build/nano/weights/nano.pt
    python training/train.py --resume build/nano/weights/nano.pt ...

The weights are the int8 values, in float32. Convolutions carry their folded batch norms, which then pass everything on
but a bias; `train.py --resume` gives them statistics again before it trains them. The ImageNet classifier, which only
the first stage uses, is not in the package; it is zero here, and `--resume` takes the parts' own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from nano_model import load_nano, vision_tower

from manylens.models.huggingface.nano_checkpoint import packaged_files, read_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", type=Path, default=packaged_files(), help="folder that export.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    numbers = json.loads((args.onnx / "nano.json").read_text("utf-8"))
    state = {name: torch.tensor(values) for name, values in read_weights(args.onnx).items()}
    for name, value in vision_tower().state_dict().items():
        if name.startswith("classifier.") or name.endswith("num_batches_tracked"):
            state[f"vision_tower.{name}"] = torch.zeros_like(value)
    state["edge_scale"], state["edge_offset"] = (torch.tensor(numbers[name]) for name in ("edge_scale", "edge_offset"))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, args.out)
    load_nano(args.out, args.onnx / "tokenizer.json")  # stops where the weights do not fit
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
