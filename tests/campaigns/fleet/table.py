"""The figures of many runs as Markdown: a row a case, a column a size of fleet. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from tests.campaigns.fleet.figures import Figures
from tests.campaigns.fleet.simulation import ECHO, IDLE, Scenario

AT_MOST = 3.0  # means, in any second after an outage

Run = tuple[Scenario, Figures]


def tables(runs: Sequence[Run]) -> str:
    """All of them, from runs that are in the order of the miners' number."""
    steady = [next(group) for _, group in groupby(runs, key=lambda run: (run[0].miners, _fleet(run[0])))]
    outages = [run for run in runs if run[0].event.is_outage]
    others = [run for run in runs if not run[0].event.is_outage]
    return "\n\n".join(
        (
            _table("requests a second: mean, busiest second", steady, _fleet, lambda f: f"{f.mean:,.0f}, {f.peak:,}"),
            _table("from creation to lease, ms: p50, p99", steady, _fleet, _latency),
            _table("busiest second after it, in means", outages, label, _ratio),
            _table("busiest second while down, in means; half are back in", outages, label, _recovery),
            _table(f"busiest second, in means; {ECHO:.0f} s later", others, label, _echo),
        )
    )


def label(scenario: Scenario) -> str:
    return f"{_fleet(scenario)}: {scenario.event.name}"


def bearable(run: Run) -> bool:
    """Whether the fleet's return was; anything but an outage is."""
    return not run[0].event.is_outage or run[1].ratio <= AT_MOST


def _table(title: str, runs: Sequence[Run], name: Callable[[Scenario], str], cell: Callable[[Figures], str]) -> str:
    sizes = list(dict.fromkeys(scenario.miners for scenario, _ in runs))
    cells = {(name(scenario), scenario.miners): cell(figures) for scenario, figures in runs}
    rows = [[title, *(f"{size:,}" for size in sizes)], ["---", *("---:" for _ in sizes)]]
    rows += [[row, *(cells[row, size] for size in sizes)] for row in dict.fromkeys(row for row, _ in cells)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _fleet(scenario: Scenario) -> str:
    return f"{'held' if scenario.numbers.wait else 'polls'}, {'idle' if scenario.load == IDLE else 'busy'}"


def _latency(figures: Figures) -> str:
    return f"{figures.lease_p50 * 1000:.1f}, {figures.lease_p99 * 1000:.1f}"


def _ratio(figures: Figures) -> str:
    return f"{figures.ratio:.1f}" if figures.ratio <= AT_MOST else f"**{figures.ratio:.1f}**"


def _recovery(figures: Figures) -> str:
    return f"{figures.missed_peak / figures.mean:.1f}; {figures.back_p50:.0f} s"


def _echo(figures: Figures) -> str:
    return f"{figures.ratio:.1f}; {figures.later_peak / figures.mean:.1f}"
