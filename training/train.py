"""Train nano: vision first, then the language model on frozen vision, then both. One GPU, about 22 minutes.

    python training/train.py --data ../shared/data --parts parts --out nano-weights

Stage 1 (vision): one linear head per (set, attribute) on pooled features, all color tasks sharing one head,
  cross-entropy + 0.25 x distillation to the frozen ImageNet classifier; weights averaged (EMA).
Between: vision says the colors of photographs whose color nobody wrote down (`pseudo_colors.py`).
Stage 2 (language): vision frozen and run on fresh augmentations; a batch holds groups of rows that share one interest
  (describe: "{interest}" -> answer), or rows that judge ("{interest} / Group: {name} / Belongs, yes or no?" -> yes/no);
  loss = cross-entropy on the answers + 0.3 x BCE on sigmoid(beta H.H + b) over each group's pairs (the paper's w).
Stage 3 (refine): all of it together at a small rate, so that vision learns what the answers need;
  the result is the average of the weights before and after it.
Evaluation prints a table on rows never trained on. Nothing is selected by it: the last weights are the result.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from augment import augment, mix, plain
from data import Pool, Task, load
from evaluation import evaluate
from nano_model import VISION_WIDTH, Nano, load_language_model, load_nano, load_vision
from pseudo_colors import add_pseudo_colors
from texts import TextWriter, written_ahead
from tokenizers import Tokenizer
from torch import Tensor, nn

# Weight of each task in stage 2; a set's weight in stage 1 is the sum over its tasks.
TASK_WEIGHT = {
    "card.rank": 15, "card.suit": 9, "card.color": 3,
    "deck.rank": 4, "deck.suit": 3, "deck.color": 1, "deck.style": 2,
    "cmuface.pose": 6, "cmuface.glass": 4, "cmuface.emotion": 2,
    "fruit.species": 2, "fruit.color": 3, "flowers.species": 2, "flowers.color": 7,
    "cifar10.class": 11, "cifar10.type": 5, "cifar10.environment": 9, "cifar10.color": 12,
    "textures.texture": 2, "emotion.emotion": 10,
    "fashion.type": 9, "fashion.color": 9, "fashion.category": 2, "fashion.gender": 3, "fashion.usage": 2,
    "objects1000.object": 2, "objects1000.color": 5,
    "hued.color": 10, "synthetic.color": 8, "synthetic.background": 1, "synthetic.count": 1, "synthetic.position": 1,
}  # fmt: skip
COLOR_TASKS = frozenset(
    f"{name}.color" for name in ("fruit", "flowers", "fashion", "objects1000", "cifar10", "hued", "synthetic")
)
SHRINKABLE = frozenset({"fruit", "fashion", "objects1000", "hued", "synthetic"})
TURN_DEG = {"card": 30.0, "deck": 20.0, "cmuface": 8.0, "emotion": 12.0, "fruit": 40.0, "textures": 30.0}
HALF_TURN = {"card", "deck"}
MIXABLE = frozenset({"cifar10", "emotion", "textures", "objects1000"})
"""Sets whose images may be mixed: what they are, not their color or a small sign on them, is the answer."""


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class Batches:
    """Draws rows of the pool; keeps all pixels on the device as uint8."""

    def __init__(self, pool: Pool, device: torch.device) -> None:
        self.pixels = torch.from_numpy(pool.pixels).to(device)
        self.mirror = torch.from_numpy(pool.mirror).to(device)
        self.turn = torch.tensor([TURN_DEG.get(s, 15.0) for s in pool.set_of], device=device)
        self.half_turn = torch.tensor([s in HALF_TURN for s in pool.set_of], device=device)
        self.shrinkable = torch.tensor([s in SHRINKABLE for s in pool.set_of], device=device)
        self.mixable = torch.tensor([s in MIXABLE for s in pool.set_of], device=device)
        names = sorted(set(pool.set_of))
        self.set_number = torch.tensor([names.index(s) for s in pool.set_of], device=device)

    def augmented(self, rows: Tensor) -> Tensor:
        return augment(
            self.pixels[rows], self.mirror[rows], self.turn[rows], self.half_turn[rows], self.shrinkable[rows]
        )


def head_name(task: Task) -> str:
    if task.key in COLOR_TASKS:
        return "any.color"
    return task.key.replace("deck.", "card.") if task.key != "deck.style" else task.key


@torch.no_grad()
def unfold_batch_norms(vision: nn.Module, batches: Batches, device: torch.device) -> None:
    """Give batch norms the statistics of what they get, and change nothing of what they put out.

    Weights from the package have theirs folded into the convolutions, and could not be trained with batch statistics.
    """
    norms = [m for m in vision.modules() if isinstance(m, nn.BatchNorm2d)]
    if any(bool(m.running_mean.any()) for m in norms):
        return
    vision.eval()
    sums: dict[nn.Module, list[Tensor]] = {m: [] for m in norms}

    def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].float()
        sums[module].append(torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))]))

    hooks = [m.register_forward_pre_hook(note) for m in norms]
    for _ in range(8):
        vision.forward_features(batches.augmented(torch.randint(len(batches.mirror), (64,), device=device)))
    for hook in hooks:
        hook.remove()
    for m in norms:
        mean, square = torch.stack(sums[m]).mean(0)
        variance = (square - mean**2).clamp(min=1e-4)
        old_scale = m.weight / (m.running_var + m.eps).sqrt()
        m.bias.copy_(m.bias + mean * old_scale)
        m.weight.copy_(old_scale * (variance + m.eps).sqrt())
        m.running_mean.copy_(mean)
        m.running_var.copy_(variance)


def stage_vision(
    nano: Nano,
    parts: Path,
    pool: Pool,
    tasks: list[Task],
    batches: Batches,
    args: argparse.Namespace,
    device: torch.device,
) -> dict[str, float]:
    """Multi-head classification + distillation. Leaves the averaged weights in `nano.vision_tower`."""
    vision = load_vision(parts, drop_path=0.1)
    if args.resume is not None:
        known = {k: v for k, v in nano.vision_tower.state_dict().items() if not k.startswith("classifier.")}
        vision.load_state_dict(known, strict=False)
    vision.to(device, memory_format=torch.channels_last)
    if args.resume is not None:
        unfold_batch_norms(vision, batches, device)
    teacher = load_vision(parts).to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    values: dict[str, list[str]] = {}
    for task in tasks:
        known = values.setdefault(head_name(task), [])
        known.extend(v for v in task.values if v not in known)
    names = sorted(values)
    column = {name: i for i, name in enumerate(names)}
    # An image of a deck answers under the heads of cards, so targets are one column per head; -100 is "no answer".
    targets = np.full((len(pool.set_of), len(names)), -100, dtype=np.int64)
    for task in tasks:
        index = {v: i for i, v in enumerate(values[head_name(task)])}
        keep = ~task.held_out
        targets[task.rows[keep], column[head_name(task)]] = [
            index[a] for a, k in zip(task.answers, keep, strict=True) if k
        ]
    target = torch.from_numpy(targets).to(device)
    heads = nn.ModuleList([nn.Linear(VISION_WIDTH, len(values[n])) for n in names]).to(device)

    weight_of_set: dict[str, float] = {}
    for task in tasks:
        weight_of_set[task.set_name] = weight_of_set.get(task.set_name, 0) + TASK_WEIGHT[task.key]
    row_weight = np.zeros(len(pool.set_of))
    sets = np.array(pool.set_of)
    answered = (targets >= 0).any(1)
    for name, weight in weight_of_set.items():
        rows = np.flatnonzero((sets == name) & answered)
        row_weight[rows] = weight / len(rows)
    row_weight = torch.from_numpy(row_weight / row_weight.sum()).to(device)

    parameters = [*vision.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=args.vision_lr, weight_decay=0.03)
    average = copy.deepcopy(vision).requires_grad_(False)
    average_heads = copy.deepcopy(heads).requires_grad_(False)
    start, step, budget = time.monotonic(), 0, args.vision_seconds
    order = torch.multinomial(row_weight, args.vision_batch * 500, replacement=True)
    vision.train()
    while (elapsed := time.monotonic() - start) < budget:
        if step % 500 == 0 and step:
            order = torch.multinomial(row_weight, args.vision_batch * 500, replacement=True)
        progress = elapsed / budget
        rate = args.vision_lr * min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = max(rate, 1e-6)
        at = step % 500 * args.vision_batch
        rows = order[at : at + args.vision_batch]
        pixels, partner, own = mix(
            batches.augmented(rows), batches.set_number[rows], batches.mixable[rows], args.mix_share
        )
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        quarter = len(rows) // 4
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            features = vision.forward_features(pixels)
            pooled = features.mean((2, 3))
            loss = torch.zeros((), device=device)
            for i, head in enumerate(heads):
                wanted = target[rows, i]
                logits = head(F.dropout(pooled, 0.2)).float()
                for answer, weight in ((wanted, own), (wanted[partner], 1 - own)):
                    each = F.cross_entropy(logits, answer, ignore_index=-100, reduction="none", label_smoothing=0.05)
                    loss = loss + (each * weight).sum() / len(rows)
            with torch.no_grad():
                taught = teacher(pixels[:quarter]).float()
            student = vision.classifier(pooled[:quarter]).float()
        distill = F.kl_div(F.log_softmax(student / 2, -1), F.softmax(taught / 2, -1), reduction="batchmean") * 4
        (loss + 0.25 * distill).backward()
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        decay = min(0.9985, step / (step + 50))
        with torch.no_grad():
            torch._foreach_lerp_([*average.parameters(), *average_heads.parameters()], parameters, 1 - decay)
            for mine, theirs in zip(average.buffers(), vision.buffers(), strict=True):
                mine.copy_(theirs)
        if step % 100 == 0 or step == 1:
            print(
                f"vision step {step} {elapsed:.0f}s loss {loss.item():.3f} distill {distill.item():.3f} lr {rate:.1e}",
                flush=True,
            )

    average.eval()
    accuracy: dict[str, float] = {}
    for task in tasks:
        rows = torch.from_numpy(task.rows[task.held_out]).to(device)
        if len(rows) == 0:
            continue
        index = {v: i for i, v in enumerate(values[head_name(task)])}
        wanted = torch.tensor([index[a] for a, h in zip(task.answers, task.held_out, strict=True) if h], device=device)
        found = []
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            for at in range(0, len(rows), 256):
                pooled = average.forward_features(plain(batches.pixels[rows[at : at + 256]])).mean((2, 3))
                found.append(average_heads[column[head_name(task)]](pooled).argmax(-1))
        accuracy[task.key] = (torch.cat(found) == wanted).float().mean().item()
    accuracy["steps"] = step
    nano.vision_tower.load_state_dict(average.state_dict())
    return accuracy


def stage_language(
    nano: Nano,
    tasks: list[Task],
    batches: Batches,
    tokenizer: Tokenizer,
    args: argparse.Namespace,
    device: torch.device,
    *,
    seconds: float,
    text_lr: float,
    projector_lr: float,
    vision_lr: float | None,
) -> dict[str, float]:
    """Teach the language model to answer. vision_lr: trains vision too (batch norms stay as they are); None: frozen."""
    nano.vision_tower.eval().requires_grad_(vision_lr is not None)
    writer = TextWriter(
        tasks,
        TASK_WEIGHT,
        COLOR_TASKS,
        tokenizer,
        nano.image_token,
        groups=args.groups,
        group_rows=args.group_rows,
        judge_share=args.judge_share,
    )
    first = 2 * args.seed + (vision_lr is not None)
    texts = written_ahead(writer, [first, 1000 + first])
    fresh = [*nano.multi_modal_projector.parameters(), *nano.embedding_head.parameters()]
    scalars = [nano.edge_scale, nano.edge_offset]
    old = list(nano.language_model.parameters())
    seeing = [] if vision_lr is None else list(nano.vision_tower.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": old, "lr": text_lr, "peak": text_lr},
            {"params": seeing, "lr": vision_lr or 0.0, "peak": vision_lr or 0.0},
            {"params": fresh, "lr": projector_lr, "peak": projector_lr},
            {"params": scalars, "lr": 5e-3, "peak": 5e-3, "weight_decay": 0.0},
        ],
        weight_decay=0.01,
        betas=(0.9, 0.98),
        fused=device.type == "cuda",
    )
    parameters = [*old, *seeing, *fresh, *scalars]
    average = [p.detach().clone() for p in parameters]
    start, step, running = time.monotonic(), 0, 3.0
    nano.train()
    nano.vision_tower.eval()
    while (elapsed := time.monotonic() - start) < seconds:
        progress = elapsed / seconds
        factor = min(1.0, max((step + 1) / 150, progress / 0.05)) * (
            0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))
        )
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        b = next(texts)
        rows, ids, labels, at, prompt_end, group, answer_id = (
            torch.from_numpy(a).to(device, non_blocking=True)
            for a in (b.rows, b.ids, b.answer_tokens, b.answer_places, b.prompt_end, b.group, b.answer_id)
        )
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            with torch.no_grad():
                pixels = batches.augmented(rows).contiguous(memory_format=torch.channels_last)
            with torch.set_grad_enabled(vision_lr is not None):
                features = nano.visual_features(pixels)
            states = nano.hidden_states(ids, F.dropout(features, 0.05))
            logits = nano.logits(states.flatten(0, 1)[at]).float()
            answer_loss = F.cross_entropy(logits, labels, label_smoothing=0.02)
            last = states[torch.arange(len(rows), device=device), prompt_end]
        h = nano.embed(last)
        paired = ((group.unsqueeze(0) == group.unsqueeze(1)) & (group >= 0).unsqueeze(0)).float()
        paired.fill_diagonal_(0)
        same = (answer_id.unsqueeze(0) == answer_id.unsqueeze(1)).float()
        pair = F.binary_cross_entropy_with_logits(
            nano.edge_logits(h), same, weight=paired, reduction="sum"
        ) / paired.sum().clamp(min=1)
        (answer_loss + 0.3 * pair).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        decay = min(0.996, step / (step + 30))
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1 - decay)
        if step % 50 == 0 or step == 1:
            running = answer_loss.item() if step == 1 else 0.8 * running + 0.2 * answer_loss.item()
            print(
                f"text step {step} {elapsed:.0f}s loss {running:.3f} pair {pair.item():.3f} "
                f"beta {nano.edge_scale.item():.2f} b {nano.edge_offset.item():.2f} t {ids.shape[1]}",
                flush=True,
            )
    texts.close()
    with torch.no_grad():
        for parameter, mean in zip(parameters, average, strict=True):
            parameter.copy_(mean)
    return {"steps": step, "final_loss": running}


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the labelled zips")
    parser.add_argument("--parts", type=Path, required=True, help="folder made by parts.py")
    parser.add_argument("--synthetic", type=Path, help="npz made by synthesize.py")
    parser.add_argument("--hued", type=Path, help="npz made by recolor.py")
    parser.add_argument("--decks", type=Path, help="folder made by draw_decks.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vision-seconds", type=float, default=400)
    parser.add_argument("--text-seconds", type=float, default=570)
    parser.add_argument("--refine-seconds", type=float, default=250)
    parser.add_argument("--refine-share", type=float, default=0.6, help="weight of the refined model in the average")
    parser.add_argument("--resume", type=Path, help="nano.pt to go on from instead of the parts")
    parser.add_argument("--vision-batch", type=int, default=384)
    parser.add_argument("--mix-share", type=float, default=0.5, help="share of the images of small sets that are mixed")
    parser.add_argument("--vision-lr", type=float, default=6e-4)
    parser.add_argument("--text-lr", type=float, default=3e-4)
    parser.add_argument("--projector-lr", type=float, default=1e-3)
    parser.add_argument("--refine-lr", type=float, default=1.2e-4)
    parser.add_argument("--refine-vision-lr", type=float, default=6e-5)
    parser.add_argument("--groups", type=int, default=16, help="groups of a batch; a group shares one interest")
    parser.add_argument("--group-rows", type=int, default=16)
    parser.add_argument("--judge-share", type=float, default=0.4, help="share of the batches that judge")
    parser.add_argument("--limit", type=int, help="images per set, for a dry run")
    parser.add_argument("--evaluate-limit", type=int, default=800)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    seed_all(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = 4  # trying every way of convolving took 48 s
    args.out.mkdir(parents=True, exist_ok=True)

    began = time.monotonic()
    pool, tasks = load(
        args.data,
        here / "labels",
        here / "interests.toml",
        args.synthetic,
        args.hued,
        args.decks,
        side=208,
        processes=args.processes,
        limit=args.limit,
    )
    print(f"{len(pool.set_of)} images, {len(tasks)} tasks, {time.monotonic() - began:.0f} s", flush=True)
    tokenizer = Tokenizer.from_file(str(args.parts / "tokenizer.json"))
    if args.resume is not None:
        nano = load_nano(args.resume, args.parts / "tokenizer.json").to(device)
    else:
        image_token = tokenizer.token_to_id("<|image|>")
        nano = Nano(load_vision(args.parts), load_language_model(args.parts), image_token).to(device)
    nano.vision_tower.to(memory_format=torch.channels_last)
    batches = Batches(pool, device)

    result: dict[str, object] = {"arguments": {k: str(v) for k, v in vars(args).items()}}
    if args.vision_seconds:
        result["vision"] = stage_vision(nano, args.parts, pool, tasks, batches, args, device)
        print(json.dumps(result["vision"], indent=1), flush=True)
    result["pseudo_colors"] = add_pseudo_colors(nano, pool, tasks, COLOR_TASKS, batches.pixels, device)
    print(f"{result['pseudo_colors']} photographs got a color from vision", flush=True)
    if args.text_seconds:
        result["language"] = stage_language(
            nano,
            tasks,
            batches,
            tokenizer,
            args,
            device,
            seconds=args.text_seconds,
            text_lr=args.text_lr,
            projector_lr=args.projector_lr,
            vision_lr=None,
        )
    before = {k: v.detach().clone() for k, v in nano.state_dict().items()}
    result["refine"] = stage_language(
        nano,
        tasks,
        batches,
        tokenizer,
        args,
        device,
        seconds=args.refine_seconds,
        text_lr=args.refine_lr,
        projector_lr=args.refine_lr,
        vision_lr=args.refine_vision_lr,
    )
    # Averaging the weights before and after keeps what each does better (held-out flowers color .68, .65 -> .68; rank
    # .98, .97 -> .98; vehicle color .29, .33 -> .33).
    share = args.refine_share
    after = nano.state_dict()
    nano.load_state_dict({k: torch.lerp(before[k], v, share) if v.is_floating_point() else v for k, v in after.items()})
    kept = {k: v.half().cpu() for k, v in nano.state_dict().items() if not k.startswith("language_model.lm_head")}
    torch.save(kept, args.out / "nano.pt")
    result["evaluation"] = evaluate(nano, pool, tasks, batches.pixels, tokenizer, device, args.evaluate_limit)
    (args.out / "result.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
