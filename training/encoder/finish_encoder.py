"""A second stage of training on several GPUs: goes on from weights, compiles while its data still arrive.

    torchrun --nproc-per-node 2 finish_encoder.py --data packed --text minilm --vision vision.pth --levels levels.json \
        --resume encoder.pt --out OUT --until SECONDS

In: what `train_encoder.py` reads, with `decode.py`'s pixels. Out: `OUT/encoder.pt`. Each process draws its own steps; gradients
are averaged. Batch norms keep each process's own statistics; the first one's are saved.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from embed import TextEmbedder
from encoder import Encoder, load_imagenet
from tasks import Book, Corpus, make_tasks
from torch import nn
from torch.nn import functional as F
from train_encoder import GENTLE, GROUP, NO_MIRROR, PLAIN, TURNED, Sampler, augment, normalize, spoil

BELIEFS = 20_000  # pictures whose kinds of object the untrained network is asked for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("data", "vision", "text", "levels", "out", "resume"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--until", type=float, required=True)
    parser.add_argument("--groups", type=int, default=30)
    parser.add_argument("--kind-groups", type=int, default=7)
    parser.add_argument("--captions", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--wordings", type=int, default=120)
    parser.add_argument("--eager", action="store_true")
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

    def say(text: str) -> None:
        print(f"[{time.time() - began:5.0f} s] {rank}: {text}", flush=True)

    ready: dict[str, Any] = {}
    compiled = Event()

    def prepare() -> None:
        torch.cuda.set_device(device) if cuda else None
        corpus, book = Corpus.read(o.data), Book()
        tasks = make_tasks(corpus, book, Path(__file__).parent, leave_out=False, wordings=o.wordings, seed=7)
        sampler = Sampler(corpus, tasks, book, json.loads(o.levels.read_text()), 100 + rank)
        while not (o.text / "ready").exists():
            time.sleep(0.3)
        texts = torch.from_numpy(TextEmbedder(o.text, device).embed(book.texts)).to(device)
        say("texts embedded")
        shards = len(np.unique(corpus.where[:, 0]))
        while len(list(o.data.glob("decoded-*"))) < shards:
            time.sleep(0.3)
        pixels = torch.from_numpy(
            np.memmap(o.data / "pixels.bin", np.uint8, "r", shape=(len(corpus.where), 3, o.side, o.side))
        )
        pixels = pixels.to(device)
        say("pixels there")
        compiled.wait()
        teacher = Encoder(o.side)
        load_imagenet(teacher, torch.load(o.vision, map_location="cpu", weights_only=True))
        teacher = teacher.to(device, memory_format=torch.channels_last).eval()
        belief = torch.zeros(len(pixels), 1000, dtype=torch.float16, device=device)
        some = np.sort(np.random.default_rng(rank).permutation(len(pixels))[:BELIEFS])
        with torch.inference_mode(), torch.autocast(device.type, half, enabled=cuda):
            for at in range(0, len(some), 500):
                rows = torch.from_numpy(some[at : at + 500]).to(device)
                _, pooled = teacher.eyes(normalize(pixels[rows]).to(memory_format=torch.channels_last))
                belief[rows] = teacher.classes(pooled[:, :1280]).softmax(1).half()
        sampler.learn_kinds(belief.cpu().numpy())
        say(f"beliefs; {len(sampler.kinds)} kinds")
        ready.update(corpus=corpus, sampler=sampler, texts=texts, pixels=pixels, belief=belief.clone())

    preparing = Thread(target=prepare)
    preparing.start()
    model = Encoder(o.side).to(device, memory_format=torch.channels_last)
    see = model.forward if o.eager else torch.compile(model.forward, dynamic=False)
    first, asks = (o.groups + o.kind_groups) * GROUP, (2 * o.groups + o.kind_groups) * GROUP
    pictures = first + 3 * GROUP + o.captions
    model.train()
    for _ in range(2):
        x = torch.randn(pictures, 3, o.side, o.side, device=device).to(memory_format=torch.channels_last)
        interest = F.normalize(torch.randn(pictures + o.groups * GROUP, 384, device=device))
        of = torch.arange(pictures + o.groups * GROUP, device=device) % pictures
        with torch.autocast(device.type, half, enabled=cuda):
            h, pooled = see(x, interest, 0.1, of)
            classes = model.classes(pooled[:, :1280])
        (h.float().sum() + classes.float().mean()).backward()
        model.zero_grad(set_to_none=True)
    del x, interest, of, h, pooled, classes
    say("compiled")
    compiled.set()
    kept = torch.load(o.resume, map_location="cpu", weights_only=True)
    model.load_state_dict({k: v.float() if v.dtype.is_floating_point else v for k, v in kept["model"].items()})
    scale = nn.Parameter(kept["scale"].float().to(device))
    preparing.join()
    corpus, sampler, texts, pixels, belief = (ready[k] for k in ("corpus", "sampler", "texts", "pixels", "belief"))
    names = texts[torch.as_tensor(sampler.names, device=device)]

    def of_sets(value: Any) -> torch.Tensor:
        return torch.tensor([value(n) for n in corpus.sets], device=device)

    mirror_set, turn_set = of_sets(lambda n: n not in NO_MIRROR), of_sets(lambda n: float(TURNED.get(n, 8)))
    plain_set, gentle_set = of_sets(lambda n: n in PLAIN), of_sets(lambda n: n in GENTLE)
    set_of = torch.as_tensor(corpus.set_of.astype(np.int64), device=device)
    fresh = [*model.eyes.positions.parameters(), *model.head.parameters()]
    optimizer = torch.optim.AdamW(
        [
            {"params": [*model.eyes.backbone.parameters()], "lr": o.lr, "weight_decay": 0.02},
            {"params": fresh, "lr": 1.5 * o.lr, "weight_decay": 0.05},
            {"params": [*model.classes.parameters()], "lr": 0.3 * o.lr, "weight_decay": 0.0},
            {"params": [scale], "lr": 1e-3, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    rates = [group["lr"] for group in optimizer.param_groups]
    every = [p for group in optimizer.param_groups for p in group["params"]]
    average = {k: v.detach().clone().float() for k, v in model.state_dict().items()}
    draw = ThreadPoolExecutor(1)
    coming = draw.submit(sampler.step, o.groups, o.captions, o.kind_groups)
    if world > 1:
        dist.barrier()
    start, step, share = time.time(), 0, 0.0
    seconds = max(15.0, o.until - (start - began))
    say(f"training for {seconds:.0f} s")
    sums = torch.zeros(3, device=device)
    while share < 1:
        rate = min(1.0, (step + 1) / 40) * (0.5 + 0.5 * math.cos(math.pi * share)) + 0.004
        for group, base in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = base * rate
        drawn = coming.result()
        coming = draw.submit(sampler.step, o.groups, o.captions, o.kind_groups)
        batch = {k: torch.from_numpy(v).to(device, non_blocking=True) for k, v in drawn.items()}
        rows, bad = batch["rows"], batch["spoiled"]
        picture = pixels[rows]
        if drawn["spoiled"].any():
            picture[bad] = spoil(picture[bad])
        kind = set_of[rows]
        x = augment(picture, mirror_set[kind], turn_set[kind], plain_set[kind] | bad, gentle_set[kind]).to(
            memory_format=torch.channels_last
        )
        interest = F.normalize(
            texts[batch["interests"]] + 0.015 * torch.randn(len(batch["interests"]), 384, device=device), dim=1
        )
        with torch.autocast(device.type, half, enabled=cuda):
            h, pooled = see(x, interest, 0.1, batch["of"])
            classes = model.classes(pooled[:, :1280])
        h, factor, candidates = h.float(), scale.exp().clamp(max=80), batch["candidates"]
        logits = factor[0] * torch.einsum("bd,bcd->bc", h[:asks], texts[candidates.clamp(min=0)])
        logits = logits.masked_fill(candidates < 0, -1e4)
        known = batch["goal"].sum(1) > 0
        goal = 0.97 * batch["goal"] + 0.03 * (candidates >= 0) / (candidates >= 0).sum(1, keepdim=True)
        asked = (-(goal * logits.log_softmax(1)).sum(1) * known).sum() / known.sum()
        told = h[-o.captions :]
        similar = factor[1] * told @ texts[batch["caption"]].T
        same = batch["caption"][:, None] == batch["caption"][None]
        similar = similar.masked_fill(same & ~torch.eye(len(same), dtype=torch.bool, device=device), -1e4)
        place = torch.arange(len(told), device=device)
        captions = (F.cross_entropy(similar, place) + F.cross_entropy(similar.T, place)) / 2
        believed = belief[rows].float()
        sure = believed[first : first + 3 * GROUP]
        named = -(sure * (factor[2] * h[asks : asks + 3 * GROUP] @ names.T).log_softmax(1)).sum(1).mean()
        natural = (~bad & (believed.amax(1) > 0.05)).float()
        remembered = (-(believed * classes.float().log_softmax(1)).sum(1) * natural).mean()
        loss = 1.5 * asked + 0.3 * captions + 0.15 * named + 0.1 * remembered
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        share = (time.time() - start) / seconds
        if world > 1:
            grads = [p.grad for p in every if p.grad is not None]
            flat = torch.cat([*(g.flatten() for g in grads), torch.tensor([share], device=device)])
            dist.all_reduce(flat)
            flat /= world
            at = 0
            for grad in grads:
                grad.copy_(flat[at : at + grad.numel()].view_as(grad))
                at += grad.numel()
            share = float(flat[-1])
        nn.utils.clip_grad_norm_(every, 2.0)
        optimizer.step()
        step += 1
        if step % 5 == 0:
            keep = min(0.97, step / (step + 50))
            with torch.no_grad():
                for k, v in model.state_dict().items():
                    if v.dtype.is_floating_point:
                        average[k].lerp_(v.float(), 1 - keep)
        sums += torch.stack([loss, asked, captions]).detach()
        if step % 50 == 0:
            say(f"step {step}: " + " ".join(f"{v / 50:.3f}" for v in sums.tolist()))
            sums.zero_()
    say(f"{step} steps of {world} x {pictures} pictures")
    if rank == 0:
        weights = {
            k: (average[k].half() if v.dtype.is_floating_point else v).cpu() for k, v in model.state_dict().items()
        }
        o.out.mkdir(parents=True, exist_ok=True)
        torch.save(
            {"model": weights, "adapter": {}, "scale": scale.detach().cpu(), "side": o.side, "steps": step},
            o.out / "encoder.tmp",
        )
        (o.out / "encoder.tmp").rename(o.out / "encoder.pt")
    os._exit(0)


if __name__ == "__main__":
    main()
