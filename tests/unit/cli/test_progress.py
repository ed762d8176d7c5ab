"""Progress bars and log lines."""

from __future__ import annotations

import io
import re

import structlog
from rich.console import Console
from structlog.testing import capture_logs

from miner.cli.progress import Bars, Lines
from miner.models.catalogue import FileStatus, ModelFile


def test_each_file_has_a_bar_and_so_has_the_sum(tmp_path):
    statuses = [
        FileStatus(
            file=ModelFile(folder="vae", name=name, url="u", size=4_000_000),
            state="partial",
            path=tmp_path,
            present_bytes=present,
        )
        for name, present in (("one.pth", 1_000_000), ("two.pth", 0))
    ]
    out = io.StringIO()
    with Bars(Console(file=out, force_terminal=True, width=120), statuses) as bars:
        bars.update("vae/one.pth", 3_000_000, 4_000_000)
        bars.message("vae/two.pth", "waits for another download of it")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()).splitlines()
    assert "vae/two.pth: waits for another download of it" in " ".join(shown)
    one, two, both = shown[-3:]
    assert "one.pth" in one
    assert "3.0/4.0 MB" in one
    assert "0.0/4.0 MB" in two
    assert "total" in both
    assert "3.0/8.0 MB" in both


def test_an_unexpected_file_gets_a_bar_too():
    out = io.StringIO()
    with Bars(Console(file=out, force_terminal=True, width=80), []) as bars:
        bars.update("vae/one.pth", 1_000_000, None)
    assert "one.pth" in out.getvalue()


def test_a_log_has_a_line_now_and_then():
    now = [0.0]
    lines = Lines(every=10.0, clock=lambda: now[0])
    structlog.reset_defaults()
    with capture_logs() as logged, lines:
        for second in range(25):
            now[0] = float(second)
            lines.update("vae/x", second * 10_000_000, 240_000_000)
    assert [(one["done"], one.get("percent"), one.get("mb_s")) for one in logged] == [
        (0, None, None),
        (100_000_000, 42, 10.0),
        (200_000_000, 83, 10.0),
    ]
