"""The tasks of a campaign: small ones of every kind, wrong ones and hopeless ones among them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support import flows
from tests.support.testbed import Testbed

SIZES = ((16, 16), (64, 48), (200, 120))  # pixels

SIZED = """
[parameters.side]
type = "int"
default = 64
min = 16
max = 512
bind = ["empty.width", "empty.height"]
"""
WAITING = """
[parameters.seconds]
type = "float"
required = true
min = 0.0
max = 600.0
bind = ["middle.seconds"]
"""
FAILING = """
[parameters.label]
type = "string"
required = true
max_length = 100
bind = ["middle.label"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A task as `Testbed.create` takes it, and what kind it is."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)


def workflows(testbed: Testbed, *, test_nodes: bool) -> dict[str, list[str]]:
    """Write the campaign's workflows; returns ids → names."""
    ids = {"4": ["upscaler-lanczos"], "5": [testbed.add_workflow("plain", flows.plain(), parameters=SIZED)]}
    if test_nodes:
        tight = flows.fail("out-of-memory", times=1)
        ids["6"] = [testbed.add_workflow("wait", flows.wait(0.0), parameters=WAITING)]
        ids["7"] = [testbed.add_workflow("tight", tight, parameters=FAILING)]
    return ids


def orders(testbed: Testbed, rng: random.Random, *, test_nodes: bool) -> Iterator[Order]:
    """Tasks without end. `testbed` has a devnet that runs, for their pictures."""
    pictures = [testbed.picture(size, f"{size[0]}x{size[1]}.png") for size in SIZES]
    kinds = {"upscale": 8, "plain": 6, "wrong": 3, "hasty": 1} | ({"wait": 4, "tight": 1} if test_nodes else {})
    number = 0
    while True:
        number += 1
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        rest = {
            "target": rng.choice(["presigned", "presigned", "s3"]),
            "details_form": rng.choice(["object", "string"]),
        }
        match kind:
            case "upscale":
                fields = {"parameters": {"image": rng.choice(pictures)}, **rest}
            case "plain":
                fields = {"workflow_id": "5", "parameters": {"side": rng.randint(16, 256)}, **rest}
            case "wait":
                fields = {"workflow_id": "6", "parameters": {"seconds": rng.choice([0.05, 0.3, 1.0])}, **rest}
            case "tight":
                fields = {"workflow_id": "7", "parameters": {"label": f"task-{number}"}, **rest}
            case "hasty":  # may well be over before it is begun
                fields = {
                    "parameters": {"image": rng.choice(pictures)},
                    "timeout_seconds": rng.choice([0.05, 0.5]),
                    **rest,
                }
            case _:
                fields = rng.choice(WRONG)
        yield Order(kind=kind, fields=fields)


WRONG: tuple[dict[str, Any], ...] = (
    {"workflow_id": "99"},
    {"task_type": "txt2img"},
    {"parameters": {"scale": 4}},
    {"parameters": {"image": "photo.jpg"}},
    {"parameters": {"image": "http://169.254.169.254/latest/meta-data"}},
    {"parameters": {"image": "data:image/png;base64,AAAA"}},
    {"task_details": [1]},
    {"task_details": {"prompt": 7}},
    {"target": "none"},
    {"workflow_id": "5", "parameters": {"side": 10**6}},
)
