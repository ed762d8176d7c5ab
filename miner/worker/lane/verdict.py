"""What the end of a prompt in ComfyUI means: a result, a task that is wrong, or a machine that is.

What the machine needs before the next prompt is asked for here, too: memory freed, or another process. It answers
nobody and tries nothing again.
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
    """The GPU's memory did not suffice for a prompt."""


def verdict(task_id: str, prompt: Prompted, history: History, *, node: str, host: ComfyHost) -> tuple[OutputFile, ...]:
    """The files that the prompt made at `node`, its output node; at least one.

    Raises JobFault where the task is to blame; OutOfMemory, once ComfyUI was told to free what it can; MachineFault
    where this machine is to blame in another way. Blocks for a request at most.
    """
    if history.status == "success":
        return _outputs(prompt, history, node)
    if history.status == "interrupted" or history.error is None:
        raise MachineFault("somebody interrupted the prompt in ComfyUI")
    raise _fault(task_id, prompt.job, history.error, host)


def _outputs(prompt: Prompted, history: History, node: str) -> tuple[OutputFile, ...]:
    """The output node's files that are this prompt's own: a cached run would name an earlier task's (trap 4)."""
    own = folder_of(prompt.prompt_id)
    files = tuple(f for f in history.outputs.get(node, ()) if f.kind == "output" and f.subfolder == own)
    if not files:
        raise MachineFault("ComfyUI says that it succeeded, but names no output file")
    return files


def _fault(task_id: str, job: Job, error: RunError, host: ComfyHost) -> JobFault | MachineFault:
    fault = blame(error.exception_type, error.exception_message)
    log.warning(
        "execution_error",
        task_id=task_id,
        node=error.node_type,
        type=error.exception_type,
        reason=_without_words_of(job, error.exception_message.strip())[:500],
        blame=fault,
        next="answering it" if fault == "task" else "trying it once more",
    )
    if fault == "memory":
        host.client.free()
        return OutOfMemory("the GPU's memory did not suffice", hint="see what else uses it, with nvidia-smi")
    if fault == "poisoned":
        host.condemn(f"its CUDA context is broken ({error.exception_type})")
        return MachineFault("the GPU failed", hint="see dmesg for Xid errors")
    node, kind = plain_name(error.node_type, "a node"), plain_name(error.exception_type, "an error")
    return JobFault(f"rendering failed in {node}: {kind}")


def _without_words_of(job: Job, text: str) -> str:
    """`text` without what the consumer wrote: a node may quote the prompt in its error."""
    for value in job.values.values():
        if isinstance(value, str) and len(value) > 3:
            text = text.replace(value, "…")
    return text
