"""A task passes the files that docs/architecture.md lists, in that order."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.testbed import Process, Testbed, free_port, until

ROW = re.compile(r"^\|[^|]*\| `([a-z_/]+\.py)` \| `(\w+)` \|", re.MULTILINE)


def test_a_task_passes_the_files_in_the_order_of_the_docs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = [" ".join(row) for row in ROW.findall(page.split("## The trip of a task")[1].split("\n## ")[0])]
    assert len(named) > 20
    trace = tmp_path / "trace"
    with Testbed(tmp_path) as testbed:
        testbed.start_devnet()
        testbed.start_worker(testbed.start_engine(), status__enabled=True, status__port=free_port())
        testbed.worker.kill()
        command = [sys.executable, "-m", "tests.system.worker.traced", str(testbed.folder / "config.toml"), str(trace)]
        traced = Process(command, testbed.folder / "traced.log", env={"PYTHONPATH": str(ROOT)}).start()
        try:
            (task,) = testbed.ended(testbed.create())
            assert task["status"] == "finished"
            until(lambda: not list((testbed.folder / "state" / "lane-0").iterdir()), why="the cleanup")
            assert traced.stop() == 0, traced.log.read_text()
        finally:
            traced.kill()
    passed = {name: number for number, name in enumerate(trace.read_text().splitlines())}
    assert not [name for name in named if name not in passed]
    assert not [pair for pair in pairwise(named) if passed[pair[0]] > passed[pair[1]]]
