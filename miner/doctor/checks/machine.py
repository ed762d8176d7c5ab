"""The RAM, the disk and the ports."""

from __future__ import annotations

import errno
import os
import resource
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from miner.comfy import memory_limit
from miner.comfy.memory_limit import Limit
from miner.dashboard.bind import listen
from miner.doctor.facts import Facts
from miner.doctor.report import bad, good, note, warning
from miner.machine.disk import existing_folder, free_bytes
from miner.telemetry.health import Mark
from miner.telemetry.sizes import GIGABYTE, MEGABYTE, gb

LEAST_RAM = 16 * GIGABYTE  # bytes; a text encoder of 10 passes through RAM
_SPACE = {"ulimit -v (LimitAS=)": resource.RLIMIT_AS, "ulimit -d (LimitDATA=)": resource.RLIMIT_DATA}

SAMPLE = 64 * MEGABYTE  # bytes written to measure the disk
LONGEST = 3.0  # seconds for writing them
ROOM = 4 * SAMPLE  # bytes that have to be free for it
SLOW = 50 * MEGABYTE  # bytes a second; a video of a gigabyte would take 20 s


def memory(facts: Facts) -> Iterator[Mark]:
    """The machine's RAM, and what a container or unit leaves of it to a managed ComfyUI."""
    if facts.managed:
        yield ram(memory_limit.machine_memory(), memory_limit.limit())
        yield from address_space({name: resource.getrlimit(number)[0] for name, number in _SPACE.items()})


def ram(machine: int, limit: Limit | None) -> Mark:
    """Pure. Bytes."""
    if limit is None:
        return good("RAM", f"{gb(machine)}, without a limit")
    says = f"{gb(machine)}, of which {limit.file} leaves {gb(limit.total)} to this container or unit"
    if limit.total < LEAST_RAM:
        cure = "raise the limit: docker run --memory, MemoryMax= of the unit, or resources.limits of the pod"
        return warning("RAM", f"{says}: too little for the larger workflows", cure)
    return good("RAM", f"{says}; ComfyUI is told so")


def address_space(limits: Mapping[str, int]) -> Iterator[Mark]:
    """Pure. Limits in bytes; RLIM_INFINITY is none. ComfyUI reserves ten times a model's size (`ModelVBAR`)."""
    for name, limit in limits.items():
        if limit != resource.RLIM_INFINITY:
            cure = f"remove {name}, and limit the memory by MemoryMax= or docker run --memory"
            yield warning("RAM", f"{name} is {gb(limit)}: CUDA and ComfyUI reserve far more than they use", cure)


def disk(facts: Facts) -> Iterator[Mark]:
    """The free space of every file system that the miner writes to."""
    least = facts.settings.miner.min_free_disk_gb * GIGABYTE
    for folder in file_systems(_folders(facts)):
        yield space(folder, free_bytes(folder), least)


def _folders(facts: Facts) -> Iterator[Path]:
    yield facts.settings.state.dir
    if (root := facts.model_files().root) is not None:
        yield root
    if (output := facts.settings.comfyui.output_dir) is not None:
        yield output


def file_systems(folders: Iterable[Path]) -> list[Path]:
    """An existing folder of each file system that `folders` are on, or would be."""
    found: dict[int, Path] = {}
    for folder in folders:
        existing = existing_folder(folder)
        found.setdefault(existing.stat().st_dev, existing)
    return list(found.values())


def space(folder: Path, free: int, least: float) -> Mark:
    """Pure. Sizes in bytes."""
    says = f"{gb(free)} free at {folder}; the minimum is {least / GIGABYTE:g} GB"
    cure = "free some space, for example with xalora-miner models prune"
    if free < least:
        return bad("Disk", f"{says}: no task is taken", f"{cure}, or lower [miner] min_free_disk_gb")
    return warning("Disk", says, f"{cure}, soon") if free < 2 * least else good("Disk", says)


def disk_speed(facts: Facts) -> Iterator[Mark]:
    """How fast the state folder's disk writes and flushes. Leaves no file."""
    folder = existing_folder(facts.settings.state.dir)
    if free_bytes(folder) < ROOM:
        yield note("Disk speed", f"not measured: too little space at {folder}")
        return
    try:
        yield speed(folder, measured(folder))
    except OSError as error:
        cure = "check the folder's permissions, and the disk's health with dmesg and smartctl"
        yield warning("Disk speed", f"cannot write to {folder}: {error.strerror}", cure)


def measured(folder: Path) -> float:
    """Bytes a second, flush included. Blocks for LONGEST seconds and one flush. Raises OSError."""
    block, written = os.urandom(MEGABYTE), 0  # zeros would be compressed
    began = time.monotonic()
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        while written < SAMPLE and time.monotonic() - began < LONGEST:
            written += file.write(block)
        os.fsync(file.fileno())
    return written / (time.monotonic() - began)


def speed(folder: Path, rate: float) -> Mark:
    """Pure. `rate` in bytes a second."""
    says = f"{folder} writes {rate / MEGABYTE:.0f} MB/s"
    cure = "move the state folder to a local SSD with XALORA_STATE_DIR"
    return warning("Disk speed", says, cure) if rate < SLOW else good("Disk speed", says)


def ports(facts: Facts) -> Iterator[Mark]:
    """Whether the ports that a worker listens on are free; a running worker uses them itself."""
    if facts.worker().has_state_lock:
        yield good("Ports", "in use by the running miner")
        return
    status, wrong = facts.settings.status, []
    if status.enabled and status.port and (reason := taken(status.host, status.port)):
        cure = _cure(status.port, "XALORA_STATUS_PORT")
        wrong.append(warning("Ports", f"port {status.port} of the dashboard is not available: {reason}", cure))
    for number, found in enumerate(facts.comfyuis()):
        launch, port = found.placement.launch, facts.settings.comfyui.port + number
        if launch is None or not (reason := taken("127.0.0.1", port)):
            continue
        if found.stats is not None:  # of a dead miner, which the next one adopts; or another's, which it does not
            says = f"a ComfyUI already answers on port {port}; the miner adopts it if a miner started it"
            wrong.append(warning("Ports", says, f"if none did: {_cure(port, 'XALORA_COMFYUI_PORT')}"))
        else:
            says = f"port {port} for ComfyUI is not available: {reason}"
            wrong.append(bad("Ports", says, _cure(port, "XALORA_COMFYUI_PORT")))
    yield from wrong or [good("Ports", "every port that the miner needs is free")]


def taken(host: str, port: int) -> str:
    """Why the port is not available, or ""."""
    try:
        with closing(listen(host, port)):
            return ""
    except socket.gaierror as error:
        return f"{host} has no address: {error.strerror}"
    except OSError as error:
        return os.strerror(error.errno or errno.EADDRNOTAVAIL).lower()


def _cure(port: int, variable: str) -> str:
    return f"`ss -ltnp 'sport = :{port}'` shows what uses it: stop that, or set {variable}"
