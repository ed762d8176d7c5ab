"""One run: a fleet that has found its pace, something that happens to it, and what comes after."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from tests.campaigns.fleet.agenda import Agenda
from tests.campaigns.fleet.decisions import Numbers, Policy
from tests.campaigns.fleet.figures import Figures, busiest_second, percentile
from tests.campaigns.fleet.miner import Miner, Surroundings
from tests.campaigns.fleet.sequencer import TENTHS, Kind, Outage, Sequencer

TASK_SECONDS = (10.0, 30.0)  # the shortest and the longest; 15 steps of FLUX on a consumer's GPU lie between
IDLE, BUSY = 0.01, 0.7  # shares of what the fleet could do
RACK = 0.1  # of the fleet, that starts at once
BURST = 0.5  # tasks a miner, that are created at once
ECHO = 10.0  # seconds after which what is still in step is more than the first moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happens: an outage of some `seconds`, a rack that starts, or a burst of tasks."""

    name: str
    what: Kind | Literal["rack", "burst"]
    seconds: float = 0.0

    @property
    def is_outage(self) -> bool:
        return self.what not in ("rack", "burst")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Seconds: the fleet settles, is watched, something happens, and it is watched again."""

    miners: int
    numbers: Numbers = field(default_factory=Numbers)
    load: float = IDLE
    event: Event
    settle: float
    watch: float
    after: float
    quiet: float = 0.0  # the last seconds, in which nobody creates a task
    seed: int = 1

    @property
    def begins(self) -> float:
        return self.settle + self.watch

    @property
    def ends(self) -> float:
        return self.begins + self.event.seconds

    @property
    def horizon(self) -> float:
        return self.ends + self.after


def simulate(scenario: Scenario, policy: Policy | None = None) -> Figures:
    """Run it. The same scenario gives the same figures, on any machine."""
    agenda, rng = Agenda(), random.Random(f"{scenario.seed} {scenario.miners}")
    sequencer = Sequencer(agenda, horizon=scenario.horizon)
    world = Surroundings(
        agenda=agenda,
        sequencer=sequencer,
        rng=rng,
        policy=policy or Policy(),
        numbers=scenario.numbers,
        render=partial(rng.uniform, *TASK_SECONDS),
    )
    _start_miners(world, scenario)
    _create_tasks(world, scenario)
    _bring_about(world, scenario)
    agenda.run(scenario.horizon)
    return _figures(world, scenario)


def _start_miners(world: Surroundings, scenario: Scenario) -> None:
    """A fleet that grew over months is out of step; but for a rack of it, if that is what happens."""
    period = scenario.numbers.wait or scenario.numbers.poll_interval
    rack = round(RACK * scenario.miners) if scenario.event.what == "rack" else 0
    for _ in range(scenario.miners - rack):
        Miner(world, settled=True).ask(world.rng.uniform(0.0, period))
    for _ in range(rack):
        Miner(world, settled=False).ask(scenario.begins)


def _create_tasks(world: Surroundings, scenario: Scenario) -> None:
    """Consumers come by chance, at a steady rate."""
    rate = scenario.load * scenario.miners / (sum(TASK_SECONDS) / 2)

    def create(now: float, _about: None) -> None:
        if now < scenario.horizon - scenario.quiet:
            world.sequencer.create(now)
            world.agenda.at(now + world.rng.expovariate(rate), create, None)

    world.agenda.at(world.rng.expovariate(rate), create, None)


def _bring_about(world: Surroundings, scenario: Scenario) -> None:
    event, sequencer = scenario.event, world.sequencer

    def burst(now: float, _about: None) -> None:
        for _ in range(round(BURST * scenario.miners)):
            sequencer.create(now)

    if event.what == "burst":
        world.agenda.at(scenario.begins, burst, None)
    elif event.what != "rack":
        world.agenda.at(scenario.begins, sequencer.go_down, Outage(kind=event.what, ends=scenario.ends))


def _figures(world: Surroundings, scenario: Scenario) -> Figures:
    seen, s = world.sequencer, scenario
    leases = [
        leased - created
        for created, leased in zip(seen.created_at, seen.leased_at, strict=True)
        if s.settle <= created and leased < s.begins
    ]
    return Figures(
        mean=sum(seen.arrived[round(s.settle * TENTHS) : round(s.begins * TENTHS)]) / s.watch,
        peak=busiest_second(seen.arrived, s.settle, s.begins),
        lease_p50=percentile(leases, 0.5),
        lease_p99=percentile(leases, 0.99),
        missed_peak=busiest_second(seen.missed, s.begins, s.ends),
        after_peak=busiest_second(seen.arrived, s.ends, s.horizon),
        later_peak=busiest_second(seen.arrived, s.ends + ECHO, s.horizon),
        back_p50=percentile(world.back_after, 0.5),
        created=len(seen.leases),
        leased=sum(seen.leases),
        answered=sum(seen.answers),
        repeated=sum(count > 1 for count in (*seen.leases, *seen.answers)),
    )
