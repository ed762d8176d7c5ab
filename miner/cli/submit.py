"""The command `submit`: sends one task to the sequencer as a consumer, and downloads its result.

Standard output holds the task's id, status and result (or, with --json, one object) alone; progress and errors go to
standard error. Exit codes: 0 finished, or created with --no-wait; 1 failed or canceled; 2 usage or configuration;
3 timed out; 130 interrupted. Interrupting never cancels the task.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from miner.cli.common import AsJson, printable

if TYPE_CHECKING:
    from miner.sdk import Workflow, WorkflowError, WorkflowTask, WorkflowTaskResult
    from miner.sdk.client import Heard

FAILED, USAGE, TIMED_OUT, INTERRUPTED = 1, 2, 3, 130

submit_app = typer.Typer(
    name="submit", help="Send one task to the sequencer and download its result.", no_args_is_help=True
)

WorkflowId = Annotated[str | None, typer.Option(help="The workflow to run; default: any of this type.")]
Url = Annotated[str | None, typer.Option(help="The sequencer. Default: XALORA_WORKFLOW_URL, else the public one.")]
Wait = Annotated[bool, typer.Option(help="Wait for the result, or exit once the task is created.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the result; 0 asks once.")]
Interval = Annotated[float, typer.Option(help="Seconds between two requests, at least 1.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", dir_okay=False, help="Download the result to this file.")
]
Image = Annotated[str, typer.Option(help="A picture: a file or a public URL.")]
Prompt = Annotated[str, typer.Option(help="What the result should show.")]
Guidance = Annotated[float | None, typer.Option(help="How closely to follow the prompt.")]
Length = Annotated[int | None, typer.Option(help="Frames.")]
Fps = Annotated[float | None, typer.Option(help="Frames a second.")]
Width = Annotated[int | None, typer.Option(help="Pixels.")]
Height = Annotated[int | None, typer.Option(help="Pixels.")]
Steps = Annotated[int | None, typer.Option(help="Sampler steps.")]
Seed = Annotated[int | None, typer.Option(help="A number that makes the result repeatable; default: random.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What to do once the task is created. Times are in seconds."""

    wait: bool
    timeout: float
    interval: float
    output: Path | None
    as_json: bool

    def __post_init__(self) -> None:
        """Refuse what would fail only after the task is paid for. Raises typer.BadParameter."""
        if not self.interval >= 1:
            raise typer.BadParameter("is under 1 second", param_hint="--interval")
        if not self.timeout >= 0:
            raise typer.BadParameter("is not a number of seconds", param_hint="--timeout")
        if self.output and not self.wait:
            raise typer.BadParameter("needs --wait: without it there is no result to download", param_hint="--output")
        if self.output and not self.output.absolute().parent.is_dir():
            raise typer.BadParameter(f"{self.output.parent} is not a folder: create it first", param_hint="--output")


@submit_app.command()
def upscaler(
    image: Image,
    workflow_id: WorkflowId = None,
    url: Url = None,
    wait: Wait = True,
    timeout: Timeout = 300.0,
    interval: Interval = 10.0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Enlarge a picture."""
    from miner.sdk import UpscalerTask

    def task(workflow: Workflow) -> WorkflowTask:
        return UpscalerTask(image_url=_picture(image, workflow), workflow_id=workflow_id)

    delivery = Delivery(wait=wait, timeout=timeout, interval=interval, output=output, as_json=as_json)
    _submit(task, url=url, delivery=delivery)


@submit_app.command()
def txt2img(
    prompt: Prompt,
    lora_name: Annotated[str | None, typer.Option(help="The LoRA, with or without .safetensors.")] = None,
    strength_model: Annotated[float | None, typer.Option(help="Strength of the LoRA, 0 to 1.")] = None,
    aspect_ratio: Annotated[
        str | None, typer.Option(help="16:9 and the like, or custom: --width and --height.")
    ] = None,
    width: Width = None,
    height: Height = None,
    guidance: Guidance = None,
    steps: Steps = None,
    seed: Seed = None,
    workflow_id: WorkflowId = None,
    url: Url = None,
    wait: Wait = True,
    timeout: Timeout = 300.0,
    interval: Interval = 10.0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Make a picture from a prompt, perhaps with a LoRA."""
    from miner.sdk import FluxLoraTask

    def task(_: Workflow) -> WorkflowTask:
        return FluxLoraTask(
            prompt=prompt,
            lora_name=lora_name,
            strength_model=strength_model,
            aspect_ratio=aspect_ratio,
            width=width,
            height=height,
            guidance=guidance,
            steps=steps,
            seed=seed,
            workflow_id=workflow_id,
        )

    delivery = Delivery(wait=wait, timeout=timeout, interval=interval, output=output, as_json=as_json)
    _submit(task, url=url, delivery=delivery)


@submit_app.command()
def txt2vid(
    prompt: Prompt,
    width: Width = None,
    height: Height = None,
    length: Length = None,
    steps: Steps = None,
    seed: Seed = None,
    fps: Fps = None,
    quality: Annotated[int | None, typer.Option(help="1 to 100.")] = None,
    workflow_id: WorkflowId = None,
    url: Url = None,
    wait: Wait = True,
    timeout: Timeout = 300.0,
    interval: Interval = 10.0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Make a video from a prompt."""
    from miner.sdk import Text2VideoTask

    def task(_: Workflow) -> WorkflowTask:
        return Text2VideoTask(
            prompt=prompt,
            width=width,
            height=height,
            length=length,
            steps=steps,
            seed=seed,
            fps=fps,
            quality=quality,
            workflow_id=workflow_id,
        )

    delivery = Delivery(wait=wait, timeout=timeout, interval=interval, output=output, as_json=as_json)
    _submit(task, url=url, delivery=delivery)


@submit_app.command()
def img2vid(
    image: Image,
    prompt: Prompt,
    width: Width = None,
    height: Height = None,
    length: Length = None,
    steps: Steps = None,
    seed: Seed = None,
    fps: Fps = None,
    workflow_id: WorkflowId = None,
    url: Url = None,
    wait: Wait = True,
    timeout: Timeout = 300.0,
    interval: Interval = 10.0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Make a video that starts with a picture."""
    from miner.sdk import ImageToVideoTask

    def task(workflow: Workflow) -> WorkflowTask:
        return ImageToVideoTask(
            image_url=_picture(image, workflow),
            prompt=prompt,
            width=width,
            height=height,
            length=length,
            steps=steps,
            seed=seed,
            fps=fps,
            workflow_id=workflow_id,
        )

    delivery = Delivery(wait=wait, timeout=timeout, interval=interval, output=output, as_json=as_json)
    _submit(task, url=url, delivery=delivery)


@submit_app.command()
def img2img(
    image: Image,
    prompt: Prompt,
    size: Annotated[int | None, typer.Option(help="Pixels of the result's longer side.")] = None,
    denoise: Annotated[float | None, typer.Option(help="How much may change, up to 1.")] = None,
    guidance: Guidance = None,
    steps: Steps = None,
    seed: Seed = None,
    workflow_id: WorkflowId = None,
    url: Url = None,
    wait: Wait = True,
    timeout: Timeout = 300.0,
    interval: Interval = 10.0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Draw a picture anew after a prompt."""
    from miner.sdk import ImageToImageTask

    def task(workflow: Workflow) -> WorkflowTask:
        return ImageToImageTask(
            image_url=_picture(image, workflow),
            prompt=prompt,
            size=size,
            denoise=denoise,
            guidance=guidance,
            steps=steps,
            seed=seed,
            workflow_id=workflow_id,
        )

    delivery = Delivery(wait=wait, timeout=timeout, interval=interval, output=output, as_json=as_json)
    _submit(task, url=url, delivery=delivery)


@submit_app.command()
def result(
    task_id: Annotated[str, typer.Argument(help="The id that submit printed.")],
    url: Url = None,
    timeout: Timeout = 300.0,
    interval: Interval = 10.0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Wait for the result of an earlier task."""
    delivery = Delivery(wait=True, timeout=timeout, interval=interval, output=output, as_json=as_json)
    _with_workflow(url, delivery, lambda workflow, report: _await(workflow, task_id, delivery, report))


class Report:
    """Standard output: a line for each fact as it comes, or with JSON one object when it is closed."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._facts: dict[str, Any] = dict.fromkeys(("task_id", "status", "result", "msg", "output"))

    def say(self, **facts: Any) -> None:
        self._facts |= facts
        if not self._as_json:
            for name, value in facts.items():
                if value:
                    typer.echo(f"{name:<8} {printable(value if isinstance(value, str) else json.dumps(value))}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._as_json and self._facts["task_id"]:
            typer.echo(json.dumps(self._facts))


def _picture(image: str, workflow: Workflow) -> str:
    """The URL of a picture, or a `data:` URI of a file's."""
    from miner.sdk.files import image_url

    remote = image.lower().startswith(("http://", "https://", "data:"))
    return image if remote else image_url(Path(image), workflow_url=workflow.workflow_url)


def _submit(task: Callable[[Workflow], WorkflowTask], *, url: str | None, delivery: Delivery) -> None:
    def run(workflow: Workflow, report: Report) -> int:
        task_id = workflow.execute_workflow(task(workflow))
        if delivery.wait:
            return _await(workflow, task_id, delivery, report)
        report.say(task_id=task_id)
        return 0

    _with_workflow(url, delivery, run)


def _with_workflow(url: str | None, delivery: Delivery, run: Callable[[Workflow, Report], int]) -> None:
    """Run it with a client, and exit with its code or that of its error."""
    from miner.sdk import Workflow, WorkflowError

    try:
        with Workflow(workflow_url=url) as workflow, Report(as_json=delivery.as_json) as report:
            code = run(workflow, report)
    except WorkflowError as error:
        typer.echo(f"error: {printable(error.message)}", err=True)
        code = _exit_code(error)
    raise typer.Exit(code)


def _await(workflow: Workflow, task_id: str, delivery: Delivery, report: Report) -> int:
    """Wait for the task, report how it ended and download its result. Returns the exit code."""
    from miner.sdk import TaskTimeout

    report.say(task_id=task_id)
    try:
        ended = _watch(workflow, task_id, delivery)
    except TaskTimeout as error:
        report.say(status=error.last_status)
        return _leave(task_id, "timed out", TIMED_OUT)
    except KeyboardInterrupt:
        return _leave(task_id, "interrupted", INTERRUPTED)
    report.say(status=ended.status, result=ended.result, msg=ended.msg)
    if ended.status != "finished":
        return FAILED
    if delivery.output:
        _save(workflow, ended, delivery.output, report)
    return 0


def _leave(task_id: str, reason: str, code: int) -> int:
    typer.echo(f"{reason}; the task goes on. To wait again: xalora-miner submit result {printable(task_id)}", err=True)
    return code


def _watch(workflow: Workflow, task_id: str, delivery: Delivery) -> WorkflowTaskResult:
    """Wait, with a live line in a terminal: the last status and the elapsed time."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from miner.sdk import WorkflowError

    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        line = progress.add_task("asking")

        def heard(news: Heard) -> None:
            said = f"retrying: {news}" if isinstance(news, WorkflowError) else _standing(news)
            progress.update(line, description=printable(said))

        return workflow.wait_for_result(task_id, timeout=delivery.timeout, interval=delivery.interval, heard=heard)


def _standing(task: WorkflowTaskResult) -> str:
    """How a task stands, in a few words."""
    if task.progress is None:
        return str(task.status)
    left = f", {task.progress.eta_seconds:.0f} s left" if task.progress.eta_seconds is not None else ""
    return f"{task.status}: {task.progress.stage}, {task.progress.percent:.0f} %{left}"


def _save(workflow: Workflow, ended: WorkflowTaskResult, output: Path, report: Report) -> None:
    if ended.result_url is None:
        typer.echo(f"{output} was not written: the sequencer returned an object key without a URL", err=True)
        return
    workflow.download(ended, output)
    report.say(output=str(output))


def _exit_code(error: WorkflowError) -> int:
    from miner.sdk import AuthenticationError, ConfigurationError, InvalidTask

    return USAGE if isinstance(error, ConfigurationError | InvalidTask | AuthenticationError) else FAILED
