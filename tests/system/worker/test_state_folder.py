"""A state folder that cannot be used: one line with its cure, and exit code 78. Never a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.testbed import MINER_ID

BUSY = (
    "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
)
"""Holds a lock until its standard input ends."""


def unprivileged(*command: str) -> list[str]:
    """The command without root's right to every file."""
    if os.getuid():
        return list(command)
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv to give up root's rights with")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]


def run(folder: Path, command: str = "run") -> subprocess.CompletedProcess[str]:
    settings = {"MINER_ID": MINER_ID, "STATE_DIR": str(folder), "WORKFLOW_URL": "http://127.0.0.1:9"}
    environ = {"PATH": os.environ["PATH"], **{f"XALORA_{name}": value for name, value in settings.items()}}
    miner = unprivileged(sys.executable, "-m", "miner", *command.split())
    return subprocess.run(miner, capture_output=True, text=True, timeout=60, check=False, env=environ)


def a_file(folder: Path) -> Path:
    folder.touch()
    return folder


def under_a_file(folder: Path) -> Path:
    folder.touch()
    return folder / "state"


def of_another(folder: Path) -> Path:
    folder.mkdir(mode=0o500)
    return folder / "state"


def with_(name: str, *, mode: int | None = None) -> Callable[[Path], Path]:
    """A folder whose `name` is a folder or, with a mode, a file of that mode."""

    def make(folder: Path) -> Path:
        (folder / name).mkdir(parents=True)
        if mode is not None:
            (folder / name).rmdir()
            (folder / name).touch(mode)
        return folder

    return make


@pytest.mark.parametrize(
    ("make", "cure"),
    {
        "a file": (a_file, "move that away"),
        "under a file": (under_a_file, "move that away"),
        "another user's": (of_another, "chown"),
        "another user's lock": (with_("lock", mode=0), "chown"),
        "another user's journal": (with_("journal.db", mode=0), "chown"),
        "a journal that is read-only": (with_("journal.db", mode=0o400), "chown"),
        "a folder for a lock": (with_("lock"), "move that away"),
        "a folder for a journal": (with_("journal.db"), "move that away"),
        "a file for a lane's folder": (with_("lane-0", mode=0o600), "move that away"),
        "a file for ComfyUI's folder": (with_("comfyui-embedded", mode=0o600), "move that away"),
    }.values(),
)
def test_what_is_wrong_with_it_is_one_line_with_its_cure(
    tmp_path: Path, make: Callable[[Path], Path], cure: str
) -> None:
    folder = make(tmp_path / "folder")
    ended = run(folder)
    error, hint = [line for line in ended.stderr.splitlines() if line.startswith(("error:", "next:"))]
    assert ended.returncode == 78, ended.stderr
    assert str(folder) in error
    assert cure in hint
    assert "Traceback" not in ended.stderr


@pytest.fixture(params=["ro", "size=16k", "size=32k"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk that is read-only, or full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_takes_nothing(disk: Path) -> None:
    ended = run(disk)
    assert ended.returncode == 78, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "disk" in ended.stderr.splitlines()[-1]


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Path]:
    """A folder that another miner uses."""
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, tmp_path / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield tmp_path
        other.kill()


def test_another_miner_uses_it(busy: Path) -> None:
    ended = run(busy)
    assert ended.returncode == 78
    assert "another xalora-miner is using it" in ended.stderr


@pytest.mark.parametrize("command", ["doctor", "models verify", "bench upscaler-lanczos"])
@pytest.mark.parametrize("make", [a_file, of_another, with_("models.db"), with_("lock", mode=0)])
def test_no_other_command_fails_with_a_traceback(tmp_path: Path, make: Callable[[Path], Path], command: str) -> None:
    ended = run(make(tmp_path / "folder"), command)
    assert "Traceback" not in ended.stderr + ended.stdout
    assert "(a bug" not in ended.stderr + ended.stdout
