"""Deaths are counted and worded, and the log is kept short."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from miner.comfy.client import ComfyDown
from miner.comfy.deaths import DEATHS_WINDOW, describe_ending, too_many
from miner.comfy.process import tail
from miner.comfy.process_log import LIMIT
from miner.comfy.process_tree import PAGE, Process, parse_stat
from tests.support.testbed import free_port
from tests.unit.comfy.owner import standin
from tests.unit.comfy.processes import GO_ON, Make, killed, pid_of

# ---- deaths ---------------------------------------------------------------------------------------------------------


def test_five_deaths_in_ten_minutes_exhaust_it_until_they_are_old(make: Make, tmp_path: Path) -> None:
    now = 1000.0
    process = make(standin(free_port(), tmp_path, "--no-such-flag"), clock=lambda: now)
    for _ in range(5):
        assert process.exhausted is None
        now += 60
        with pytest.raises(ComfyDown):
            process.restart("it did not start", GO_ON)
    assert process.exhausted is not None
    assert str(process.log_path) in process.exhausted
    now += DEATHS_WINDOW - 4 * 60
    assert process.exhausted is None


def test_a_death_counts_whether_start_or_restart_follows(make: Make, tmp_path: Path) -> None:
    process = make(standin(free_port(), tmp_path), clock=lambda: 0.0)
    process.start(GO_ON)
    for number in range(5):
        assert process.exhausted is None
        killed(pid_of(process))
        if number % 2:
            process.start(GO_ON)
        else:
            process.restart("it ended", GO_ON)
    assert process.exhausted is not None


def test_a_restart_to_get_memory_back_is_no_death(make: Make, tmp_path: Path) -> None:
    process = make(standin(free_port(), tmp_path), clock=lambda: 0.0)
    process.start(GO_ON)
    for _ in range(5):
        first = process.pid
        process.restart("its memory passed the limit", GO_ON, death=False)
        assert process.pid != first
    assert process.exhausted is None


@pytest.mark.parametrize(
    ("deaths", "now", "many"),
    [
        ([], 0, False),
        ([0, 1, 2, 3], 3, False),
        ([0, 1, 2, 3, 4], 4, True),
        ([0, 1, 2, 3, 4], 599, True),
        ([0, 1, 2, 3, 4], 600, False),
        ([0, 1, 2, 3, 4, 600], 600, True),
    ],
)
def test_too_many_deaths_are_five_in_ten_minutes(deaths: list[float], now: float, many: bool) -> None:
    assert too_many(deaths, now) is many


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (None, "ended"),
        (0, "ended with code 0"),
        (-11, "was killed by signal 11 (Segmentation fault)"),
        (-9, "was killed by signal 9 (Killed, usually by the kernel when memory runs out)"),
        (-40, "was killed by signal 40 (Real-time signal 6)"),
    ],
)
def test_an_ending_is_said_in_words(code: int | None, words: str) -> None:
    assert describe_ending(code) == words


@pytest.mark.parametrize("name", ["python", "a b", ") R 1 1 1", "((("])
def test_a_process_is_read_rightly_whatever_its_name(name: str) -> None:
    text = f"42 ({name}) S 7 42 41 0 -1 4194304 864 0 0 0 1 0 0 0 20 0 1 0 141546 12812288 3 18446744073709551615"
    assert parse_stat(text) == Process(pid=42, started=141546, parent=7, session=41, rss=3 * PAGE)


# ---- its log --------------------------------------------------------------------------------------------------------


def test_last_words_have_no_colors_blank_lines_or_earlier_runs(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"earlier\n" + b"\x1b[31m[ERROR]\x1b[0m no\n\n 10%\r 20%\r\n" + b"last \xff\n")
    assert tail(path, 8) == ["[ERROR] no", "10%", "20%", "last \ufffd"]
    assert tail(path, 8, lines=1) == ["last \ufffd"]


def test_a_log_past_its_limit_is_emptied_under_the_running_process(make: Make, tmp_path: Path) -> None:
    process = make(standin(free_port(), tmp_path))
    process.start(GO_ON)
    process.tidy()
    assert not process.log_path.with_name("log.1").exists()
    os.truncate(process.log_path, LIMIT + 1)
    process.tidy()
    assert process.log_path.stat().st_size == 0
    assert process.log_path.with_name("log.1").stat().st_size == LIMIT + 1
    assert process.alive()


def test_a_log_that_cannot_be_read_has_no_last_words(tmp_path: Path) -> None:
    assert tail(tmp_path / "missing", 0) == []
