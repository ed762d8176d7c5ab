"""The command `submit`: sends one task to the sequencer as a consumer, and brings its result home.

Standard output holds the task's id, status and result (or, with --json, one object), and nothing else; progress and
errors go to standard error. Exit codes: 0 finished, or created with --no-wait; 1 failed or canceled; 2 usage or
configuration; 3 not ended in time; 130 interrupted. A task is never canceled by leaving it.

`miner.sdk` and Rich are imported when a command runs: requests alone would double the time of `--help`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

if TYPE_CHECKING:
    from miner.sdk import Workflow, WorkflowError, WorkflowTask, WorkflowTaskResult
    from miner.sdk.client import Heard

FAILED, USAGE, TIMED_OUT, INTERRUPTED = 1, 2, 3, 130

submit_app = typer.Typer(
    name="submit", help="Send one task to the sequencer, and bring its result home.", no_args_is_help=True
)

WorkflowId = Annotated[str | None, typer.Option(help="The workflow to run; any of this type where it is left out.")]
Url = Annotated[str | None, typer.Option(help="The sequencer. Default: XALORA_WORKFLOW_URL, else the public one.")]
Wait = Annotated[bool, typer.Option(help="Wait for the result, or leave once the task is created.")]
Timeout = Annotated[float, typer.Option(help="Seconds to wait for the result; 0 asks once.")]
Interval = Annotated[float, typer.Option(help="Seconds between two askings, at least 1.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", dir_okay=False, help="Download the result to this file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Prompt = Annotated[str, typer.Option(help="What to show.")]
Width = Annotated[int | None, typer.Option(help="Pixels.")]
Height = Annotated[int | None, typer.Option(help="Pixels.")]
Steps = Annotated[int | None, typer.Option(help="Sampler steps.")]
Seed = Annotated[int | None, typer.Option(help="A number that repeats a result; drawn where it is left out.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What is to be done with a task once it exists. Times are in seconds."""

    wait: bool
    timeout: float
    interval: float
    output: Path | None
    as_json: bool

    def __post_init__(self) -> None:
        """Refuse what would fail only after the task was paid for. Raises typer.BadParameter."""
        if not self.interval >= 1:
            raise typer.BadParameter("is under 1 second", param_hint="--interval")
        if not self.timeout >= 0:
            raise typer.BadParameter("is not a number of seconds", param_hint="--timeout")
        if self.output and not self.wait:
            raise typer.BadParameter("needs --wait: there is no result to download before", param_hint="--output")
        if self.output and not self.output.absolute().parent.is_dir():
            raise typer.BadParameter(f"{self.output.parent} is not a folder: create it first", param_hint="--output")


@submit_app.command()
def upscaler(
    image: Annotated[str, typer.Option(help="A picture: a file, or a URL that the network can reach.")],
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
    from miner.sdk.files import image_url

    def task(workflow: Workflow) -> WorkflowTask:
        remote = image.lower().startswith(("http://", "https://", "data:"))
        source = image if remote else image_url(Path(image), workflow_url=workflow.workflow_url)
        return UpscalerTask(image_url=source, workflow_id=workflow_id)

    delivery = Delivery(wait=wait, timeout=timeout, interval=interval, output=output, as_json=as_json)
    _submit(task, url=url, delivery=delivery)


@submit_app.command()
def txt2img(
    prompt: Prompt,
    lora_name: Annotated[str, typer.Option(help="The LoRA, with or without .safetensors.")],
    aspect_ratio: Annotated[
        str | None, typer.Option(help="16:9 and the like, or custom: --width and --height.")
    ] = None,
    width: Width = None,
    height: Height = None,
    guidance: Annotated[float | None, typer.Option(help="How closely to follow the prompt.")] = None,
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
    """Draw a picture of a prompt, with a LoRA."""
    from miner.sdk import FluxLoraTask

    def task(_: Workflow) -> WorkflowTask:
        return FluxLoraTask(
            prompt=prompt,
            lora_name=lora_name,
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
    length: Annotated[int | None, typer.Option(help="Frames.")] = None,
    steps: Steps = None,
    seed: Seed = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second.")] = None,
    quality: Annotated[int | None, typer.Option(help="1 to 100.")] = None,
    workflow_id: WorkflowId = None,
    url: Url = None,
    wait: Wait = True,
    timeout: Timeout = 300.0,
    interval: Interval = 10.0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Make a video of a prompt."""
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
def result(
    task_id: Annotated[str, typer.Argument(help="The id that an earlier submit printed.")],
    url: Url = None,
    timeout: Timeout = 300.0,
    interval: Interval = 10.0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Wait for the result of a task that was submitted before."""
    delivery = Delivery(wait=True, timeout=timeout, interval=interval, output=output, as_json=as_json)
    _with_workflow(url, delivery, lambda workflow, report: _await(workflow, task_id, delivery, report))


class Report:
    """What standard output says: a line a fact as it comes or, as JSON, all facts in one object when it is closed."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._facts: dict[str, Any] = dict.fromkeys(("task_id", "status", "result", "msg", "output"))

    def say(self, **facts: Any) -> None:
        self._facts |= facts
        if not self._as_json:
            for name, value in facts.items():
                if value:
                    typer.echo(f"{name:<8} {_plain(value if isinstance(value, str) else json.dumps(value))}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._as_json and self._facts["task_id"]:
            typer.echo(json.dumps(self._facts))


def _submit(task: Callable[[Workflow], WorkflowTask], *, url: str | None, delivery: Delivery) -> None:
    def run(workflow: Workflow, report: Report) -> int:
        task_id = workflow.execute_workflow(task(workflow))
        if delivery.wait:
            return _await(workflow, task_id, delivery, report)
        report.say(task_id=task_id)
        return 0

    _with_workflow(url, delivery, run)


def _with_workflow(url: str | None, delivery: Delivery, run: Callable[[Workflow, Report], int]) -> None:
    """Run it with a client, and leave with its exit code, or with that of the error it raised."""
    from miner.sdk import Workflow, WorkflowError

    try:
        with Workflow(workflow_url=url) as workflow, Report(as_json=delivery.as_json) as report:
            code = run(workflow, report)
    except WorkflowError as error:
        typer.echo(f"error: {_plain(error.message)}", err=True)
        code = _exit_code(error)
    raise typer.Exit(code)


def _await(workflow: Workflow, task_id: str, delivery: Delivery, report: Report) -> int:
    """Wait for the task, report how it ended and bring its result home. Gives the exit code."""
    from miner.sdk import TaskTimeout

    report.say(task_id=task_id)
    try:
        ended = _watch(workflow, task_id, delivery)
    except TaskTimeout as error:
        report.say(status=error.last_status)
        return _leave(task_id, "not ended in time", TIMED_OUT)
    except KeyboardInterrupt:
        return _leave(task_id, "interrupted", INTERRUPTED)
    report.say(status=ended.status, result=ended.result, msg=ended.msg)
    if ended.status != "finished":
        return FAILED
    if delivery.output:
        _save(ended, delivery.output, report)
    return 0


def _leave(task_id: str, reason: str, code: int) -> int:
    typer.echo(f"{reason}; the task goes on. To wait again: xalora-miner submit result {_plain(task_id)}", err=True)
    return code


def _watch(workflow: Workflow, task_id: str, delivery: Delivery) -> WorkflowTaskResult:
    """Wait with a live line on a terminal: the status last heard, and the time since the start."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from miner.sdk import WorkflowError

    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        line = progress.add_task("asking")

        def heard(news: Heard) -> None:
            said = f"will ask again: {news}" if isinstance(news, WorkflowError) else news.status
            progress.update(line, description=_plain(said))

        return workflow.wait_for_result(task_id, timeout=delivery.timeout, interval=delivery.interval, heard=heard)


def _save(ended: WorkflowTaskResult, output: Path, report: Report) -> None:
    from miner.sdk.files import download

    if ended.result_url is None:
        typer.echo(f"{output} was not written: the sequencer gave the object's key alone, and no URL to it", err=True)
        return
    download(ended.result_url, output)
    report.say(output=str(output))


def _exit_code(error: WorkflowError) -> int:
    from miner.sdk import AuthenticationError, ConfigurationError, InvalidTask

    return USAGE if isinstance(error, ConfigurationError | InvalidTask | AuthenticationError) else FAILED


def _plain(text: str) -> str:
    """One line for a terminal: what a server says may hold escape sequences."""
    return "".join(character if character.isprintable() else " " for character in text)
