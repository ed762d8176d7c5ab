"""The contract's other side: the embedded engine in a process of its own, or a real ComfyUI at COMFYUI_URL.

A real ComfyUI should be idle but for these tests: some of them clear its queue and its history.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support.forks import Fork
from tests.support.paths import ROOT
from tests.support.testbed import Process

from .graphs import encoded, picture
from .wire import Comfy

REAL = os.environ.get("COMFYUI_URL", "").rstrip("/")
VERSIONS = ["real"] if REAL else ["0.33.0", "0.3.64"]


@contextlib.contextmanager
def engine(
    folder: Path, *flags: str, module: str = "tests.support.engine"
) -> Iterator[tuple[Fork | subprocess.Popen[str], str]]:
    """A running engine: its process, its URL. Its log is `folder / "log"`."""
    command = [sys.executable, "-m", module, "--port", "0", "--base-directory", str(folder), *flags]
    process = Process(command, folder / "log", env={"PYTHONPATH": str(ROOT)}).start()
    try:
        url = process.first_line()
        assert url, (folder / "log").read_text()
        yield process.popen, url
    finally:
        process.stop()
        process.kill()  # closes its stdout, if it had ended before


@pytest.fixture(scope="session", params=VERSIONS)
def comfy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comfy]:
    """What is tested: with the engine once for each version that it follows."""
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(requests.Session())
        if request.param == "real":
            yield Comfy(REAL, session, None)
            return
        folder = tmp_path_factory.mktemp("engine")
        flags = ("--like", request.param, "--preview-method", "auto", "--max-upload-size", "8")
        _, url = stack.enter_context(engine(folder, *flags))
        yield Comfy(url, session, folder)


@pytest.fixture
def only_engine(comfy: Comfy) -> Comfy:
    """For what a real ComfyUI does not have."""
    if comfy.folder is None:
        pytest.skip("a real ComfyUI has no trial nodes")
    return comfy


@pytest.fixture
def uploaded(comfy: Comfy) -> str:
    """The name of a picture of 64 × 48 that is in the input folder."""
    return comfy.upload("base.png", encoded(picture()), subfolder="contract", overwrite="true")
