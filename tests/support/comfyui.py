"""The ComfyUI of a campaign that may break it: the embedded engine or a real one, started here or by the worker.

A real one is started from its sources, on the CPU, with folders of its own; nothing of an installation is changed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from miner.comfy import process_tree
from miner.comfy.launch import python_of
from tests.support.engine import make_home
from tests.support.testbed import Process, Testbed, free_port, until

FOLDERS = ("input", "output", "temp", "user")
START = 180.0  # seconds; a real one imports torch first


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A real ComfyUI: the folder with its main.py, its Python, and a models folder, which is only linked to."""

    home: Path
    python: Path
    models: Path

    def link_models(self, folder: Path) -> Path:
        """A models folder of links, so that breaking one breaks no original; returns `folder`."""
        for file in self.models.glob("*/*.*"):
            (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
            (folder / file.parent.name / file.name).symlink_to(file.resolve())
        return folder

    @staticmethod
    def add_to(parser: argparse.ArgumentParser) -> None:
        """The flags that name one."""
        parser.add_argument("--comfyui-home", type=Path, help="a real ComfyUI: the folder with its main.py")
        parser.add_argument("--comfyui-python", type=Path, help="its Python")
        parser.add_argument("--models", type=Path, help="its models folder")

    @staticmethod
    def asked_for(arguments: argparse.Namespace) -> Installed | None:
        home = arguments.comfyui_home
        if home is None:
            return None
        python = arguments.comfyui_python or python_of(home) or Path(sys.executable)
        models = arguments.models or home / "models"
        return Installed(home=home.absolute(), python=python.absolute(), models=models.absolute())


class ComfyUI(ABC):
    """`folder` has its input, output, temp and user folders; `models` are its own to break, None without any."""

    folder: Path
    url: str
    log: Path
    models: Path | None
    settings: dict[str, Any]  # the worker's, but for the URL
    external_url: str  # "" where the worker starts it

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """Of the process that runs now."""

    @abstractmethod
    def start(self) -> None:
        """Start it again after its end, where nobody else does, and wait until it answers."""

    def send(self, number: int) -> int | None:
        """Returns the pid that got the signal."""
        pid = self.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def stop(self) -> None:
        self.send(signal.SIGTERM)

    def files(self) -> set[Path]:
        """What lies in its folders for pictures, relative to `folder`."""
        found = (path for name in ("input", "output", "temp") for path in (self.folder / name).rglob("*"))
        return {path.relative_to(self.folder) for path in found if path.is_file()}


class External(ComfyUI):
    """Started here. It keeps its port over restarts."""

    def __init__(self, testbed: Testbed, installed: Installed | None = None) -> None:
        self._testbed = testbed
        self._port = free_port()
        self._process: Process | None = None
        self.folder = testbed.folder / "engine"
        self.url = f"http://127.0.0.1:{self._port}"
        self.log = testbed.folder / ("comfyui.log" if installed else "engine.log")
        self.models = installed.link_models(testbed.folder / "models") if installed else None
        self._installed = installed
        self.settings = {f"comfyui__{name}_dir": str(self.folder / name) for name in ("output", "input")}
        self.external_url = self.url
        for name in FOLDERS:
            (self.folder / name).mkdir(parents=True)

    @property
    def pid(self) -> int | None:
        return self._process.popen.pid if self._process and self._process.alive else None

    def start(self) -> None:
        if self._installed is None:
            self._testbed.start_engine(port=self._port)
            self._process = self._testbed.engine
            return
        if self._process is None:
            self._process = self._testbed.add_process(self._command(self._installed), self.log, OMP_NUM_THREADS="1")
        else:
            self._process.start()
        until(self._answers, why="ComfyUI's start", patience=START)

    def kill(self) -> None:
        super().kill()
        self._process.kill()

    def stop(self) -> None:
        self._process.stop()

    def _command(self, installed: Installed) -> list[str]:
        paths = self._testbed.folder / "model_paths.yaml"
        kinds = sorted(path.name for path in self.models.iterdir())
        paths.write_text("campaign:\n" + "".join(f"  {kind}: {self.models / kind}\n" for kind in kinds))
        folders = (arg for name in FOLDERS for arg in (f"--{name}-directory", str(self.folder / name)))
        return [
            *("sh", "-c", 'exec "$0" "$@" >&2', str(installed.python), str(installed.home / "main.py"), "--cpu"),
            *("--listen", "127.0.0.1", "--port", str(self._port), "--preview-method", "auto", *folders),
            *("--database-url", f"sqlite:///{self.folder}/comfyui.db", "--extra-model-paths-config", str(paths)),
            *("--disable-auto-launch", "--disable-all-custom-nodes", "--disable-api-nodes"),
        ]

    def _answers(self) -> bool:
        assert self._process.alive, self.log.read_text()[-3000:]
        with suppress(requests.RequestException):
            return self._testbed.session.get(f"{self.url}/system_stats", timeout=5).ok
        return False


class Managed(ComfyUI):
    """Started by the worker, with `settings`; so it starts again by itself."""

    def __init__(self, testbed: Testbed, installed: Installed | None = None) -> None:
        port = free_port()
        self.folder = testbed.folder / "state" / "comfyui-default"
        self.url = f"http://127.0.0.1:{port}"
        self.log = self.folder / "comfyui.log"
        self.models = installed.link_models(testbed.folder / "models") if installed else None
        self.external_url = ""
        self.settings = {
            "comfyui__home": str(installed.home if installed else make_home(testbed.folder / "home")),
            "comfyui__python": str(installed.python) if installed else sys.executable,
            "comfyui__port": port,
        }
        if installed:
            self.settings |= {"comfyui__args": ["--cpu"], "models__dir": str(self.models)}
        for name in FOLDERS:
            (self.folder / name).mkdir(parents=True)

    @property
    def pid(self) -> int | None:
        try:
            known = json.loads((self.folder / "pid").read_text())
        except (OSError, ValueError):  # none runs, or it is being written
            return None
        found = process_tree.find_process(known["pid"])
        return known["pid"] if found is not None and found.started == known["started"] else None

    def start(self) -> None:
        """The worker's part."""


def adapted(bundled: Path, folder: Path, models: Path) -> str:
    """Write a copy of a bundled workflow that the weights in `models` satisfy, whatever their size, without a GPU.

    Returns its name.
    """
    name = f"small-{bundled.name}"
    place = folder / name
    place.mkdir(parents=True)
    (place / "graph.json").write_bytes((bundled / "graph.json").read_bytes())
    text = (bundled / "workflow.toml").read_text()
    text = re.sub(r"(?m)^(id|name) = .*", lambda found: f'name = "{name}"' if found[1] == "name" else "", text, count=2)
    text = re.sub(r"(?m)^sha256 = .*$", "", text)
    text = re.sub(r"(?m)^vram_gb = .*$", "vram_gb = 0", text)

    def sized(model: re.Match[str]) -> str:
        return f"{model[1]}size = {(models / model[2] / model[3]).stat().st_size}"

    text = re.sub(r'(folder = "(.*)"\nname = "(.*)"\n(?:url = .*\n)?)size = [\d_]+', sized, text)
    (place / "workflow.toml").write_text(text)
    return name
