"""GPUs, disk, ports."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from miner.comfy import process_tree
from miner.comfy.memory_limit import Limit
from miner.doctor.checks.decoder import decoder
from miner.doctor.checks.gpu import gpu, memory_marks, our_processes
from miner.doctor.checks.machine import (
    address_space,
    disk,
    disk_speed,
    file_systems,
    memory,
    ports,
    ram,
    space,
    speed,
    taken,
)
from miner.doctor.facts import WorkerStatus
from miner.machine.gpu import Gpu, Gpus, User
from tests.support.paths import ROOT
from tests.support.testbed import free_port
from tests.unit.doctor.conftest import levels, only

GB = 10**9
CARD = Gpu(index=0, name="RTX 4090", memory_bytes=24 * GB, free_bytes=23 * GB, compute_capability=(8, 9))
FOUND = Gpus(gpus=(CARD,), source="torch", driver="580.65.06", cuda="13.0", torch="2.14.1", torch_cuda="13.0")
NONE = Gpus(problem="no GPU was found: NVML Shared Library Not Found")


def marks(facts, found):
    facts.gpus = lambda: found
    return list(gpu(facts))


# ---- GPUs -------------------------------------------------------------------------------------------------------


def test_a_card_has_marks_for_its_driver_and_memory(facts_of):
    told = marks(facts_of(), FOUND)
    assert levels(told) == {"Driver": "good", "Torch": "good", "GPU 0": "good", "Memory of GPU 0": "good"}
    assert "compute capability 8.9" in only(told, "GPU 0").says
    assert "580.65.06" in only(told, "Driver").says


@pytest.mark.parametrize(
    ("comfyui", "level"),
    [
        ({"home": "/opt/ComfyUI"}, "bad"),
        ({"home": "/opt/ComfyUI", "args": ("--cpu",)}, "warning"),
        ({"url": "http://127.0.0.1:1"}, "note"),
        ({}, "note"),
    ],
)
def test_no_card_is_bad_only_where_a_managed_comfyui_needs_one(facts_of, comfyui, level):
    (mark,) = marks(facts_of(comfyui=comfyui), NONE)
    assert mark.level == level
    assert "NVML" in mark.says


@pytest.mark.parametrize(("comfyui", "level"), [({"home": "/opt/ComfyUI"}, "bad"), ({}, "warning")])
def test_a_torch_that_cannot_use_the_card_is_reported(facts_of, comfyui, level):
    told = marks(facts_of(comfyui=comfyui), replace(FOUND, problem="torch 2.9.1 cannot use them: driver too old"))
    mark = next(mark for mark in told if mark.name == "GPU")
    assert mark.level == level
    assert "driver too old" in mark.says


@pytest.mark.parametrize(
    ("comfyui", "torch", "level"),
    [
        ({"home": "/opt/ComfyUI"}, {"cuda": "12.8", "driver": "570.133", "source": "nvml"}, "bad"),
        ({"home": "/opt/ComfyUI"}, {"torch_arches": ("sm_90",)}, "bad"),
        ({"home": "/opt/ComfyUI"}, {"torch_cuda": "12.6"}, "warning"),
        ({}, {"torch_cuda": "12.6"}, "warning"),
        ({"url": "http://127.0.0.1:1"}, {"torch_cuda": "12.6"}, None),
    ],
)
def test_a_torch_that_does_not_fit_has_a_mark_with_the_build_that_does(facts_of, comfyui, torch, level):
    told = [mark for mark in marks(facts_of(comfyui=comfyui), replace(FOUND, **torch)) if mark.name == "Torch"]
    assert [mark.level for mark in told] == ([level] if level else [])
    assert all("tagged cu1" in mark.cure for mark in told)


def test_memory_that_others_use_is_a_warning_that_names_them():
    busy = replace(CARD, users=(User(pid=os.getpid(), memory_bytes=8 * GB),))
    (mark,) = memory_marks(busy, ours=(), external=False)
    assert mark.level == "warning"
    assert str(os.getpid()) in mark.cure
    assert "8.0 GB" in mark.says


@pytest.mark.parametrize(
    ("users", "ours", "external", "level"),
    [
        ((User(pid=1, memory_bytes=8 * GB),), {1}, False, "good"),
        ((User(pid=1, memory_bytes=8 * GB),), (), True, "note"),
        ((User(pid=1, memory_bytes=GB // 2),), (), False, "note"),
        ((User(pid=1, memory_bytes=None),), (), False, "note"),
    ],
)
def test_managed_or_little_or_unknown_memory_is_not_a_warning(users, ours, external, level):
    assert [mark.level for mark in memory_marks(replace(CARD, users=users), ours=ours, external=external)] == [level]


def test_unknown_free_memory_has_no_mark():
    assert list(memory_marks(replace(CARD, free_bytes=None), ours=(), external=False)) == []


def test_the_processes_of_a_managed_comfyui_are_known_by_its_pid_file(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        started = process_tree.find_process(child.pid).started
        for folder, text in {"comfyui-0": json.dumps({"pid": child.pid, "started": started}), "comfyui-1": "{"}.items():
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "pid").write_text(text)
        assert our_processes(tmp_path) == {child.pid}
    finally:
        child.kill()
        child.wait()
        child.stdin.close()


# ---- disk -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free", "level"), [(11, "good"), (9, "warning"), (4, "bad")])
def test_free_space_is_compared_with_the_minimum(free, level):
    assert space(Path("/"), free * GB, 5 * GB).level == level


def test_each_file_system_is_checked_once(facts_of, tmp_path):
    assert file_systems([tmp_path, tmp_path / "a" / "b"]) == [tmp_path]
    assert len(list(disk(facts_of(miner={"min_free_disk_gb": 0.0}, models={"dir": tmp_path})))) == 1
    assert [mark.level for mark in disk(facts_of(miner={"min_free_disk_gb": 1e9}))] == ["bad"]


def test_measuring_the_disk_leaves_no_file(facts_of, tmp_path):
    (mark,) = disk_speed(facts_of())
    assert "MB/s" in mark.says
    assert list(tmp_path.iterdir()) == []


def test_a_slow_disk_is_a_warning():
    assert speed(Path("/"), 20e6).level == "warning"
    assert speed(Path("/"), 200e6).level == "good"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_disk_that_is_not_writable_is_a_warning(facts_of, tmp_path):
    tmp_path.chmod(0o500)
    assert [mark.level for mark in disk_speed(facts_of())] == ["warning"]


# ---- ports ------------------------------------------------------------------------------------------------------


def test_a_picture_is_decoded_in_a_process_of_its_own(facts_of):
    (mark,) = decoder(facts_of())
    assert mark.level == "good"
    assert "seccomp" in mark.says


def test_without_pillow_no_picture_can_be_decoded(facts_of, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT)])
    (mark,) = decoder(facts_of())
    assert mark.level == "bad"
    assert "does not start" in mark.says


def test_free_ports_are_good(facts_of):
    facts = facts_of(status={"port": free_port()}, comfyui={"url": "http://127.0.0.1:1"})
    assert [mark.level for mark in ports(facts)] == ["good"]


def test_a_dashboard_port_in_use_is_a_warning(facts_of):
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        facts = facts_of(status={"port": port}, comfyui={"url": "http://127.0.0.1:1"})
        facts.worker = lambda: WorkerStatus(has_state_lock=False)  # the real one would query that port, and wait
        (mark,) = ports(facts)
        assert mark.level == "warning"
        assert f"sport = :{port}" in mark.cure
        assert taken("127.0.0.1", port) == "address already in use"


def home_of(folder: Path) -> Path:
    (folder / "home").mkdir()
    (folder / "home" / "main.py").touch()
    return folder / "home"


def test_a_comfyui_port_in_use_is_bad(facts_of, tmp_path):
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        (mark,) = ports(facts_of(comfyui={"home": home_of(tmp_path), "port": port}))
    assert mark.level == "bad"
    assert f"port {port} for ComfyUI" in mark.says


def test_a_running_comfyui_on_the_port_is_a_warning(facts_of, tmp_path, engine):
    port = int(engine.rpartition(":")[2])
    (mark,) = ports(facts_of(comfyui={"home": home_of(tmp_path), "port": port}))
    assert mark.level == "warning"
    assert "adopts it" in mark.says


# ---- RAM --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "level", "words"),
    [
        (None, "good", "256.0 GB, without a limit"),
        (Limit(64 * GB, GB, "/sys/fs/cgroup/memory.max"), "good", "/sys/fs/cgroup/memory.max leaves 64.0 GB"),
        (Limit(8 * GB, GB, "/sys/fs/cgroup/memory.max"), "warning", "too little"),
    ],
)
def test_the_ram_is_what_the_limit_leaves(limit, level, words):
    mark = ram(256 * GB, limit)
    assert (mark.level, words in mark.says) == (level, True)


def test_a_limit_of_the_address_space_is_a_warning():
    assert list(address_space({"LimitAS=": resource.RLIM_INFINITY})) == []
    (mark,) = address_space({"LimitAS=": 32 * GB, "LimitDATA=": resource.RLIM_INFINITY})
    assert (mark.level, "LimitAS= is 32.0 GB" in mark.says) == ("warning", True)


def test_the_ram_of_an_external_comfyui_is_not_this_machines_to_judge(facts_of):
    assert list(memory(facts_of(comfyui={"url": "http://127.0.0.1:1"}))) == []
