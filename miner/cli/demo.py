"""The command `xalora-miner demo`: starts a devnet, an engine and a worker, and sends pictures through them.

Exit codes: 0; 1 where a picture failed; 78 for wrong arguments.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from miner.task.errors import ConfigError, MinerError

if TYPE_CHECKING:
    from rich.console import Console

    from miner.cli.demo_report import Task, WorkerLog
    from miner.sdk import UpscalerTask, Workflow

SAMPLES = Path(__file__).parent.parent / "samples"
MINER_ID = "0x00000000000000000000000000000000000d37e0"  # an address that nobody owns
UPSCALER_ID = "4"
READY_TIMEOUT = 30.0  # seconds for the worker to offer its workflow
TASK_TIMEOUT = 600.0  # seconds for one task; a real upscaling model on a CPU takes a while
STOP_TIMEOUT = 15.0

CONFIG = f"""
[sequencer]
url = "{{devnet}}"
[miner]
id = "{MINER_ID}"
min_free_disk_gb = 0.0
[workflows]
enabled = ["upscaler", "upscaler-lanczos"]
on_cpu = ["upscaler"]
[workflows.ids]
"{UPSCALER_ID}" = ["upscaler", "upscaler-lanczos"]
[comfyui]
url = "{{comfyui}}"
[state]
dir = "{{state}}"
[network]
allow = ["{{devnet_host}}"]
[status]
enabled = false
[log]
level = "DEBUG"
format = "json"
"""


def demo(
    image: Annotated[list[Path] | None, typer.Option(help="Your own pictures instead of the samples.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo-output"),
    comfyui: Annotated[str, typer.Option(help="URL of a real ComfyUI; default: the embedded engine.")] = "",
    keep: Annotated[bool, typer.Option(help="Leave everything running at the end.")] = False,
) -> None:
    """Send pictures through a network on this machine. Starts a devnet, an engine and a worker."""
    pictures = list(image or []) or sorted(SAMPLES.glob("*.[jpw]*[gp]"))
    for picture in pictures:
        if not picture.is_file():
            raise ConfigError(f"--image {picture}: no such file")
    output.mkdir(parents=True, exist_ok=True)
    sys.exit(_run(pictures, output=output, comfyui=comfyui, keep=keep))


def _run(pictures: Sequence[Path], *, output: Path, comfyui: str, keep: bool) -> int:
    """Returns the exit code: 0 where every picture came back."""
    from rich.console import Console

    from miner.cli.demo_report import WorkerLog
    from miner.devnet.options import DevnetOptions
    from miner.devnet.serve import serve
    from miner.sdk import Workflow

    console = Console()
    with ExitStack() as stack:
        state = Path(stack.enter_context(TemporaryDirectory(prefix="xalora-demo-")))
        devnet = stack.enter_context(serve(DevnetOptions()))
        console.print(f"devnet    a sequencer and a store at {devnet}")
        url = comfyui or stack.enter_context(_engine(state))
        console.print(f"engine    {'ComfyUI' if comfyui else 'the embedded engine, on the CPU'}, at {url}")
        worker_log = WorkerLog()
        stack.enter_context(_worker(state, devnet, url, worker_log))
        console.print(f"worker    xalora-miner run, as {MINER_ID}\n")
        with Workflow(api_key="demo-key", workflow_url=devnet, env_file=None) as consumer:
            _wait_until_offered(consumer, worker_log)
            failed = _upscale(pictures, consumer, worker_log, console, output)
        if keep:
            _keep_running(console, devnet, url)
        return 1 if failed else 0


def _upscale(
    pictures: Sequence[Path], consumer: Workflow, worker_log: WorkerLog, console: Console, output: Path
) -> list[Task]:
    """Sends every picture, shows the progress and the summary, and returns the tasks that failed."""
    from rich.live import Live

    from miner.cli.demo_report import Task, live_table, summary

    tasks = [Task(picture=picture, size=_size(picture)) for picture in pictures]
    with Live(get_renderable=lambda: live_table(tasks, worker_log), console=console, refresh_per_second=10):
        for task in tasks:
            task.task_id = consumer.execute_workflow(_upscaler(task, consumer.workflow_url))
        for task in tasks:
            _collect(task, consumer, output)
    worker_log.settle(tasks)
    console.print()
    console.print(summary(tasks, worker_log))
    failed = [task for task in tasks if task.reason]
    for task in failed:
        console.print(f"[red]failed[/] {task.picture.name}: {task.reason}")
    console.print(f"{len(tasks) - len(failed)} of {len(tasks)} pictures are in {output}/")
    return failed


def _upscaler(task: Task, sequencer: str) -> UpscalerTask:
    from miner.sdk import UpscalerTask
    from miner.sdk.files import image_url

    return UpscalerTask(
        image_url=image_url(task.picture, workflow_url=sequencer), workflow_id=UPSCALER_ID, consumer_id="demo"
    )


def _collect(task: Task, consumer: Workflow, output: Path) -> None:
    """Wait for one task and download its result; a failure becomes the task's reason."""
    from miner.sdk import WorkflowError

    try:
        ended = consumer.wait_for_result(task.task_id, timeout=TASK_TIMEOUT, interval=1.0)
        if ended.status != "finished" or ended.result_url is None:
            task.reason = ended.msg or f"it ended as {ended.status}"
            return
        target = output / f"{task.picture.stem}-x4{Path(urlsplit(ended.result_url).path).suffix}"
        consumer.download(ended, target)
        task.result_size = _size(target)
    except (WorkflowError, OSError) as error:
        task.reason = str(error)


def _size(picture: Path) -> tuple[int, int]:
    """Width and height in pixels, after decoding the whole picture."""
    from PIL import Image

    try:
        with Image.open(picture) as image:
            image.load()
            return image.size
    except OSError as error:
        raise ConfigError(f"{picture} is not a picture: {error}") from error


def _wait_until_offered(consumer: Workflow, worker_log: WorkerLog) -> None:
    """Until the sequencer knows a miner for the workflow. Raises MinerError with the worker's last message."""
    from miner.sdk import APIError

    deadline = time.monotonic() + READY_TIMEOUT
    pause = threading.Event()
    while time.monotonic() < deadline:
        try:
            consumer.resource_request(workflow_id=UPSCALER_ID, task_type="upscaler", consumer_id="demo")
        except APIError:
            pause.wait(0.05)
        else:
            return
    raise MinerError(
        f"the worker offered no workflow within {READY_TIMEOUT:.0f} s; its last message: {worker_log.last_message}"
    )


@contextmanager
def _engine(state: Path) -> Iterator[str]:
    """The embedded engine in its own process; yields its URL."""
    from miner import engine

    command = [sys.executable, "-m", engine.__name__, "--port", "0", "--base-directory", str(state / "engine")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with _ended(process):
        url = process.stdout.readline().strip() if process.stdout else ""
        if not url:
            raise MinerError("the embedded engine did not start", hint=f"run `{' '.join(command)}` to see why")
        yield url


@contextmanager
def _worker(state: Path, devnet: str, comfyui: str, worker_log: WorkerLog) -> Iterator[None]:
    """`xalora-miner run` in its own process, its log read into `worker_log`."""
    config = state / "config.toml"
    host = devnet.removeprefix("http://")
    config.write_text(CONFIG.format(devnet=devnet, devnet_host=host, comfyui=comfyui, state=state / "miner"))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("XALORA_")}
    command = [sys.executable, "-m", "miner", "run", "--config", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ)
    reader = threading.Thread(target=worker_log.read, args=(process.stderr,), name="worker-log")
    reader.start()
    try:
        with _ended(process):
            yield
    finally:
        reader.join()


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stop the process when the block ends."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def _keep_running(console: Console, sequencer: str, comfyui: str) -> None:
    console.print(
        f"\nEverything is still running. In another terminal:\n"
        f"  XALORA_WORKFLOW_URL={sequencer} XALORA_API_KEY=demo-key \\\n"
        f"    xalora-miner submit upscaler --workflow-id {UPSCALER_ID} --image PHOTO -o out.png\n"
        f"The engine is at {comfyui}. Press Ctrl-C to stop."
    )
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        console.print("stopping")
