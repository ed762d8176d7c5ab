"""Runs the demo from start to exit code."""

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

from PIL import Image
from rich.console import Console
from rich.live import Live

from miner import engine
from miner.cli.demo_report import Task, WorkerLog, live_table, summary
from miner.devnet.options import DevnetOptions
from miner.devnet.serve import serve
from miner.sdk import APIError, UpscalerTask, Workflow, WorkflowError
from miner.sdk.files import download, image_url
from miner.task.errors import ConfigError, MinerError

SAMPLES = Path(__file__).parent.parent / "samples"
MINER_ID = "0x00000000000000000000000000000000000d37e0"  # an address that nobody has: all zeros but for 'demo'
UPSCALER_ID = "4"
READY_TIMEOUT = 30.0  # seconds until the worker has to offer its workflow
TASK_TIMEOUT = 600.0  # seconds for one task; a real upscaling model on a CPU takes a while
STOP_TIMEOUT = 15.0

CONFIG = """
[sequencer]
url = "{devnet}"
[miner]
id = "{miner_id}"
min_free_disk_gb = 0.0
[workflows]
enabled = ["upscaler", "upscaler-lanczos"]
[workflows.ids]
"{upscaler_id}" = ["upscaler", "upscaler-lanczos"]
[comfyui]
url = "{comfyui}"
[state]
dir = "{state}"
[network]
allow = ["{devnet_host}"]
[status]
enabled = false
[log]
level = "DEBUG"
format = "json"
"""


def run_demo(*, images: Sequence[Path], output: Path, comfyui: str, keep: bool) -> int:
    """Run it; gives the exit code: 0 when every picture came back."""
    console = Console()
    pictures = list(images) or sorted(SAMPLES.glob("*.[jpw]*[gp]"))
    for picture in pictures:
        if not picture.is_file():
            raise ConfigError(f"--image {picture}: there is no such file")
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        state = Path(stack.enter_context(TemporaryDirectory(prefix="xalora-demo-")))
        devnet = stack.enter_context(serve(DevnetOptions()))
        console.print(f"devnet    a sequencer and a store at {devnet.url}")
        url = comfyui or stack.enter_context(_engine(state))
        console.print(f"engine    {'ComfyUI' if comfyui else 'the embedded engine, on the CPU'}, at {url}")
        worker_log = WorkerLog()
        config = state / "config.toml"
        config.write_text(
            CONFIG.format(
                devnet=devnet.url,
                devnet_host=devnet.url.removeprefix("http://"),
                miner_id=MINER_ID,
                upscaler_id=UPSCALER_ID,
                comfyui=url,
                state=state / "miner",
            )
        )
        stack.enter_context(_worker(config, worker_log))
        console.print(f"worker    xalora-miner run, as {MINER_ID}\n")
        with Workflow(api_key="demo-key", workflow_url=devnet.url, env_file=None) as consumer:
            _wait_until_offered(consumer, worker_log)
            tasks = [Task(picture=picture, size=_size(picture)) for picture in pictures]
            with Live(get_renderable=lambda: live_table(tasks, worker_log), console=console, refresh_per_second=10):
                for task in tasks:
                    task.task_id = consumer.execute_workflow(_upscaler(task, devnet.url))
                for task in tasks:
                    _collect(task, consumer, output)
            worker_log.settle(tasks)
        console.print()
        console.print(summary(tasks, worker_log))
        failed = [task for task in tasks if task.reason]
        for task in failed:
            console.print(f"[red]failed[/] {task.picture.name}: {task.reason}")
        console.print(f"{len(tasks) - len(failed)} of {len(tasks)} pictures are in {output}/")
        if keep:
            _keep_running(console, devnet.url, url)
        return 1 if failed else 0


def _upscaler(task: Task, sequencer: str) -> UpscalerTask:
    return UpscalerTask(
        image_url=image_url(task.picture, workflow_url=sequencer), workflow_id=UPSCALER_ID, consumer_id="demo"
    )


def _collect(task: Task, consumer: Workflow, output: Path) -> None:
    """Wait for one task and bring its file home; what goes wrong becomes its reason."""
    try:
        ended = consumer.wait_for_result(task.task_id, timeout=TASK_TIMEOUT, interval=1.0)
        if ended.status != "finished" or ended.result_url is None:
            task.reason = ended.msg or f"it ended as {ended.status}"
            return
        target = output / f"{task.picture.stem}-x4{Path(ended.result or '').suffix}"
        download(ended.result_url, target)
        task.result_size = _size(target)
    except (WorkflowError, OSError) as error:
        task.reason = str(error)


def _size(picture: Path) -> tuple[int, int]:
    """Width and height in pixels, after decoding all of it."""
    try:
        with Image.open(picture) as image:
            image.load()
            return image.size
    except OSError as error:
        raise ConfigError(f"{picture} is no picture: {error}") from error


def _wait_until_offered(consumer: Workflow, worker_log: WorkerLog) -> None:
    """Until the sequencer knows a miner for the workflow. Raises MinerError with the worker's own last words."""
    deadline = time.monotonic() + READY_TIMEOUT
    pause = threading.Event()
    while time.monotonic() < deadline:
        try:
            consumer.resource_request(workflow_id=UPSCALER_ID, task_type="upscaler", consumer_id="demo")
        except APIError:
            pause.wait(0.05)
        else:
            return
    raise MinerError(f"the worker offered nothing within {READY_TIMEOUT:.0f} s; it said last: {worker_log.last_words}")


@contextmanager
def _engine(state: Path) -> Iterator[str]:
    """The embedded engine in a process of its own; gives its URL."""
    command = [sys.executable, "-m", engine.__name__, "--port", "0", "--base-directory", str(state / "engine")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with _ended(process):
        url = process.stdout.readline().strip() if process.stdout else ""
        if not url:
            raise MinerError("the embedded engine did not start", hint=f"run `{' '.join(command)}` to see why")
        yield url


@contextmanager
def _worker(config: Path, worker_log: WorkerLog) -> Iterator[None]:
    """`xalora-miner run` in a process of its own; what it logs goes into the story."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("XALORA_")}
    command = [sys.executable, "-m", "miner", "run", "--config", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ)
    reader = threading.Thread(target=worker_log.read, args=(process.stderr,), name="story")
    reader.start()
    try:
        with _ended(process):
            yield
    finally:
        reader.join()


@contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """See that the process ends when the block does."""
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
        f"\nEverything is still up. In another terminal:\n"
        f"  XALORA_WORKFLOW_URL={sequencer} XALORA_API_KEY=demo-key \\\n"
        f"    xalora-miner submit upscaler --workflow-id {UPSCALER_ID} --image PHOTO -o out.png\n"
        f"The engine is at {comfyui}. Ctrl-C ends it all."
    )
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        console.print("ending")
