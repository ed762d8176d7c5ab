"""The self-test: trial renders on this machine's ComfyUI, from the graph to the decoded file.

First two graphs without a model: a plain picture, and three uploaded frames saved as an animation, both with known
pixels. Their nodes are in ComfyUI 0.3.64, in 0.33.0 and in the embedded engine. Then the smallest task of each runnable
workflow. The sequencer is not involved.
"""

from __future__ import annotations

import io
import random
import secrets
import uuid
from collections.abc import Iterator, Sequence

from PIL import Image

from miner.comfy.host import folder_of
from miner.comfy.preflight import offered_loras
from miner.doctor.comfy_session import Busy, ComfySession, open_session
from miner.doctor.decode import Color
from miner.doctor.facts import Facts, choice_here
from miner.doctor.report import bad, good, of_error, warning
from miner.doctor.trial_render import PICTURE_URL, RenderResult, TrialRender, failed, render, trial_render
from miner.task.errors import ConfigError, MinerError
from miner.task.stages import Graph
from miner.telemetry.health import Mark
from miner.worker.layout import layout
from miner.workflows import Workflow

SIZE = (64, 48)  # pixels
FRAMES = 3
PLAIN_LIMIT = 120.0  # seconds; the first prompt of a new ComfyUI imports a lot
PICTURE, VIDEO = "a picture", "a short video"


def trial_marks(facts: Facts, renders: list[RenderResult]) -> Iterator[Mark]:
    """The self-test on every ComfyUI: a mark for each render as it comes, and its result added to `renders`."""
    try:
        placements = layout(facts.settings)
    except ConfigError as error:
        yield of_error("Render", error)
        return
    for placement in placements:
        try:
            with open_session(placement, facts.settings, facts.worker()) as session:
                for one in selftest(session, facts.enabled):
                    renders.append(one)
                    yield mark(one)
        except Busy as busy:
            yield warning("Render", f"skipped: {busy.message}", busy.hint)
        except MinerError as error:
            yield of_error("Render", error)


def selftest(session: ComfySession, workflows: Sequence[Workflow]) -> Iterator[RenderResult]:
    """Each result as it comes. If a plain one fails, no workflow is tried. Blocks for minutes; raises nothing."""
    plain = [_plain_picture(session), _plain_video(session)]
    yield from plain
    if not all(one.ok for one in plain):
        return
    machine = session.machine(workflows)
    for workflow in runnable(session, workflows):
        yield _render_smallest(session, workflow, offered_loras(machine, base=workflow.lora_base))


def runnable(session: ComfySession, workflows: Sequence[Workflow]) -> tuple[Workflow, ...]:
    """The workflows that pass preflight here, in the variants that a worker would render."""
    machine, fastest = session.machine(workflows), session.fastest
    choices = [choice_here(session.settings, one, machine, fastest=fastest.get(one.name, "")) for one in workflows]
    return tuple(choice.workflow for choice in choices if not choice.reasons)


def mark(one: RenderResult) -> Mark:
    """A plain render that fails is bad, a workflow that fails is a warning. Pure."""
    name = f"Render {one.name}"
    if one.ok:
        return good(name, one.says)
    return (bad if one.name in (PICTURE, VIDEO) else warning)(name, one.says, one.cure)


def random_picture(size: tuple[int, int], seed: int | None = None) -> bytes:
    """A PNG that ComfyUI has not cached: no two are equal, unless their seeds are."""
    out, count = io.BytesIO(), 3 * SIZE[0] * SIZE[1]
    pixels = secrets.token_bytes(count) if seed is None else random.Random(seed).randbytes(count)
    Image.frombytes("RGB", SIZE, pixels).resize(size).save(out, "PNG")
    return out.getvalue()


def _render_smallest(session: ComfySession, workflow: Workflow, loras: Sequence[str]) -> RenderResult:
    manifest = workflow.manifest
    try:
        parameters = workflow.example(loras=loras, image=PICTURE_URL, smallest=True)
        trial = trial_render(
            session, workflow, parameters, loras=loras, picture=random_picture(SIZE), limit=manifest.timeout_seconds
        )
    except MinerError as error:
        return failed(workflow.name, manifest.output.format, error)
    return render(session, trial)


def _plain_picture(session: ComfySession) -> RenderResult:
    prompt_id, (width, height), color = str(uuid.uuid4()), SIZE, _color()
    red, green, blue = color
    empty = {"width": width, "height": height, "batch_size": 1, "color": red << 16 | green << 8 | blue}
    graph: Graph = {
        "picture": {"class_type": "EmptyImage", "inputs": empty},
        "save": {
            "class_type": "SaveImage",
            "inputs": {"images": ["picture", 0], "filename_prefix": f"{folder_of(prompt_id)}/out"},
        },
    }
    return render(session, _plain(PICTURE, graph, prompt_id, "png", [color]))


def _plain_video(session: ComfySession) -> RenderResult:
    prompt_id, colors = str(uuid.uuid4()), [_color() for _ in range(FRAMES)]
    try:
        name = session.host.client.upload_image(animation(colors), "frames.webp", subfolder=folder_of(prompt_id))
    except MinerError as error:
        return failed(VIDEO, "webp", error)
    saved = {
        "images": ["frames", 0],
        "filename_prefix": f"{folder_of(prompt_id)}/out",
        "fps": 8.0,
        "lossless": True,
        "quality": 80,
        "method": "default",
    }
    graph: Graph = {
        "frames": {"class_type": "LoadImage", "inputs": {"image": name}},
        "save": {"class_type": "SaveAnimatedWEBP", "inputs": saved},
    }
    return render(session, _plain(VIDEO, graph, prompt_id, "webp", colors))


def animation(colors: Sequence[Color]) -> bytes:
    """A lossless animated WebP, one frame a color."""
    first, *rest = (Image.new("RGB", SIZE, color) for color in colors)
    out = io.BytesIO()
    first.save(out, "WEBP", save_all=True, append_images=rest, lossless=True, duration=125)
    return out.getvalue()


def _plain(name: str, graph: Graph, prompt_id: str, format: str, middles: Sequence[Color]) -> TrialRender:  # noqa: A002
    return TrialRender(
        name=name,
        graph=graph,
        prompt_id=prompt_id,
        node="save",
        format=format,
        limit=PLAIN_LIMIT,
        size=SIZE,
        middles=middles,
    )


def _color() -> Color:
    red, green, blue = secrets.token_bytes(3)
    return red, green, blue
