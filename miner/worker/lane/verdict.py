"""The verdict on a finished prompt: a result, the task's fault, or this machine's.

Also frees memory or requests a restart of ComfyUI for the next prompt. Answers and retries nothing.
"""

from __future__ import annotations

import structlog

from miner.comfy.host import ComfyHost, folder_of
from miner.comfy.replies import History, RunError, plain_name
from miner.task.errors import JobFault, MachineFault
from miner.task.policy import blame
from miner.task.stages import Job, OutputFile, Prompted

log = structlog.get_logger()


class OutOfMemory(MachineFault):
    """The GPU ran out of memory."""


def verdict(task_id: str, prompt: Prompted, history: History, *, node: str, host: ComfyHost) -> tuple[OutputFile, ...]:
    """The files of the prompt's output node `node`; at least one.

    Raises JobFault for the task's fault; OutOfMemory, after asking ComfyUI to free memory; MachineFault for this
    machine's other faults. Blocks for a request at most.
    """
    if history.status == "success":
        return _outputs(prompt, history, node)
    if history.status == "interrupted" or history.error is None:
        raise MachineFault("the prompt was interrupted in ComfyUI")
    raise _fault(task_id, prompt.job, history.error, host)


def _outputs(prompt: Prompted, history: History, node: str) -> tuple[OutputFile, ...]:
    """The output node's files, without an earlier task's, which a cached run would return (trap 4)."""
    own = folder_of(prompt.prompt_id)
    files = tuple(f for f in history.outputs.get(node, ()) if f.kind == "output" and f.subfolder == own)
    if not files:
        raise MachineFault("ComfyUI reports success without an output file")
    return files


def _fault(task_id: str, job: Job, error: RunError, host: ComfyHost) -> JobFault | MachineFault:
    fault = blame(error.exception_type, error.exception_message)
    log.warning(
        "execution_error",
        task_id=task_id,
        node=error.node_type,
        type=error.exception_type,
        reason=_redacted(job, error.exception_message.strip())[:500],
        blame=fault,
        next="answering it" if fault == "task" else "retrying",
    )
    if fault == "memory":
        host.client.free()
        return OutOfMemory("the GPU ran out of memory", hint="check what else uses it: nvidia-smi")
    if fault == "poisoned":
        host.condemn(f"its CUDA context is broken ({error.exception_type})")
        return MachineFault("the GPU failed", hint="check dmesg for Xid errors")
    node, kind = plain_name(error.node_type, "a node"), plain_name(error.exception_type, "an error")
    return JobFault(f"rendering failed in {node}: {kind}")


def _redacted(job: Job, text: str) -> str:
    """`text` without the consumer's values: a node's error may quote the prompt."""
    for value in job.values.values():
        if isinstance(value, str) and len(value) > 3:
            text = text.replace(value, "…")
    return text
