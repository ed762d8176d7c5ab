"""The tasks of a campaign: small ones of every kind, wrong ones and hopeless ones among them.

Each says whose fault its failure may be, and carries a canary wherever a consumer can put words.
"""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image, PngImagePlugin

from miner.config.bundled import WORKFLOWS
from tests.support import flows
from tests.support.comfyui import adapted

if TYPE_CHECKING:
    from tests.campaigns.chaos.testbed import ChaosTestbed

SIZES = ((16, 16), (64, 48), (200, 120))  # pixels

SIZED = """
[parameters.side]
type = "int"
default = 64
min = 16
max = 512
bind = ["empty.width", "empty.height"]
"""
NOTED = """
[parameters.prompt]
type = "string"
required = true
max_length = 4000
bind = ["note.value"]
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

Blame = Literal["good", "wrong", "either"]
"""good: it can only fail for the machine or the network; wrong: it can only fail for its author; either: for both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A task as `Testbed.create` takes it. After its answer, nothing but the sequencer may know its `canary`, nor the
    part `in_base64` of a picture that it has in itself.
    """

    kind: str
    blame: Blame
    canary: str
    in_base64: str
    fields: dict[str, Any]


def workflows(testbed: ChaosTestbed) -> dict[str, list[str]]:
    """Write the campaign's workflows; returns ids → names."""
    graph = flows.plain()
    if testbed.real:  # the words come by in ComfyUI's history, too
        graph["note"] = {"class_type": "PrimitiveString", "inputs": {"value": ""}}
        graph["words"] = {"class_type": "PreviewAny", "inputs": {"source": ["note", 0]}}
    plain = testbed.add_workflow("plain", graph, parameters=SIZED + (NOTED if testbed.real else ""))
    ids = {"4": ["upscaler-lanczos"], "5": [plain]}
    if testbed.real:
        for number, name in (("8", "upscaler"), ("9", "flux-lora")):
            ids[number] = [adapted(WORKFLOWS / name, testbed.workflows, testbed.comfyui.models)]
    else:
        tight = flows.fail("out-of-memory", times=1)
        ids["6"] = [testbed.add_workflow("wait", flows.wait(0.0), parameters=WAITING)]
        ids["7"] = [testbed.add_workflow("tight", tight, parameters=FAILING)]
    return ids


FLUX = {"width": 64, "height": 64, "steps": 1, "lora_name": "tiny-flux"}
GOOD = {"upscale": 8.0, "plain": 6.0, "inline": 2.0}
ENGINE = {"wait": 4.0, "tight": 1.0}
REAL = {"esrgan": 3.0, "flux": 0.25}
BAD = {"wrong": 2.0, "broken picture": 0.7, "no picture": 0.7, "hasty": 1.0}


def orders(testbed: ChaosTestbed, rng: random.Random) -> Iterator[Order]:
    """Tasks without end. `testbed` has a devnet that runs, for their pictures."""
    kinds = GOOD | BAD | (REAL | {"unknown LoRA": 0.5} if testbed.real else ENGINE)
    number = 0
    while True:
        number += 1
        kind = rng.choices(list(kinds), list(kinds.values()))[0]
        yield _order(testbed, rng, kind, canary=f"zqx{number}qxz")


def _order(testbed: ChaosTestbed, rng: random.Random, kind: str, *, canary: str) -> Order:
    picture = _picture(SIZES[0] if kind == "esrgan" else rng.choice(SIZES), canary, noise=rng.randbytes(60))
    words, inline = f"a lighthouse called {canary}", base64.b64encode(picture).decode()
    lora = {"workflow_id": "9", "task_type": "txt2img"}

    def upscale(image: str) -> dict[str, Any]:
        return {"parameters": {"image": image}}

    def stored(data: bytes) -> str:
        return testbed.store_input(f"{canary}.png", data)

    makers: dict[str, tuple[Blame, Callable[[], dict[str, Any]]]] = {
        "upscale": ("good", lambda: upscale(stored(picture))),
        "inline": ("good", lambda: upscale(f"data:image/png;base64,{inline}")),
        "plain": ("good", lambda: {"workflow_id": "5", "parameters": {"side": rng.randint(16, 256)}}),
        "esrgan": ("good", lambda: upscale(stored(picture)) | {"workflow_id": "8"}),
        "flux": ("good", lambda: lora | {"parameters": FLUX}),
        "wait": ("good", lambda: {"workflow_id": "6", "parameters": {"seconds": rng.choice([0.05, 0.3, 1.0])}}),
        "tight": ("good", lambda: {"workflow_id": "7", "parameters": {"label": canary}}),
        # may well be over before it is begun
        "hasty": ("either", lambda: upscale(stored(picture)) | {"timeout_seconds": rng.choice([0.05, 0.5])}),
        "broken picture": ("wrong", lambda: upscale(stored(picture[: len(picture) // 2]))),
        "no picture": ("wrong", lambda: upscale(f"{testbed.nothing.url}/{canary}.png")),
        "unknown LoRA": ("wrong", lambda: lora | {"parameters": {"lora_name": canary}}),
    }
    if kind == "wrong":
        fields, blame = rng.choice(WRONG)
    else:
        blame, make = makers[kind]
        fields = make()
    if "parameters" in fields:
        fields = {**fields, "parameters": {"prompt": words, **fields["parameters"]}}
    fields = {
        "target": rng.choice(["presigned", "presigned", "s3"]),
        "details_form": rng.choice(["object", "string"]),
        "extra": {"note": words},
        **fields,
    }
    in_base64 = inline[len(inline) // 2 :][:40] if kind == "inline" else ""
    return Order(kind=kind, blame=blame, canary=canary, in_base64=in_base64, fields=fields)


def _picture(size: tuple[int, int], canary: str, *, noise: bytes) -> bytes:
    """A PNG that names the canary in a text of its own, too."""
    image = Image.linear_gradient("L").resize(size).convert("RGB")
    image.paste(Image.frombytes("RGB", (5, 4), noise), (3, 3))
    about, out = PngImagePlugin.PngInfo(), io.BytesIO()
    about.add_text("about", canary)
    image.save(out, "PNG", pnginfo=about)
    return out.getvalue()


WRONG: tuple[tuple[dict[str, Any], Blame], ...] = (
    ({"workflow_id": "99"}, "either"),
    ({"task_type": "txt2img"}, "either"),
    ({"parameters": {"scale": 4}}, "wrong"),
    ({"parameters": {"image": "photo.jpg"}}, "wrong"),
    ({"parameters": {"image": "http://169.254.169.254/latest/meta-data"}}, "wrong"),
    ({"parameters": {"image": "data:image/png;base64,AAAA"}}, "wrong"),
    ({"task_details": [1]}, "wrong"),
    ({"task_details": {"prompt": 7}}, "wrong"),
    ({"target": "none"}, "either"),
    ({"workflow_id": "5", "parameters": {"side": 10**6}}, "wrong"),
)
