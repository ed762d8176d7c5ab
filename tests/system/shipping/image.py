"""`make image-check`: builds the image with buildah, runs it, and says what it saw.

It needs root, buildah, util-linux and no Docker. The image runs in namespaces of its own on a read-only root, as its
user, without capabilities, under its own entry point. All that may differ between machines comes from variables:

    IMAGE_BASE          the base image; or a folder, a root file system such as debootstrap makes
    IMAGE_TORCH_LOCK    the lock file of torch: torch-cu126.lock
    IMAGE_TORCH         what pip gets for torch instead of a lock file
    IMAGE_COMFYUI       a git repository of ComfyUI, and
    IMAGE_COMFYUI_COMMIT  the commit of it
    IMAGE_VOLUMES       folders and files that the build sees, `here:there`, comma-separated: a pip.conf, certificates
    IMAGE_WORK          where it works; some 20 GB with torch for CUDA. Removed at the end, unless IMAGE_KEEP is set
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.testbed import MINER_ID, Testbed, free_port, until
from tests.system.shipping.comfyui_log import complaints

TOP = ROOT
PATIENCE = 300.0  # seconds for a ComfyUI on a slow disk to start and to answer
SCREEN = 24  # lines

# What a container engine does, in a few lines: the root read-only, the volumes, /tmp, /proc and /dev, and no rights.
ENTER = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && mount -t tmpfs tmpfs "$1/tmp" && mount -t proc proc "$1/proc"
if [ -n "$PRETEND_GPU" ]; then
    mount -t tmpfs tmpfs "$1/dev" && mkdir "$1/dev/shm" && touch "$1/dev/nvidiactl"
    for one in null zero random urandom; do touch "$1/dev/$one" && mount --bind "/dev/$one" "$1/dev/$one"; done
else
    mount --rbind /dev "$1/dev"
fi
unset PRETEND_GPU
mount --bind "$2" "$1/models" && mount --bind "$3" "$1/state"
root=$1 user=$4 group=$5; shift 5
exec chroot "$root" setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs --bounding-set=-all \
    --inh-caps=-all sh -c 'cd /state && exec "$@"' sh "$@"
"""


def say(text: str) -> None:
    print(text, flush=True)


def variable(name: str) -> str:
    return os.environ.get(f"IMAGE_{name}", "")


# ---- building ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Builder:
    """buildah with its storage under one folder."""

    folder: Path

    def __call__(self, *words: str, show: bool = False) -> str:
        command = ["buildah", "--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run"), *words]
        environ = {**os.environ, "BUILDAH_ISOLATION": "chroot", "BUILDAH_FORMAT": "docker"}
        ended = subprocess.run(
            command, stdout=None if show else subprocess.PIPE, text=True, env=environ, cwd=TOP, check=False
        )
        if ended.returncode:
            sys.exit(f"image-check: {' '.join(command)} ended with {ended.returncode}")
        return "" if show else ended.stdout.strip()

    def base(self) -> str:
        """The name of the base image; a folder becomes one first. Empty: the Dockerfile's own."""
        given = variable("BASE")
        if not Path(given).is_dir() or not given:
            return given
        container = self("from", "scratch")
        self("add", "--quiet", container, given, "/")
        self("commit", "--quiet", "--rm", container, "image-check-base")
        return "localhost/image-check-base"

    def build(self) -> None:
        given = {
            "BASE": self.base(),
            "TORCH_LOCK": variable("TORCH_LOCK"),
            "TORCH": variable("TORCH"),
            "COMFYUI_SOURCE": variable("COMFYUI"),
            "COMFYUI_COMMIT": variable("COMFYUI_COMMIT"),
            "VERSION": "image-check",
        }
        arguments = [word for name, value in given.items() if value for word in ("--build-arg", f"{name}={value}")]
        volumes = [word for one in variable("VOLUMES").split(",") if one for word in ("--volume", f"{one}:ro")]
        self("build", "--file", "docker/Dockerfile", "--tag", "image-check", *arguments, *volumes, ".", show=True)


# ---- running ----------------------------------------------------------------------------------------------------


@dataclass
class Image:
    """A built image, unpacked: its root file system, and what it says of itself."""

    root: Path
    config: Mapping[str, Any]
    folder: Path
    cuda: int = 0  # the major release that its torch is built for
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def volumes(self) -> tuple[Path, Path]:
        """Models and state, owned by the image's user."""
        found = (self.folder / "models", self.folder / "state")
        for one in found:
            one.mkdir(exist_ok=True)
            os.chown(one, *self.user)
        return found

    @property
    def environ(self) -> dict[str, str]:
        return dict(one.split("=", 1) for one in self.config["Env"])

    @property
    def user(self) -> tuple[int, int]:
        user, _, group = self.config["User"].partition(":")
        return int(user), int(group)

    def start(
        self, *words: str, environ: Mapping[str, str] | None = None, entry: bool = True, pretend_gpu: bool = False
    ) -> subprocess.Popen[str]:
        """The entry point with `words`, or the image's own command; output goes to `self.log`.

        `pretend_gpu`: with the device of NVIDIA's driver, which is how the entry point knows one.
        """
        command = (*self.config["Entrypoint"], *(words or self.config["Cmd"])) if entry else words
        with self.log.open("a") as log:
            process = subprocess.Popen(
                [
                    *("unshare", "--mount", "--pid", "--fork", "sh", "-ec", ENTER, "enter"),
                    *(str(self.root), *map(str, self.volumes), *map(str, self.user)),
                    *command,
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                env={
                    "PATH": os.environ["PATH"],
                    "PRETEND_GPU": "1" if pretend_gpu else "",
                    **self.environ,
                    **(environ or {}),
                },
            )
        self.running.append(process)
        return process

    def run(self, *words: str, environ: Mapping[str, str] | None = None, entry: bool = True) -> tuple[int, str]:
        """As `start`, to its end: exit code and output."""
        self.log.write_text("")
        code = self.start(*words, environ=environ, entry=entry).wait(PATIENCE)
        return code, self.log.read_text()

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def signal(self, process: subprocess.Popen[str], number: int) -> int:
        """A signal to the container's first process, as `docker stop` and `docker kill` do; returns the exit code."""
        (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(first), number)
        return process.wait(PATIENCE)

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                self.signal(process, signal.SIGKILL)  # the namespace ends with its first process


def unpacked(builder: Builder) -> tuple[Path, Mapping[str, Any]]:
    container = builder("from", "image-check")
    config = json.loads(builder("inspect", "--type", "image", "image-check"))["Docker"]["config"]
    return Path(builder("mount", container)), config


# ---- the checks -------------------------------------------------------------------------------------------------


def check_explains(image: Image) -> str:
    code, said = image.run()
    assert code == 78, (code, said)
    assert "XALORA_MINER_ID" in said
    assert "--gpus all" in said
    assert len(said.splitlines()) <= SCREEN, said
    return f"without settings: exit 78, and {len(said.splitlines())} lines that say what to set"


def check_gpu(image: Image) -> str:
    if Path("/dev/nvidiactl").exists():
        return "no GPU: not checked, there is one here"
    code, said = image.run(environ={"XALORA_MINER_ID": MINER_ID})
    assert code == 78, (code, said)
    assert len(said.splitlines()) == 1, said
    assert "--gpus all" in said
    return f"no GPU: exit 78, and: {said.strip()}"


def check_torch(image: Image) -> str:
    """What torch is in the image, and the entry point's line where the driver's device is there but CUDA not."""
    if Path("/dev/nvidiactl").exists():
        return "torch without CUDA: not checked, there is a GPU here"
    python = f"{image.environ['XALORA_COMFYUI_HOME']}/.venv/bin/python"
    code, said = image.run(python, "-c", _TORCH, entry=False)
    assert code == 0, said
    cuda = said.split()[1]
    image.cuda = int(cuda.partition(".")[0])
    image.log.write_text("")
    container = image.start(
        environ={"XALORA_MINER_ID": MINER_ID, "XALORA_WORKFLOWS": "upscaler-lanczos"}, pretend_gpu=True
    )
    line = until(lambda: next(iter(image.log.read_text().splitlines()), ""), why="the line", patience=PATIENCE)
    image.signal(container, signal.SIGKILL)
    assert line.startswith("warning: no GPU was found: Found no NVIDIA driver"), line
    return f"torch {said.strip()}\ntorch cannot start CUDA: {line}"


_TORCH = "import torch; print(torch.__version__, torch.version.cuda, torch._C._cuda_getArchFlags())"


def check_log(image: Image) -> str:
    """ComfyUI's own log of its start: `comfyui_log` says what it must not have."""
    (log,) = (image.folder / "state").glob("comfyui-*/log")
    found = complaints(log.read_text(errors="replace"), cuda=image.cuda)
    assert found == [], "\n".join(found)
    return "ComfyUI's log has no warning about torch, CUDA or kernels; under --cpu they load, and miss only the card"


def check_locked_up(image: Image) -> str:
    code, said = image.run("sh", "-c", "id -u; grep Cap /proc/self/status; ! touch /opt/x /usr/x /etc/x", entry=False)
    assert code == 0, said
    assert said.count("Read-only file system") == 3, said
    assert all(line.endswith("0" * 16) for line in said.splitlines() if line.startswith("Cap")), said
    return f"it runs as user {said.splitlines()[0]}, without capabilities, on a read-only root"


def mining(testbed: Testbed) -> dict[str, str]:
    """The settings of a container that mines at the test bed's devnet, on the CPU."""
    return {
        "XALORA_MINER_ID": MINER_ID,
        "XALORA_WORKFLOW_URL": testbed.devnet.url,
        "XALORA_WORKFLOWS": "upscaler-lanczos",
        "XALORA_WORKFLOWS_IDS": "4=upscaler-lanczos",
        "XALORA_NETWORK_ALLOW": testbed.devnet.url.removeprefix("http://"),
        "XALORA_COMFYUI_ARGS": "--cpu",
        "XALORA_COMFYUI_PORT": str(free_port()),
        "XALORA_STATUS_PORT": str(free_port()),
        "XALORA_MINER_MIN_FREE_DISK_GB": "0",
    }


def check_answers(image: Image, testbed: Testbed, environ: Mapping[str, str]) -> str:
    """A task from devnet; then SIGTERM while the next one is in hand."""
    began = time.monotonic()
    image.log.write_text("")
    container = image.start(environ=environ)
    (task,) = testbed.ended(testbed.create(), patience=PATIENCE)
    took = time.monotonic() - began
    assert task["status"] == "finished", task
    assert testbed.result(task).startswith(b"\x89PNG")
    assert image.start("healthcheck", environ=environ, entry=False).wait(PATIENCE) == 0, image.log.read_text()

    in_hand = taken(testbed)
    assert image.signal(container, signal.SIGTERM) == 0, image.log.read_text()
    (task,) = testbed.ended(in_hand)
    assert task["status"] == "finished", task
    assert '"draining"' in image.log.read_text()
    return f"a task from devnet answered {took:.0f} s after the start; SIGTERM drained it, with a task in hand"


def check_second_start(image: Image, testbed: Testbed, environ: Mapping[str, str]) -> str:
    """Killed with a task in hand; the next container on the same volume answers it."""
    container = image.start(environ=environ)
    testbed.ended(testbed.create(), patience=PATIENCE)
    in_hand = taken(testbed)
    image.signal(container, signal.SIGKILL)
    image.log.write_text("")
    container = image.start(environ=environ)
    (task,) = testbed.ended(in_hand, patience=PATIENCE)
    assert task["status"] == "finished", task
    assert "task_picked_up" in image.log.read_text(), image.log.read_text()
    assert image.signal(container, signal.SIGTERM) == 0
    return "killed with a task in hand: the next start found it in the journal and answered it"


def taken(testbed: Testbed) -> str:
    """A task that takes a while, once the miner has it."""
    picture = testbed.picture((1000, 1000), "large.png")
    task_id = testbed.create(parameters={"image": picture})
    until(lambda: testbed.task(task_id)["leases"], why="the lease", patience=PATIENCE)
    return task_id


def sizes(image: Image) -> str:
    miner = image.root / "opt/xalora-miner/lib"
    (package,) = miner.glob("python*/site-packages/miner")
    whole, own = (int(subprocess.check_output(["du", "-sk", path]).split()[0]) / 1024 for path in (image.root, package))
    return f"{whole / 1024:.1f} GB unpacked; the miner itself, the last layer, is {own:.1f} MB"


@contextmanager
def work_folder() -> Iterator[Path]:
    folder = Path(variable("WORK") or tempfile.mkdtemp(prefix="image-check-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if not variable("KEEP"):
            Builder(folder)("rm", "--all")
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    if os.geteuid() != 0 or shutil.which("buildah") is None:
        sys.exit("image-check: needs root and buildah (apt install buildah)")
    with work_folder() as folder, Testbed(folder) as testbed:
        builder = Builder(folder)
        builder.build()
        root, config = unpacked(builder)
        image = Image(root=root, config=config, folder=folder)
        try:
            say(sizes(image))
            for check in (check_explains, check_gpu, check_torch, check_locked_up):
                say(check(image))
            testbed.start_devnet()
            environ = mining(testbed)
            say(check_answers(image, testbed, environ))
            say(check_log(image))
            say(check_second_start(image, testbed, environ))
        finally:
            image.close()


if __name__ == "__main__":
    main()
