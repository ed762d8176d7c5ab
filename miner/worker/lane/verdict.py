"""The verdict on a finished prompt: a result, or a fault of this machine.

Also frees memory or requests a restart of ComfyUI for the next prompt. Answers and retries nothing.
"""

from __future__ import annotations

import contextlib
import json

import structlog

from miner.comfy.client import ComfyFault
from miner.comfy.host import ComfyHost, folder_of
from miner.comfy.replies import History, RunError, plain_name
from miner.task.blame import blame
from miner.task.errors import Fault, MachineFault
from miner.task.stages import Job, OutputFile, Prompted
from miner.telemetry.log import cut
from miner.workflows.manifest import Output
from miner.workflows.results import result_first

log = structlog.get_logger()

SAID = 300  # characters of ComfyUI's own words in a reason

_HINTS: dict[Fault, str] = {
    "memory": "check what else uses the memory: nvidia-smi, free -h",
    "poisoned": "check dmesg for Xid errors",
    "disk": "check the space and the permissions of ComfyUI's output, input and temp folders",
    "weights": "check the model files: xalora-miner doctor",
    "unknown": "see ComfyUI's log; check its custom nodes and packages",
}


def verdict(
    task_id: str, prompt: Prompted, history: History, *, output: Output, host: ComfyHost
) -> tuple[OutputFile, ...]:
    """The files of the prompt's output node, the result first; at least one.

    Raises MachineFault: the task's parameters and inputs are checked before it is rendered. Blocks for a request at
    most, to have ComfyUI free its memory.
    """
    if history.status == "success":
        return _outputs(prompt, history, output)
    if history.status == "interrupted" or history.error is None:
        raise MachineFault("the prompt was interrupted in ComfyUI", fault="interrupted")
    raise _fault(task_id, prompt.job, history.error, host)


def _outputs(prompt: Prompted, history: History, output: Output) -> tuple[OutputFile, ...]:
    """The output node's files, without an earlier task's, which a cached run would return (trap 4)."""
    own = folder_of(prompt.prompt_id)
    files = tuple(f for f in history.outputs.get(output.node, ()) if f.kind == "output" and f.subfolder == own)
    if not files:
        raise MachineFault("ComfyUI reports success without an output file", hint=_HINTS["disk"])
    return result_first(files, node=output.node, format=output.format, take=output.take)


def _fault(task_id: str, job: Job, error: RunError, host: ComfyHost) -> MachineFault:
    fault = blame(error.exception_type, error.exception_message)
    said = cut(redacted(job, " ".join(error.exception_message.split())), SAID)
    log.warning(
        "execution_error",
        task_id=task_id,
        node=error.node_type,
        type=error.exception_type,
        reason=said,
        fault=fault,
        next="rendering again, unless it failed too often",
    )
    if fault == "memory":
        with contextlib.suppress(ComfyFault):  # it may have died of it
            host.client.free()
    elif fault == "poisoned":
        host.condemn(f"its CUDA context is broken ({error.exception_type})")
    node, kind = plain_name(error.node_type, "a node"), plain_name(error.exception_type, "an error")
    words = f": {said}" if said else ""
    return MachineFault(f"{node} failed with {kind}{words}", hint=_HINTS.get(fault, ""), fault=fault)


def redacted(job: Job, text: str) -> str:
    """`text` without the consumer's strings, plain or quoted: a node's error may quote the prompt."""
    strings = [value for value in job.values.values() if isinstance(value, str) and len(value) > 3]
    quoted = {form for value in strings for form in (value, json.dumps(value)[1:-1], repr(value)[1:-1])}
    for form in sorted((*quoted, *(" ".join(value.split()) for value in strings)), key=len, reverse=True):
        text = text.replace(form, "…") if form else text
    return text
