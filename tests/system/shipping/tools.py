"""What the tests of `docker/` share: where it is, and programs that not every machine has."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TOP = ROOT
DOCKER = TOP / "docker"


def program(name: str, *, package: str) -> str:
    """The path of a program, beside our Python or on the PATH; skips the test where it is missing."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: {package}")
    return found


def kustomize(folder: Path) -> str:
    """What kubectl renders of the folder; skips the test where it is missing or older than 1.24."""
    kubectl = program("kubectl", package="1.24 or newer is needed; Debian 12 has an older one")
    if "kustomizeVersion" not in output(kubectl, "version", "--client", "--output=json"):
        pytest.skip("kubectl is older than 1.24, and its kustomize does not know these files' form")
    return output(kubectl, "kustomize", folder)


def output(*command: str | Path, stdin: str | None = None) -> str:
    """What the command prints, both streams; fails the test with it where the command fails."""
    ended = subprocess.run(
        [str(word) for word in command],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, f"{' '.join(map(str, command))} ended with {ended.returncode}:\n{ended.stdout}"
    return ended.stdout
