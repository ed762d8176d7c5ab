"""The disk and the ports."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from miner.dashboard.bind import listen
from miner.doctor.facts import Facts
from miner.doctor.report import bad, good, note, warning
from miner.telemetry.health import Mark

GIGABYTE = 10**9
MEGABYTE = 10**6
SAMPLE = 64 * MEGABYTE  # bytes written to learn the disk's speed
LONGEST = 3.0  # seconds that writing them may take
ROOM = 4 * SAMPLE  # bytes that have to be free for that
SLOW = 50 * MEGABYTE  # bytes a second; a video of a gigabyte would take 20 s


def disk(facts: Facts) -> Iterator[Mark]:
    """The free space of every file system that the miner writes to."""
    least = facts.settings.miner.min_free_disk_gb * GIGABYTE
    for folder in file_systems(_folders(facts)):
        yield space(folder, shutil.disk_usage(folder).free, least)


def _folders(facts: Facts) -> Iterator[Path]:
    yield facts.settings.state.dir
    if (root := facts.model_files().root) is not None:
        yield root
    if (output := facts.settings.comfyui.output_dir) is not None:
        yield output


def file_systems(folders: Iterable[Path]) -> list[Path]:
    """One folder that is there of each file system that `folders` are, or would be, on."""
    found: dict[int, Path] = {}
    for folder in folders:
        there = standing(folder)
        found.setdefault(there.stat().st_dev, there)
    return list(found.values())


def standing(folder: Path) -> Path:
    """The nearest folder on the way to `folder` that is there."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def space(folder: Path, free: int, least: float) -> Mark:
    """Pure. Sizes in bytes."""
    says = f"{free / GIGABYTE:.1f} GB are free at {folder}, and {least / GIGABYTE:g} GB are needed"
    cure = "make room, for example with xalora-miner models prune"
    if free < least:
        return bad("Disk", f"{says}: no task is taken", f"{cure}, or lower [miner] min_free_disk_gb")
    return warning("Disk", says, f"{cure}, soon") if free < 2 * least else good("Disk", says)


def disk_speed(facts: Facts) -> Iterator[Mark]:
    """How fast the state folder's disk takes what is written and flushed. Nothing stays on it."""
    folder = standing(facts.settings.state.dir)
    if shutil.disk_usage(folder).free < ROOM:
        yield note("Disk's speed", f"not measured: there is no room for that at {folder}")
        return
    try:
        yield speed(folder, measured(folder))
    except OSError as error:
        cure = "see the rights of that folder, and the disk's health with dmesg and smartctl"
        yield warning("Disk's speed", f"{folder} cannot be written: {error.strerror}", cure)


def measured(folder: Path) -> float:
    """Bytes a second, flush included. Blocks for LONGEST seconds and one flush. Raises OSError."""
    block, written = os.urandom(MEGABYTE), 0  # a disk that packs would pack zeros to nothing
    began = time.monotonic()
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        while written < SAMPLE and time.monotonic() - began < LONGEST:
            written += file.write(block)
        os.fsync(file.fileno())
    return written / (time.monotonic() - began)


def speed(folder: Path, rate: float) -> Mark:
    """Pure. `rate` in bytes a second."""
    says = f"{folder} takes {rate / MEGABYTE:.0f} MB/s"
    cure = "put the state folder onto a local SSD with XALORA_STATE_DIR"
    return warning("Disk's speed", says, cure) if rate < SLOW else good("Disk's speed", says)


def ports(facts: Facts) -> Iterator[Mark]:
    """Whether those that a worker listens on can be had; where one runs, they are its own."""
    if facts.worker().has_state_lock:
        yield good("Ports", "the miner that runs has them")
        return
    status, wrong = facts.settings.status, []
    if status.enabled and status.port and (reason := taken(status.host, status.port)):
        cure = _cure(status.port, "XALORA_STATUS_PORT")
        wrong.append(warning("Ports", f"port {status.port} of the dashboard cannot be had: {reason}", cure))
    for number, found in enumerate(facts.comfyuis()):
        launch, port = found.placement.launch, facts.settings.comfyui.port + number
        if launch is None or not (reason := taken("127.0.0.1", port)):
            continue
        if found.stats is not None:  # a dead miner's, which the next one adopts; or a stranger's, which it does not
            says = f"a ComfyUI answers on port {port} already; the miner takes it over if a miner started it"
            wrong.append(warning("Ports", says, f"if it is another one: {_cure(port, 'XALORA_COMFYUI_PORT')}"))
        else:
            says = f"port {port}, meant for ComfyUI, cannot be had: {reason}"
            wrong.append(bad("Ports", says, _cure(port, "XALORA_COMFYUI_PORT")))
    yield from wrong or [good("Ports", "all that the miner listens on are free")]


def taken(host: str, port: int) -> str:
    """Why nothing can listen there, or ""."""
    try:
        with closing(listen(host, port)):
            return ""
    except socket.gaierror as error:
        return f"{host} has no address: {error.strerror}"
    except OSError as error:
        return os.strerror(error.errno or errno.EADDRNOTAVAIL).lower()


def _cure(port: int, variable: str) -> str:
    return f"`ss -ltnp 'sport = :{port}'` names who has it: end that, or set {variable}"
