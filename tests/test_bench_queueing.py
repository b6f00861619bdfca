"""The simulation behind the plan for 10^8 pictures agrees with what is known of queues."""

from __future__ import annotations

import pytest

from bench.queueing import Shard, mean_wait, throughput, wait_md1, wait_mmc


@pytest.mark.parametrize(("servers", "load"), [(1, 0.7), (4, 3.2)])
def test_exponential_calls_wait_as_erlang_says(servers: int, load: float) -> None:
    found = mean_wait(load, lambda random: float(random.exponential(1.0)), servers, 100_000, servers)
    assert found == pytest.approx(wait_mmc(load, 1.0, servers), rel=0.08)


def test_calls_of_one_length_wait_half_as_long() -> None:
    assert wait_md1(0.7, 1.0) == pytest.approx(wait_mmc(0.7, 1.0, 1) / 2)
    assert mean_wait(0.7, lambda random: 1.0, 1, 100_000, 3) == pytest.approx(wait_md1(0.7, 1.0), rel=0.08)


def test_full_windows_keep_all_streams_busy_and_small_ones_do_not() -> None:
    shard = Shard(replicas=4, streams=8, call_s=1.0, spread=0.5, driver_s=0.0005, window=64)
    assert throughput(shard, 8_000, 1) == pytest.approx(shard.most_per_s, rel=0.03)
    small = Shard(replicas=4, streams=8, call_s=1.0, spread=0.5, driver_s=0.0005, window=8)
    assert throughput(small, 8_000, 1) == pytest.approx(8.0, rel=0.03)


def test_a_driver_that_is_too_slow_is_the_limit() -> None:
    shard = Shard(replicas=64, streams=8, call_s=1.0, spread=0.5, driver_s=0.01, window=1024)
    assert shard.most_per_s == 100
    assert throughput(shard, 4_000, 1) == pytest.approx(100, rel=0.03)


def test_lost_replicas_cost_the_time_that_they_are_away() -> None:
    whole = Shard(replicas=4, streams=4, call_s=1.0, spread=0.2, driver_s=0.0005, window=32)
    shaky = Shard(4, 4, 1.0, 0.2, 0.0005, 32, lost_per_hour=60.0, back_s=30.0)
    share = throughput(shaky, 30_000, 2) / throughput(whole, 30_000, 2)
    # Each of 4 replicas is lost every 240 s that it is up, and away for 30 s.
    assert share == pytest.approx(240 / 270, abs=0.04)
