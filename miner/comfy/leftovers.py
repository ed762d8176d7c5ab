"""What ComfyUI keeps of a prompt: files, a history entry, lines of its log. Erases them once the task is answered.

Files are deleted where ComfyUI's folders are on this machine. Elsewhere they are made empty over its API, and
stay so. Only files of the prompt's own folder are touched, and previews that it made.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from miner.comfy.client import ComfyClient, ComfyFault
from miner.comfy.replies import parse_history
from miner.task.errors import MachineFault
from miner.task.prompt_ids import is_prompt_id
from miner.task.stages import OutputFile

PARENT = "xalora"  # of every prompt's folder
MOST_FILES = 200  # of one prompt, to overwrite
MOST_PROMPTS = 200  # of a history, to look through: entries can be large
DAY = 86400.0


def folder_of(prompt_id: str) -> str:
    """A prompt's own sub-folder in ComfyUI's input and output folders."""
    return f"{PARENT}/{prompt_id}"


class Leftovers:
    """Of one ComfyUI. `folders`: those on this machine, by kind (`input`, `output`). `ours`: it can be no others."""

    def __init__(self, client: ComfyClient, *, folders: Mapping[str, Path], ours: bool) -> None:
        self._client = client
        self._folders = folders
        self._ours = ours

    def erase(self, prompt_id: str, files: Collection[OutputFile], *, ended: bool, reachable: bool) -> str:
        """Erase a prompt's files, `files` among them; its history entry is for `forget`. `ended`: it is known that the
        prompt has, and that it has no other files. Returns why something may be left, or "".

        Blocks for two short requests a file at most, and three for a prompt that is not known to have ended. Those to
        ComfyUI are left out if it is not `reachable`.
        """
        there = {file for file in files if self._is_here(file)}
        reasons = [remove_tree(root.resolve() / folder_of(prompt_id)) for root in self._folders.values()]
        if reachable:
            try:
                found = files if ended else [*files, *self._others(prompt_id)]
                for file in islice(dict.fromkeys(found), MOST_FILES):
                    if file not in there:
                        self._blank(file, prompt_id, surely=ended)
            except MachineFault as fault:
                reasons.append(fault.message)
        return "; ".join(reason for reason in reasons if reason)

    def forget(self, prompts: Collection[str]) -> str:
        """Delete prompts that have ended from ComfyUI's history, in one request. Returns why any may be left, or ""."""
        try:
            self._client.forget(prompts)
        except MachineFault as fault:
            return fault.message
        return ""

    def _is_here(self, file: OutputFile) -> bool:
        """Whether it is on this disk, in a folder that is about to be deleted."""
        root = self._folders.get(file.kind)
        return root is not None and (root / file.subfolder / file.filename).is_file()

    def _others(self, prompt_id: str) -> Iterator[OutputFile]:
        """The files that ComfyUI's history knows of a prompt. Raises ComfyFault if it has not ended, and cancels it."""
        entry = self._client.entry(prompt_id)
        if entry is None and self._client.queue().has(prompt_id):
            self._client.cancel(prompt_id)  # of an unreadable record, or submitted by a request that failed
            raise ComfyFault("ComfyUI has not ended the prompt yet")
        entry = entry or self._client.entry(prompt_id)  # it may have ended between the two
        return _files(entry, prompt_id) if entry else iter(())

    def _blank(self, file: OutputFile, prompt_id: str, *, surely: bool) -> None:
        """Make a file empty that ComfyUI has, `surely` or if it says so."""
        own = file.subfolder.replace("\\", "/") == folder_of(prompt_id) or file.kind == "temp"
        if not own or (self._ours and file.kind in self._folders):
            return
        if (surely and file.kind not in self._folders) or self._client.has(file):
            self._client.blank(file)

    def known(self, *, keep: Collection[str], mine: Callable[[str], bool]) -> list[str]:
        """The prompts in ComfyUI's history that are `mine`, without those of `keep`. Blocks for a request; raises
        ComfyFault."""
        return [prompt for prompt in self._client.ended(MOST_PROMPTS) if mine(prompt) and prompt not in keep]

    def sweep(self, *, keep: Collection[str], mine: Callable[[str], bool]) -> list[str]:
        """Delete what earlier runs left in ComfyUI's folders; see `sweep`."""
        return [reason for root in self._folders.values() for reason in sweep(root / PARENT, keep=keep, mine=mine)]


def sweep(parent: Path, *, keep: Collection[str], mine: Callable[[str], bool]) -> Iterator[str]:
    """Delete the folders of prompts in `parent` but those of `keep`: at once if `mine`, else a day after the last
    change, since another miner may be at work there. Yields why one is left."""
    parent = parent.parent.resolve() / parent.name  # a link there is not ours
    try:
        folders = list(parent.iterdir())
    except OSError:
        return
    for folder in folders:
        if is_prompt_id(folder.name) and folder.name not in keep:
            try:
                old = mine(folder.name) or folder.lstat().st_mtime < time.time() - DAY
            except OSError:
                continue  # somebody else deleted it
            if old and (reason := remove_tree(folder)):
                yield reason


def remove_tree(folder: Path) -> str:
    """Delete `folder`, unless its path has a symbolic link: then it is not ours. Returns why something is left."""
    if not folder.is_dir() or folder.resolve() != folder:
        return ""
    errors: list[str] = []
    shutil.rmtree(folder, onerror=lambda _call, path, error: errors.append(f"{path}: {error[1]}"))
    return f"cannot delete {errors[0]}" if errors and folder.exists() else ""


def _files(entry: dict[str, Any], prompt_id: str) -> Iterator[OutputFile]:
    """Those that the prompt's own run wrote (a cached node names an earlier run's), and those that its graph loads."""
    folder, words = folder_of(prompt_id), json.dumps(entry.get("prompt"))
    for name in re.findall(rf'"{folder}/([^"/\\\\]+)"', words):
        yield OutputFile(filename=name, subfolder=folder, kind="input")
    yield from parse_history(entry).written
