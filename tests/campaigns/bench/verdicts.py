"""What a preflight costs: every bundled workflow against an `/object_info` that is at hand."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from miner.comfy.client import ComfyClient
from miner.comfy.preflight import Machine, check_workflow
from miner.config.bundled import WORKFLOWS
from miner.workflows import load_library
from tests.campaigns.bench.measurement import Measurement
from tests.campaigns.bench.table import Case, Found
from tests.campaigns.bench.testbed import BenchTestbed
from tests.support.paths import RECORDINGS

RECORDED = RECORDINGS / "object_info-0.33.0.json"


def measurements(comfyui: str) -> Iterator[Measurement]:
    """`comfyui` is the URL of a real one, or empty: then a recording says what nodes it has."""
    yield Measurement(
        cases=(Case(name="preflight of the bundled workflows, p50", unit="ms", at_most=50.0, digits=2),),
        measure=partial(_preflight, comfyui=comfyui),
    )


def _preflight(_testbed: BenchTestbed, *, comfyui: str) -> Sequence[Found]:
    object_info = _object_info(comfyui)
    machine = Machine(object_info=object_info, version="0.33.0")
    workflows = load_library([WORKFLOWS], ids={}).workflows
    times = []
    for _ in range(50):
        began = time.perf_counter()
        for workflow in workflows:
            check_workflow(workflow, machine)
        times.append(1000 * (time.perf_counter() - began))
    return (Found(statistics.median(times), f"{len(workflows)} workflows, {len(object_info)} nodes"),)


def _object_info(comfyui: str) -> dict[str, Any]:
    if not comfyui:
        recorded: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8"))
        return recorded
    with closing(ComfyClient(comfyui, client_id="bench")) as client:
        return client.object_info()
