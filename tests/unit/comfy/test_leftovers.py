"""Leftovers on disk: the sweep, what cannot be deleted, and a ComfyUI's log."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from miner.comfy.leftovers import remove_tree, sweep
from miner.comfy.process_log import LIMIT, ProcessLog
from miner.task.prompt_ids import is_of, new_prompt_id
from miner.telemetry import clock

PROMPT = "a lighthouse 'called' X\nby the sea"


def test_the_sweep_takes_what_is_ours_or_old_and_nothing_else(tmp_path: Path) -> None:
    parent = tmp_path / "xalora"
    mine, kept, others, old = (new_prompt_id(owner) for owner in ("me", "me", "you", "you"))
    older, holiday, elsewhere = str(uuid.uuid4()), "holiday", tmp_path / "elsewhere"
    for name in (mine, kept, others, old, older, holiday):
        (parent / name).mkdir(parents=True)
        (parent / name / "picture.png").touch()
    for name in (old, older, holiday):
        os.utime(parent / name, (0, 0))
    elsewhere.mkdir()
    link = new_prompt_id("me")
    (parent / link).symlink_to(elsewhere)
    assert list(sweep(parent, keep={kept}, mine=lambda prompt: is_of(prompt, "me"))) == []
    assert {path.name for path in parent.iterdir()} == {kept, others, holiday, link}
    assert elsewhere.is_dir()


def test_a_sweep_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "real" / new_prompt_id("me")).mkdir(parents=True)
    (tmp_path / "xalora").symlink_to(tmp_path / "real")
    assert list(sweep(tmp_path / "xalora", keep=(), mine=lambda _: True)) == []
    assert len(list((tmp_path / "real").iterdir())) == 1


@pytest.mark.skipif(os.getuid() == 0, reason="root may delete anywhere")
def test_what_cannot_be_deleted_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    folder.chmod(0o500)
    assert "Permission denied" in remove_tree(folder)
    folder.chmod(0o700)
    assert remove_tree(folder) == ""


@pytest.mark.parametrize("form", [PROMPT, repr(PROMPT), PROMPT[3:25], PROMPT.replace("\n", "\\n")])
def test_what_a_log_quotes_of_a_task_is_overwritten_and_the_rest_is_kept(tmp_path: Path, form: str) -> None:
    log = ProcessLog(tmp_path / "log")
    log.path.write_text(f"got prompt\nerror: bad {form}, sorry\nPrompt executed\n")
    size = log.path.stat().st_size
    log.scrub([PROMPT], since=clock.now())
    text = log.path.read_text()
    assert "lighthouse" not in text
    assert text.startswith("got prompt\nerror: bad ")
    assert text.endswith("Prompt executed\n")
    assert log.path.stat().st_size == size


def test_only_what_was_written_since_the_task_came_is_searched(tmp_path: Path) -> None:
    log = ProcessLog(tmp_path / "log")
    log.path.write_text(f"{PROMPT}\n")
    log.scrub([], since=clock.now())
    came = clock.now()
    with log.path.open("a") as file:
        file.write(f"{PROMPT}\n")
    log.scrub([PROMPT], since=came)
    assert log.path.read_text().count("lighthouse") == 1


def test_a_log_that_was_started_anew_is_searched_with_its_predecessor(tmp_path: Path) -> None:
    log = ProcessLog(tmp_path / "log")
    log.path.write_bytes(b"x" * LIMIT + PROMPT.encode())
    came = clock.now()
    assert log.tidy()
    log.path.write_text(PROMPT)
    log.scrub([PROMPT], since=came)
    assert b"lighthouse" not in log.path.read_bytes() + log.older.read_bytes()
