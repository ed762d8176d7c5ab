"""A trial render: rendered, converted as a task's result is, and decoded."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miner.comfy.host import folder_of
from miner.comfy.replies import History
from miner.doctor.comfy_session import ComfySession
from miner.doctor.decode import Color, Decoded, decode
from miner.doctor.peak import PeakMemory
from miner.media.outputs import finish
from miner.task.errors import MachineFault, MinerError
from miner.task.stages import Graph
from miner.telemetry.sizes import gb
from miner.workflows import Workflow
from miner.workflows.manifest import Take
from miner.workflows.results import result_first

PICTURE_URL = "https://localhost/"  # of an input picture; passes the check of the parameters and is never fetched


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRender:
    """A filled graph, and the expected result."""

    name: str
    graph: Graph = field(repr=False)
    prompt_id: str
    node: str  # that saves the file
    format: str
    take: Take = "only"  # which of its files is the result
    quality: int | None = None  # of a JPEG
    limit: float  # seconds
    size: tuple[int, int] | None = None  # expected pixels
    middles: Sequence[Color] | None = None  # the expected colors of its frames


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderResult:
    """The result of a trial render. `says` is a sentence; `cure` is empty on success."""

    name: str
    ok: bool
    seconds: float | None = None
    peak_memory: int | None = None  # bytes in use on the fullest card, by any process; None without NVML
    format: str
    width: int = 0  # pixels; 0 without a decoder
    height: int = 0
    frames: int = 0
    size: int = 0  # bytes
    says: str = ""
    cure: str = ""


def trial_render(
    session: ComfySession,
    workflow: Workflow,
    parameters: Mapping[str, Any],
    *,
    loras: Sequence[str],
    picture: bytes,
    limit: float,
) -> TrialRender:
    """A trial of `workflow`, with its picture uploaded. Raises JobFault, ComfyDown."""
    prompt_id, output = str(uuid.uuid4()), workflow.manifest.output
    checked = workflow.check(parameters, loras=loras)
    images = {
        name: session.host.client.upload_image(picture, f"{name}.png", subfolder=folder_of(prompt_id))
        for name in checked.images
    }
    values = checked.values
    size = (int(values["width"]), int(values["height"])) if {"width", "height"} <= values.keys() else None
    return TrialRender(
        name=workflow.name,
        graph=workflow.fill(values, images=images, prefix=f"{folder_of(prompt_id)}/out"),
        prompt_id=prompt_id,
        node=output.node,
        format=output.format,
        take=output.take,
        quality=int(values[output.quality_parameter]) if output.quality_parameter in values else None,
        limit=limit,
        size=size,
    )


def render(session: ComfySession, trial: TrialRender, *, keep: Callable[[Path], None] | None = None) -> RenderResult:
    """Render it. Blocks for the trial's limit at most; a failure is a result too, not an exception.

    `keep` is called with the finished file, and may raise MachineFault.
    """
    with PeakMemory() as peak:
        try:
            history, seconds = session.run(trial.graph, trial.prompt_id, limit=trial.limit)
            return _checked(session, trial, history, seconds=seconds, peak=peak.memory, keep=keep)
        except MinerError as error:
            return failed(trial.name, trial.format, error)
        finally:
            session.host.discard(trial.prompt_id)


def failed(name: str, format: str, error: MinerError) -> RenderResult:  # noqa: A002
    """The result of a trial that raised `error`."""
    cure = error.hint or "check ComfyUI's log"
    return RenderResult(name=name, ok=False, format=format, says=f"failed: {error.message}", cure=cure)


def _checked(
    session: ComfySession,
    trial: TrialRender,
    history: History,
    *,
    seconds: float,
    peak: int | None,
    keep: Callable[[Path], None] | None,
) -> RenderResult:
    """The result of a finished prompt. Raises MachineFault where it is not the expected one."""
    if history.status != "success":
        error = history.error
        why = f"{error.exception_type} in {error.node_type}: {error.exception_message.strip()}" if error else "stopped"
        raise MachineFault(f"ComfyUI did not finish it: {why[:300]}", hint="check ComfyUI's log")
    files = [file for file in history.outputs.get(trial.node, ()) if file.kind == "output"]
    if not files:
        raise MachineFault("ComfyUI reports success but no output file", hint="check ComfyUI's log")
    result = result_first(files, node=trial.node, format=trial.format, take=trial.take)[0]
    media = finish(session.host.fetch(result, session.folder), format=trial.format, quality=trial.quality)
    decoded = decode(media.path)
    require(trial, decoded)
    if keep is not None:
        keep(media.path)
    shape = f"{decoded.width}x{decoded.height}" if decoded.decoder else "not decoded: no decoder (pip install av)"
    frames = f", {decoded.frames} frames" if decoded.frames > 1 else ""
    memory = f", peak {gb(peak)} of video memory" if peak is not None else ""
    return RenderResult(
        name=trial.name,
        ok=True,
        seconds=round(seconds, 3),
        peak_memory=peak,
        format=trial.format,
        width=decoded.width,
        height=decoded.height,
        frames=decoded.frames,
        size=media.size,
        says=f"{trial.format}, {shape}{frames}, in {seconds:.1f} s{memory}",
    )


def require(trial: TrialRender, decoded: Decoded) -> None:
    """Raise MachineFault unless it is the expected result. Without a decoder, anything passes. Pure."""
    if not decoded.decoder:
        return
    made = (decoded.width, decoded.height)
    if trial.size is not None and made != trial.size:
        raise MachineFault(
            f"it is {made[0]}x{made[1]} pixels, expected {trial.size[0]}x{trial.size[1]}",
            hint="check the workflow's graph",
        )
    if trial.middles is not None and decoded.middles != tuple(trial.middles):
        hint = "the GPU, its driver or torch computes wrong results: try another torch; if it persists, test the card"
        raise MachineFault("its pixels are not the expected ones", hint=hint)
