"""Queues of looks before replicas: a simulation, the formulas that check it, and the plan for 10^8 pictures.

`python -m bench.queueing` prints the check and the plan of docs/development/hundred-million.md.

A *shard* is one driver with its store, which keeps `window` calls under way before its replicas (a closed queue).
A driver needs `driver_s` of its own time for each call (reading thumbnails, storing the answers), one call at a time.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Draw = Callable[[np.random.Generator], float]


def mean_wait(arrivals_per_s: float, draw_service_s: Draw, servers: int, calls: int, seed: int) -> float:
    """Mean time in the queue, in seconds, of calls that come as a Poisson process and are served in their order."""
    random = np.random.default_rng(seed)
    free_at = [0.0] * servers
    heapq.heapify(free_at)
    now = waited = 0.0
    for _ in range(calls):
        now += random.exponential(1 / arrivals_per_s)
        start = max(now, heapq.heappop(free_at))
        waited += start - now
        heapq.heappush(free_at, start + draw_service_s(random))
    return waited / calls


def erlang_c(load: float, servers: int) -> float:
    """The probability that a call waits in M/M/c. load: arrivals per second times mean service time, below servers."""
    term = total = 1.0
    for k in range(1, servers):
        term *= load / k
        total += term
    last = term * load / servers * servers / (servers - load)
    return last / (total + last)


def wait_mmc(arrivals_per_s: float, service_s: float, servers: int) -> float:
    """Mean time in the queue of M/M/c, in seconds."""
    load = arrivals_per_s * service_s
    return erlang_c(load, servers) * service_s / (servers - load)


def wait_md1(arrivals_per_s: float, service_s: float) -> float:
    """Mean time in the queue of M/D/1, in seconds (Pollaczek-Khinchine)."""
    load = arrivals_per_s * service_s
    return load * service_s / (2 * (1 - load))


@dataclass(frozen=True, slots=True)
class Shard:
    """replicas: GPUs' servers of one driver. streams: calls that one replica decodes at once. call_s: mean seconds of a
    call in it; spread: standard deviation over mean (replies differ in length). driver_s: of the driver, a call.
    lost_per_hour: replicas that are lost, of all; back_s: until one is back."""

    replicas: int
    streams: int
    call_s: float
    spread: float
    driver_s: float
    window: int
    lost_per_hour: float = 0.0
    back_s: float = 600.0

    @property
    def most_per_s(self) -> float:
        """Looks a second if nothing ever waited: of the replicas, or of the driver."""
        return min(self.replicas * self.streams / self.call_s, 1 / self.driver_s)


def throughput(shard: Shard, calls: int, seed: int) -> float:
    """Looks a second that are stored, by simulation: a call holds a stream of a replica, then the driver, then the next
    one is sent. A lost replica loses the calls in it, which are sent again."""
    random = np.random.default_rng(seed)
    sigma = math.sqrt(math.log1p(shard.spread**2))

    def service() -> float:
        return float(random.lognormal(math.log(shard.call_s) - sigma**2 / 2, sigma))

    slots = shard.replicas * shard.streams
    ends: list[tuple[float, int]] = []  # when a stream gives its reply, and of which replica it is
    down_until = [0.0] * shard.replicas
    waiting = shard.window
    free = [replica for replica in range(shard.replicas) for _ in range(shard.streams)]
    per_s = shard.lost_per_hour / 3600
    next_loss = random.exponential(1 / per_s) if per_s else math.inf
    driver_free = now = 0.0
    stored = 0
    warm_at, warm_stored = 0.0, calls // 5
    back: list[tuple[float, int]] = []
    ready: list[float] = []  # when the driver has stored a reply and sends the next call
    while stored < calls:
        while waiting and free:
            replica = free.pop()
            heapq.heappush(ends, (now + service(), replica))
            waiting -= 1
        times = [ends[0][0] if ends else math.inf, back[0][0] if back else math.inf, ready[0] if ready else math.inf]
        now = min(*times, next_loss)
        if now == next_loss:
            gone = int(random.integers(shard.replicas))
            next_loss = now + random.exponential(1 / per_s)
            if down_until[gone] > now:
                continue
            down_until[gone] = now + shard.back_s
            kept = [end for end in ends if end[1] != gone]
            waiting += len(ends) - len(kept)
            ends = kept
            heapq.heapify(ends)
            free = [replica for replica in free if replica != gone]
            heapq.heappush(back, (down_until[gone], gone))
        elif now == times[1]:
            _, replica = heapq.heappop(back)
            free += [replica] * shard.streams
        elif now == times[2]:
            heapq.heappop(ready)
            waiting += 1
        else:
            _, replica = heapq.heappop(ends)
            free.append(replica)
            driver_free = max(driver_free, now) + shard.driver_s
            heapq.heappush(ready, driver_free)
            stored += 1
            if stored == warm_stored:
                warm_at = driver_free
    assert len(free) + len(ends) <= slots
    return (stored - warm_stored) / (driver_free - warm_at)


def main() -> None:
    def exponential(random: np.random.Generator) -> float:
        return float(random.exponential(1.0))

    print("| queue | waits by formula, s | simulated, s |\n|---|---|---|")
    for servers, load in ((1, 0.8), (4, 3.4), (64, 58.0)):
        found = mean_wait(load, exponential, servers, 400_000, servers)
        print(f"| M/M/{servers}, {load / servers:.0%} busy | {wait_mmc(load, 1.0, servers):.3f} | {found:.3f} |")
    print(f"| M/D/1, 80% busy | {wait_md1(0.8, 1.0):.3f} | {mean_wait(0.8, lambda random: 1.0, 1, 400_000, 5):.3f} |")
    print("\n| shard | most, looks/s | simulated | share |\n|---|---|---|---|")
    for name, shard in PLANS.items():
        rate = throughput(shard, 60_000, 3)
        print(f"| {name} | {shard.most_per_s:.0f} | {rate:.0f} | {rate / shard.most_per_s:.2f} |")


PLANS = {
    "8 replicas of 32 streams, window 256": Shard(8, 32, 4.0, 0.5, 0.0015, 256),
    "the same, window 512": Shard(8, 32, 4.0, 0.5, 0.0015, 512),
    "the same, a replica lost every hour": Shard(8, 32, 4.0, 0.5, 0.0015, 512, lost_per_hour=1.0),
    "64 replicas, window 4,096: one driver for all": Shard(64, 32, 4.0, 0.5, 0.0015, 4096),
}


if __name__ == "__main__":
    main()
