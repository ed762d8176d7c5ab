"""This machine's network fails: its consumers are told so, and not that their server is down."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.support.paths import ROOT
from tests.support.testbed import Testbed

SOURCE = ROOT / "tests" / "support" / "dead_resolver.c"
CC = shutil.which("cc")


@pytest.mark.skipif(CC is None, reason="needs a C compiler")
def test_a_dead_resolver_is_this_miners_fault(testbed: Testbed) -> None:
    shim = testbed.folder / "dead_resolver.so"
    subprocess.run([str(CC), "-shared", "-fPIC", "-o", str(shim), str(SOURCE), "-ldl"], check=True)
    testbed.start_devnet()
    testbed.start_worker(testbed.start_engine(), environ={"LD_PRELOAD": str(shim)})
    (task,) = testbed.ended(testbed.create(parameters={"image": "http://picture.test/a.png"}), patience=60.0)
    assert (task["status"], "this miner's network failed" in task["msg"]) == ("failed", True)
    assert testbed.logged("step_failed")[0]["reason"].startswith("image: the host name does not resolve")
