"""The simulation of a fleet: that it counts right, runs the worker's own decisions, and what these keep."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from array import array

import pytest

from miner.task import policy
from tests.campaigns.fleet.decisions import Numbers, Policy
from tests.campaigns.fleet.figures import busiest_second, percentile
from tests.campaigns.fleet.simulation import BUSY, IDLE, Event, Scenario, simulate
from tests.campaigns.fleet.study import BURST, MINUTE, RACK, RESTART, ROLLING, SILENCE
from tests.support.paths import ROOT

POLLING, HELD = Numbers(wait=0.0), Numbers()
both_ways = pytest.mark.parametrize("numbers", [POLLING, HELD], ids=["polls", "held"])


def scenario(
    event: Event, *, miners: int = 100, numbers: Numbers = HELD, load: float = BUSY, quiet: float = 0.0, seed: int = 1
) -> Scenario:
    return Scenario(
        miners=miners,
        numbers=numbers,
        load=load,
        event=event,
        settle=30.0,
        watch=60.0,
        after=60.0 + quiet,
        quiet=quiet,
        seed=seed,
    )


@both_ways
def test_the_same_seed_gives_the_same_figures(numbers):
    assert simulate(scenario(MINUTE, numbers=numbers)) == simulate(scenario(MINUTE, numbers=numbers))
    assert simulate(scenario(MINUTE, numbers=numbers)) != simulate(scenario(MINUTE, numbers=numbers, seed=2))


@both_ways
@pytest.mark.parametrize("event", [MINUTE, SILENCE, RESTART, ROLLING, RACK, BURST], ids=lambda event: event.name)
def test_every_task_is_leased_once_and_answered_once_whatever_happens(event, numbers):
    figures = simulate(scenario(event, miners=40, numbers=numbers, quiet=120.0))
    assert figures.created == figures.leased == figures.answered > 100
    assert figures.repeated == 0


@both_ways
@pytest.mark.parametrize("load", [IDLE, BUSY], ids=["idle", "busy"])
def test_after_a_minutes_outage_no_second_is_busier_than_three_times_the_mean(load, numbers):
    assert simulate(scenario(MINUTE, miners=300, numbers=numbers, load=load)).ratio <= 3.0


def test_an_idle_miner_asks_once_an_interval_or_once_a_wait():
    polls = simulate(scenario(RACK, miners=300, numbers=POLLING, load=IDLE))
    held = simulate(scenario(RACK, miners=300, load=IDLE))
    assert polls.mean == pytest.approx(270, rel=0.1)  # the rack of 30 is not there yet
    assert held.mean == pytest.approx(270 / 20, rel=0.1)


def test_a_held_request_gets_a_task_in_the_moment_of_its_creation():
    assert simulate(scenario(MINUTE)).lease_p99 == 0.0
    assert 0.0 < simulate(scenario(MINUTE, numbers=POLLING)).lease_p50 < 0.1


def test_the_decisions_are_the_workers_own():
    assert (Policy().backoff, Policy().idle_delay) == (policy.backoff, policy.idle_delay)
    assert (Policy().observe, Policy().learn) == (policy.observe, policy.learn)
    assert Policy().prefetchable == policy.prefetchable


def test_another_backoff_makes_another_outcome():
    """All come back in one second, if they all wait for the same time."""
    in_step = Policy(backoff=lambda _attempt, **_: 7.0)
    assert simulate(scenario(MINUTE, miners=300, load=IDLE), in_step).ratio > 10.0


def test_another_idle_delay_makes_another_outcome():
    """Miners that poll twice as often are twice the load."""
    hasty = Policy(idle_delay=lambda poll_interval, *, rng: policy.idle_delay(poll_interval / 2, rng=rng))
    usual = simulate(scenario(RACK, numbers=POLLING, load=IDLE))
    assert simulate(scenario(RACK, numbers=POLLING, load=IDLE), hasty).mean == pytest.approx(1.9 * usual.mean, rel=0.1)


def test_a_task_that_the_policy_gives_up_does_not_pass_unseen():
    def forgetful(holds, **_):
        return policy.observe(holds, running=None, canceled=[hold.task_id for hold in holds])

    with pytest.raises(AssertionError, match="never took it away"):
        simulate(scenario(MINUTE), Policy(observe=forgetful))


def test_the_busiest_second_may_begin_at_any_tenth():
    tenths = array("L", [0] * 50)
    tenths[18], tenths[22], tenths[28] = 5, 7, 100
    assert busiest_second(tenths, 1.0, 2.8) == 12
    assert busiest_second(tenths, 0.0, 5.0) == 107
    assert busiest_second(tenths, 1.0, 1.5) == 0


def test_percentiles():
    values = list(range(101))
    random.Random(1).shuffle(values)
    assert (percentile(values, 0.5), percentile(values, 0.99)) == (50, 99)
    assert math.isnan(percentile([], 0.5))


def test_the_command_prints_its_tables_and_writes_the_figures(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tests.campaigns.fleet",
        "--miners",
        "100",
        "--no-wait",
        "--json",
        tmp_path / "f.json",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    runs = json.loads((tmp_path / "f.json").read_text())
    assert all(run["miners"] == 100 and run["numbers"]["wait"] == 0.0 for run in runs)
    assert done.returncode == (0 if all(run["ratio"] <= 3.0 for run in runs) else 1), done.stderr
    assert done.stdout.splitlines()[0] == "| requests a second: mean, busiest second | 100 |"
    assert done.stdout.count("| polls, idle: a minute's outage | ") == 2
