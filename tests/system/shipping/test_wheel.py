"""The wheel: built from this tree, installed outside of it, and shown to work there."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.system.shipping.tools import TOP, output


def test_the_wheel_runs_the_demo_from_an_empty_environment(tmp_path):
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    output(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, TOP)
    (wheel,) = tmp_path.glob("*.whl")

    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    output(*pip, "--python", home / "bin" / "python", "install", "--no-deps", "--no-index", wheel)
    (packages,) = home.glob("lib/python*/site-packages")
    # what it depends on comes from here, so that nothing is downloaded; an editable miner does not come with it
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    python = home / "bin" / "python"
    where = output(python, "-P", "-c", "import miner; print(miner.__file__)")
    assert Path(where.strip()).is_relative_to(home)

    demo = subprocess.run(
        [home / "bin" / "xalora-miner", "demo", "--output", "pictures"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert demo.returncode == 0, demo.stdout
    assert "3 of 3 pictures" in demo.stdout
    assert len(list((tmp_path / "pictures").iterdir())) == 3
