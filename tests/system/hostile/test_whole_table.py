"""What all of it together leaves behind in one process."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.support.paths import ROOT
from tests.system.hostile.table import TABLE


def test_after_the_whole_table_nothing_is_left_and_the_next_good_task_succeeds() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.system.hostile.whole"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["inputs"] == len(TABLE)
    assert report["wrong"] == []
    assert report["threads_left"] == []
    assert report["descriptors_left"] == []
    assert report["good_task_after"] is None
    assert report["grown_mb"] <= 20
