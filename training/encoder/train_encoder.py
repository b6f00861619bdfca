"""Train the interest-conditioned encoder on one or more GPUs, then print the table of what it can do.

    torchrun --nproc-per-node 2 train_encoder.py --data packed --vision vision.pth --text minilm --levels levels.json \
        --out OUT --left-out-seconds 180 --until SECONDS

In: `pack.py`'s folder (`--data`, with `decode.py`'s pixels, which may arrive while this waits), the parts (`--vision` the package's
.pth, `--text` MiniLM's folder, `--levels`). Out: `OUT/encoder.pt` (float16; also every two minutes on the way), `OUT/left_out.pt`
of a run before it with kinds left out, `OUT/results.json`, the table on standard output.

A step asks some groups of pictures about their labels (softmax over the label texts), some captions (InfoNCE), and some
groups about kinds of object that the untrained network believes to see; see docs/nano.md for the recipe. Each process draws
its own steps, by workers; gradients are averaged. Batch norms keep each process's own statistics; the first one's are saved.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from embed import TextEmbedder
from encoder import Encoder, load_imagenet
from evaluate_encoder import evaluate, print_table
from pixels import GENTLE, GREY, NO_MIRROR, PLAIN, SMALL, TURNED, augment, normalize, spoil
from sampler import GROUP, Sampler
from tasks import Book, Corpus, Task, make_tasks
from torch import Tensor, nn
from torch.nn import functional as F

DROP = 0.12  # of whole blocks, and of the last one most
SAVE_EVERY_S = 120
SYNC_EVERY = 20  # steps


def build(o: argparse.Namespace, seed: int) -> tuple[Corpus, Book, dict[bool, list[Task]], dict[bool, Sampler]]:
    """The same in every process, so that numbers of texts mean the same; by whether kinds are left out."""
    corpus, book = Corpus.read(o.data), Book()
    levels = json.loads(o.levels.read_text())
    tasks, samplers = {}, {}
    for left_out in (True, False):
        tasks[left_out] = make_tasks(
            corpus, book, Path(__file__).parent, leave_out=left_out, wordings=o.wordings, seed=7
        )
        samplers[left_out] = Sampler(corpus, tasks[left_out], book, levels, seed)
    return corpus, book, tasks, samplers


def beliefs(folder: Path, world: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the untrained network believes to see, (n, 1000), and mean and variance of its pooled features: waits for it."""
    while len(list(folder.glob("belief-*.npz"))) < world:
        time.sleep(0.2)
    parts = [np.load(folder / f"belief-{k}.npz") for k in range(world)]
    whole = np.zeros((sum(len(p["belief"]) for p in parts), 1000), np.float16)
    for k, part in enumerate(parts):
        whole[k::world] = part["belief"]
    mean = sum(p["total"] for p in parts) / len(whole)
    return whole, mean, sum(p["square"] for p in parts) / len(whole) - mean**2


def feed(o: argparse.Namespace, seed: int, world: int, left_out: Any, steps: Any) -> None:
    """A worker: puts steps of the phase that is on into the queue, for ever."""
    _, _, _, samplers = build(o, seed)
    belief, _, _ = beliefs(o.out, world)
    for sampler in samplers.values():
        sampler.learn_kinds(belief)
    while True:
        phase = bool(left_out.value)
        steps.put((phase, samplers[phase].step(o.groups, o.captions, o.kind_groups)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "vision", "text", "levels", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument(
        "--until", type=float, required=True, help="training ends so many seconds after $BEGAN, or the start"
    )
    parser.add_argument("--left-out-seconds", type=float, default=0)
    parser.add_argument("--groups", type=int, default=28)
    parser.add_argument("--kind-groups", type=int, default=6)
    parser.add_argument("--captions", type=int, default=128)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--wordings", type=int, default=220)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--no-table", action="store_true")
    o = parser.parse_args()
    began = float(os.environ.get("BEGAN") or time.time())
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if world > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    torch.manual_seed(rank)
    random.seed(rank)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    half = torch.bfloat16 if cuda else torch.float32
    o.out.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        print(f"[{time.time() - began:5.0f} s] {rank}: {text}", flush=True)

    context = processes.get_context("spawn")
    phase = context.Value("b", int(o.left_out_seconds > 0))
    made = context.Queue(2 * o.workers)
    workers = [
        context.Process(target=feed, args=(o, 1000 + 100 * rank + k, world, phase, made), daemon=True)
        for k in range(o.workers)
    ]
    for worker in workers:
        worker.start()
    drawn: Queue[tuple[bool, dict[str, Tensor], np.ndarray]] = Queue(2)

    def receive() -> None:
        """From the workers' queue into pinned memory."""
        while True:
            left_out, step = made.get()
            ready = {k: torch.from_numpy(v) for k, v in step.items()}
            drawn.put((left_out, {k: v.pin_memory() if cuda else v for k, v in ready.items()}, step["spoiled"]))

    Thread(target=receive, daemon=True).start()

    def steps(left_out: bool) -> Iterator[tuple[dict[str, Tensor], np.ndarray]]:
        phase.value = int(left_out)
        while True:
            of, step, bad = drawn.get()
            if of == left_out:
                yield step, bad

    ready: dict[str, Any] = {}
    compiled = Event()

    def prepare() -> None:
        torch.cuda.set_device(device) if cuda else None
        corpus, book, tasks, samplers = build(o, 0)
        say(f"{len(corpus.where)} pictures, {len(tasks[False])} tasks, {len(book.texts)} texts")
        while not (o.text / "ready").exists():
            time.sleep(0.3)
        texts = torch.from_numpy(TextEmbedder(o.text, device).embed(book.texts)).to(device)
        say("texts embedded")
        shards = len(np.unique(corpus.where[:, 0]))
        while len(list(o.data.glob("decoded-*"))) < shards:
            time.sleep(0.3)
        pixels = torch.from_numpy(
            np.memmap(o.data / "pixels.bin", np.uint8, "r", shape=(len(corpus.where), 3, o.side, o.side))
        ).to(device)
        say("pixels there")
        compiled.wait()
        teacher = Encoder(o.side)
        load_imagenet(teacher, torch.load(o.vision, map_location="cpu", weights_only=True))
        teacher = teacher.to(device, memory_format=torch.channels_last).eval()
        own = torch.arange(rank, len(pixels), world, device=device)
        belief = torch.zeros(len(own), 1000, dtype=torch.float16, device=device)
        total, square = 0.0, 0.0
        with torch.inference_mode(), torch.autocast(device.type, half, enabled=cuda):
            for at in range(0, len(own), 500):
                x = normalize(pixels[own[at : at + 500]]).to(memory_format=torch.channels_last)
                _, pooled = teacher.eyes(x)
                belief[at : at + 500] = teacher.classes(pooled[:, :1280]).softmax(1).half()
                total, square = total + pooled.sum(0), square + (pooled**2).sum(0)
        part = o.out / f"part-{rank}.npz"
        np.savez(part, belief=belief.cpu().numpy(), total=total.cpu().numpy(), square=square.cpu().numpy())
        part.rename(o.out / f"belief-{rank}.npz")
        whole, mean, variance = beliefs(o.out, world)
        say("beliefs")
        ready.update(
            corpus=corpus, book=book, tasks=tasks, names=samplers[False].names, texts=texts, pixels=pixels,
            belief=torch.from_numpy(whole).to(device), mean=torch.from_numpy(mean), variance=torch.from_numpy(variance),
        )  # fmt: skip

    preparing = Thread(target=prepare)
    preparing.start()
    model = Encoder(o.side)
    load_imagenet(model, torch.load(o.vision, map_location="cpu", weights_only=True))
    model = model.to(device, memory_format=torch.channels_last)
    initial = {k: v.detach().clone() for k, v in model.state_dict().items()}
    see = model.forward if o.eager else torch.compile(model.forward, dynamic=False)
    first, asks = (o.groups + o.kind_groups) * GROUP, (2 * o.groups + o.kind_groups) * GROUP
    pictures = first + 3 * GROUP + o.captions
    model.train()
    for _ in range(2):  # compiled while the pictures arrive
        x = torch.randn(pictures, 3, o.side, o.side, device=device).to(memory_format=torch.channels_last)
        interest = F.normalize(torch.randn(pictures + o.groups * GROUP, 384, device=device), dim=1)
        of = torch.arange(pictures + o.groups * GROUP, device=device) % pictures
        with torch.autocast(device.type, half, enabled=cuda):
            h, pooled = see(x, interest, DROP, of)
            classes = model.classes(pooled[:, :1280])
        (h.float().sum() + classes.float().mean()).backward()
        model.zero_grad(set_to_none=True)
    del x, interest, of, h, pooled, classes
    say("compiled")
    compiled.set()
    preparing.join()
    corpus, texts, pixels, belief = (ready[k] for k in ("corpus", "texts", "pixels", "belief"))
    initial["head.pooled_norm.running_mean"] = ready["mean"].to(device)
    initial["head.pooled_norm.running_var"] = ready["variance"].to(device)
    names = texts[torch.as_tensor(ready["names"], device=device)]

    def of_sets(value: Any) -> Tensor:
        return torch.tensor([value(n) for n in corpus.sets], device=device)

    allowed = [of_sets(lambda n: n not in NO_MIRROR), of_sets(lambda n: float(TURNED.get(n, 8)))]
    allowed += [of_sets(lambda n, some=some: n in some) for some in (PLAIN, GENTLE, SMALL, GREY)]
    set_of = torch.as_tensor(corpus.set_of.astype(np.int64), device=device)
    scale = nn.Parameter(torch.full((3,), 3.0, device=device))  # labels, captions, ImageNet's names; exp
    others = torch.eye(o.captions, dtype=torch.bool, device=device).logical_not()
    place = torch.arange(o.captions, device=device)

    def losses(step: dict[str, Tensor], spoiled: np.ndarray) -> tuple[Tensor, Tensor]:
        batch = {k: v.to(device, non_blocking=True) for k, v in step.items()}
        rows, bad, candidates, goal = batch["rows"], batch["spoiled"], batch["candidates"].long(), batch["goal"].float()
        picture = pixels[rows]
        if spoiled.any():
            gone = torch.from_numpy(np.flatnonzero(spoiled)).to(device)
            picture[gone] = spoil(picture[gone])
        mirror, turn, plain, gentle, small, grey = (kind[set_of[rows]] for kind in allowed)
        x = augment(picture, mirror, turn, plain | bad, gentle, small, grey).to(memory_format=torch.channels_last)
        asked_about = batch["interests"]
        interest = F.normalize(texts[asked_about] + 0.015 * torch.randn(len(asked_about), 384, device=device), dim=1)
        with torch.autocast(device.type, half, enabled=cuda):
            h, pooled = see(x, interest, DROP, batch["of"])
            classes = model.classes(pooled[:, :1280])
        h, factor = h.float(), scale.exp().clamp(max=80)
        logits = factor[0] * torch.einsum("bd,bcd->bc", h[:asks], texts[candidates.clamp(min=0)])
        logits = logits.masked_fill(candidates < 0, -1e4)
        known = goal.sum(1) > 0
        goal = 0.97 * goal + 0.03 * (candidates >= 0) / (candidates >= 0).sum(1, keepdim=True)
        asked = (-(goal * logits.log_softmax(1)).sum(1) * known).sum() / known.sum()
        told, caption = h[-o.captions :], batch["caption"]
        similar = factor[1] * told @ texts[caption].T
        similar = similar.masked_fill((caption[:, None] == caption[None]) & others, -1e4)
        captions = (F.cross_entropy(similar, place) + F.cross_entropy(similar.T, place)) / 2
        believed = belief[rows].float()
        sure = believed[first : first + 3 * GROUP]
        named = -(sure * (factor[2] * h[asks : asks + 3 * GROUP] @ names.T).log_softmax(1)).sum(1).mean()
        natural = (~bad & (believed.amax(1) > 0.05)).float()
        remembered = (-(believed * classes.float().log_softmax(1)).sum(1) * natural).mean()
        loss = 1.5 * asked + 0.3 * captions + 0.2 * named + 0.15 * remembered
        return loss, torch.stack([loss, asked, captions, named, remembered]).detach()

    def train(name: str, left_out: bool, until: float) -> dict[str, Tensor]:
        """From the start until so many seconds after `began`; the averaged weights, saved under the name."""
        fresh = [*model.eyes.positions.parameters(), *model.head.parameters()]
        optimizer = torch.optim.AdamW(
            [
                {"params": [*model.eyes.backbone.parameters()], "lr": o.lr, "weight_decay": 0.03},
                {"params": fresh, "lr": 1.5 * o.lr, "weight_decay": 0.05},
                {"params": [*model.classes.parameters()], "lr": 0.3 * o.lr, "weight_decay": 0.0},
                {"params": [scale], "lr": 2e-3, "weight_decay": 0.0},
            ],
            betas=(0.9, 0.98), fused=cuda,
        )  # fmt: skip
        rates = [group["lr"] for group in optimizer.param_groups]
        every = [p for group in optimizer.param_groups for p in group["params"]]
        state = {k: v for k, v in model.state_dict().items() if v.dtype.is_floating_point}
        average = {k: v.detach().clone() for k, v in state.items()}

        def save() -> None:
            weights = {k: (average[k].half() if k in average else v).cpu() for k, v in model.state_dict().items()}
            kept = {"model": weights, "scale": scale.detach().cpu(), "side": o.side, "steps": step}
            torch.save(kept, o.out / f"{name}.tmp")
            (o.out / f"{name}.tmp").rename(o.out / f"{name}.pt")

        model.train()
        if world > 1:
            dist.barrier()
        start = saved = time.time()
        seconds = max(5.0, until - (start - began))
        say(f"training {name} for {seconds:.0f} s")
        step, share, pace, sums = 0, 0.0, 0.0, torch.zeros(5, device=device)
        for made, spoiled in steps(left_out):
            now = min(1.0, share + pace * (step % SYNC_EVERY))
            rate = min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * now)) + 0.004
            for group, base in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = base * rate
            loss, parts = losses(made, spoiled)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if world > 1:
                grads = [p.grad for p in every if p.grad is not None]
                flat = torch.cat([g.flatten() for g in grads])
                dist.all_reduce(flat)
                flat /= world
                sizes = [g.numel() for g in grads]
                torch._foreach_copy_(grads, [f.view_as(g) for f, g in zip(flat.split(sizes), grads, strict=True)])
            nn.utils.clip_grad_norm_(every, 2.0)
            optimizer.step()
            step += 1
            sums += parts
            if step % 5 == 0:
                keep = min(0.99, step / (step + 50))
                with torch.no_grad():
                    torch._foreach_lerp_([average[k] for k in state], list(state.values()), 1 - keep)
            if step % SYNC_EVERY == 0:
                told = torch.tensor([(time.time() - start) / seconds], device=device)
                if world > 1:
                    dist.all_reduce(told)
                share, before = float(told) / world, share
                pace = (share - before) / SYNC_EVERY
                if step % 100 == 0:
                    say(f"step {step}: " + " ".join(f"{v / 100:.3f}" for v in sums.tolist()))
                    sums.zero_()
                if share >= 1:
                    break
                if rank == 0 and time.time() - saved > SAVE_EVERY_S:
                    saved = time.time()
                    save()
        say(f"{step} steps of {world} x {pictures} pictures; scales {[round(v, 1) for v in scale.exp().tolist()]}")
        if rank == 0:
            save()
        return average

    if o.left_out_seconds:
        model.load_state_dict(initial)
        train("left_out", True, time.time() - began + o.left_out_seconds)
    model.load_state_dict(initial)
    scale.data.fill_(3.0)
    if o.resume:
        kept = torch.load(o.resume, map_location="cpu", weights_only=True)
        model.load_state_dict({k: v.float() if v.dtype.is_floating_point else v for k, v in kept["model"].items()})
        scale.data.copy_(kept["scale"].float())
    average = train("encoder", False, o.until)
    if rank == 0 and not o.no_table:
        model.load_state_dict({**model.state_dict(), **average})
        model.eval()
        results = evaluate(model, texts, pixels, ready["tasks"][False], ready["book"], normalize, half)
        (o.out / "results.json").write_text(json.dumps(results))
        print_table(results)
        say("done")
    for worker in workers:
        worker.kill()
    os._exit(0)


if __name__ == "__main__":
    main()
