"""The average of the weights before and after a training that went on from others, number by number.

    python training/average.py --before start.pt --after weights/nano.pt --tokenizer parts/tokenizer.json --out nano.pt

Two ends of one training lie in one valley, and what lies between does better than either (Wortsman et al. 2022, "Model
soups"). Batch norms are folded into their convolutions first, as the package has them: the two then mean the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from nano_model import Nano, load_nano
from torch import nn


@torch.no_grad()
def fold_batch_norms(nano: Nano) -> None:
    """Let every batch norm of the vision tower pass all on but a bias, which its convolution's weights make up for."""
    convolution: nn.Conv2d | None = None
    for module in nano.vision_tower.modules():  # in the order of computation: a convolution, then its batch norm
        if isinstance(module, nn.Conv2d):
            convolution = module
        elif isinstance(module, nn.BatchNorm2d) and convolution is not None:
            scale = module.weight / (module.running_var + module.eps).sqrt()
            convolution.weight.mul_(scale.view(-1, 1, 1, 1))
            module.bias.sub_(module.running_mean * scale)
            module.running_mean.zero_()
            module.running_var.fill_(1 - module.eps)
            module.weight.fill_(1)
            convolution = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="nano.pt that training went on from")
    parser.add_argument("--after", type=Path, required=True, help="nano.pt that it came to")
    parser.add_argument("--share", type=float, default=0.9, help="weight of the latter")
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json of the parts")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    before, after = (load_nano(file, args.tokenizer) for file in (args.before, args.after))
    for nano in (before, after):
        fold_batch_norms(nano)
    start = before.state_dict()
    mean = {
        name: torch.lerp(start[name], value, args.share) if value.is_floating_point() else value
        for name, value in after.state_dict().items()
        if not name.startswith("language_model.lm_head")
    }
    torch.save({name: value.half() for name, value in mean.items()}, args.out)


if __name__ == "__main__":
    main()
