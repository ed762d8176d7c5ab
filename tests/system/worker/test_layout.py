"""One lane per GPU with a managed ComfyUI; NVML is a stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from miner.config import Settings
from miner.worker.layout import Placement, layout
from tests.support.dashboard_testbed import quiet_port
from tests.support.engine import make_home
from tests.support.paths import ROOT
from tests.support.testbed import MINER_ID, Testbed, until

NVML = ROOT / "tests" / "support" / "nvml.c"
UUIDS = ["GPU-6f1c0a2b-0000", "GPU-802d1b3c-0000"]
PROGRAM = """
import json, sys
from pathlib import Path
from miner.config import Settings
from miner.machine.gpu import Nvml
from miner.worker.layout import layout
nvml = Nvml()
uuids = nvml.uuids()
nvml.close()
comfyui = {"home": Path(sys.argv[1]), "gpus": tuple(sys.argv[2:])}
settings = Settings(state={"dir": Path(sys.argv[1]) / "state"}, miner={"id": "0x" + 40 * "a"}, comfyui=comfyui)
lanes = [(s.miner_id[42:], s.url[-4:], s.launch.env.get("CUDA_VISIBLE_DEVICES")) for s in layout(settings)]
print(json.dumps([uuids, "pynvml" in sys.modules, lanes]))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a libnvidia-ml."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to build the stand-in for NVML with")
    folder = tmp_path_factory.mktemp("nvml")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", NVML], check=True)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """One whose main.py is the embedded engine."""
    return make_home(tmp_path / "home", "miner.engine")


def seen(home: Path, *gpus: str, **environ: str) -> tuple[list[str], bool, list[list[Any]]]:
    """The UUIDs, whether pynvml was imported, and (suffix, port, GPU) of each lane."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ}
    command = [sys.executable, "-c", PROGRAM, str(home), *gpus]
    printed = subprocess.run(command, check=True, env=env, timeout=60, capture_output=True, text=True)
    uuids, imported, lanes = json.loads(printed.stdout.splitlines()[-1])
    return uuids, imported, lanes


def test_each_gpu_has_a_lane_with_its_suffix_and_port(library: Path, home: Path) -> None:
    uuids, _, lanes = seen(home, LD_LIBRARY_PATH=str(library), NVML_CARDS="2")
    assert uuids == UUIDS
    assert lanes == [["-6f1c0a", "8188", UUIDS[0]], ["-802d1b", "8189", UUIDS[1]]]


def test_one_gpu_is_one_lane_with_the_unchanged_id(library: Path, home: Path) -> None:
    uuids, _, lanes = seen(home, LD_LIBRARY_PATH=str(library), NVML_CARDS="1")
    assert (len(uuids), lanes) == (1, [["", "8188", None]])


@pytest.mark.parametrize("gpus", [("1",), (UUIDS[1],)])
def test_the_settings_select_gpus(library: Path, home: Path, gpus: tuple[str, ...]) -> None:
    *_, lanes = seen(home, *gpus, LD_LIBRARY_PATH=str(library), NVML_CARDS="2")
    assert lanes == [["", "8188", gpus[0]]]


def test_cuda_visible_devices_is_respected(library: Path, home: Path) -> None:
    *_, lanes = seen(home, LD_LIBRARY_PATH=str(library), NVML_CARDS="2", CUDA_VISIBLE_DEVICES="1")
    assert lanes == [["", "8188", "1"]]


BY_BUS, SCREEN = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, {"NVML_SCREEN": "1"}
DESKTOPS: list[tuple[dict[str, str], list[bool]]] = [
    ({}, [False, False]),
    (SCREEN, [False, True]),
    ({"NVML_WINDOWS": "1", "NVML_WINDOWS_MB": "300"}, [False, True]),
    ({"NVML_WINDOWS": "1", "NVML_WINDOWS_MB": "4"}, [False, False]),  # an X server that shows nothing
    (SCREEN | {"CUDA_VISIBLE_DEVICES": UUIDS[0]}, [False]),
    (SCREEN | {"CUDA_VISIBLE_DEVICES": "GPU-802d"}, [True]),
    (SCREEN | {"CUDA_VISIBLE_DEVICES": "1", **BY_BUS}, [True]),
    (SCREEN | {"CUDA_VISIBLE_DEVICES": "0,1", **BY_BUS}, [False]),
    (SCREEN | {"CUDA_VISIBLE_DEVICES": "0"}, [True]),  # CUDA's fastest, whichever that is
]
RESERVING = """
import json, os, sys
from pathlib import Path
from miner.config import Settings
from miner.worker.layout import layout
settings = Settings(state={"dir": Path(sys.argv[1]) / "state"}, comfyui={"home": Path(sys.argv[1])})
found, bare = [], dict(os.environ)
for environ in json.loads(sys.argv[2]):
    os.environ.clear()
    os.environ.update(bare | environ)  # the stand-in reads it, too
    found.append(["--reserve-vram" in placement.launch.argv for placement in layout(settings)])
print(json.dumps(found))
"""


def test_the_card_with_a_desktop_keeps_memory_for_it(library: Path, home: Path) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": str(library), "NVML_CARDS": "2"}
    command = [sys.executable, "-c", RESERVING, str(home), json.dumps([environ for environ, _ in DESKTOPS])]
    printed = subprocess.run(command, check=True, env=env, timeout=60, capture_output=True, text=True)
    assert json.loads(printed.stdout.splitlines()[-1]) == [reserves for _, reserves in DESKTOPS]


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_without_nvml_there_is_one_lane_and_no_import(home: Path) -> None:
    assert seen(home) == ([], False, [["", "8188", None]])


# ---- ids --------------------------------------------------------------------------------------------------------


def managed(home: Path, *gpus: str, **miner: Any) -> tuple[Placement, ...]:
    return layout(
        Settings(state={"dir": home / "state"}, miner={"id": MINER_ID, **miner}, comfyui={"home": home, "gpus": gpus})
    )


@pytest.mark.parametrize(
    ("gpus", "suffixes"),
    [
        (("0", "1"), ["0", "1"]),
        (UUIDS, ["6f1c0a", "802d1b"]),
        (("GPU-6f1c0a2b-01", "GPU-6f1c0a2b-02"), ["6f1c0a2b01", "6f1c0a2b02"]),  # as many as tell them apart
        (("MIG-GPU-6f1c0a2b/1/0", "MIG-GPU-6f1c0a2b/2/0"), ["6f1c0a2b1", "6f1c0a2b2"]),
    ],
)
def test_lane_suffixes_are_short_and_unique(home: Path, gpus: list[str], suffixes: list[str]) -> None:
    assert [placement.miner_id.removeprefix(f"{MINER_ID}-") for placement in managed(home, *gpus)] == suffixes


def test_the_operators_suffixes_override(home: Path) -> None:
    assert [s.miner_id for s in managed(home, "0", "1", suffixes=("a", "b"))] == [f"{MINER_ID}-a", f"{MINER_ID}-b"]


# ---- the whole way ----------------------------------------------------------------------------------------------


def test_two_lanes_render_at_once_each_on_its_gpu(library: Path, home: Path, testbed: Testbed) -> None:
    testbed.start_devnet()
    tasks = [testbed.create() for _ in range(4)]
    testbed.start_worker(
        "",
        environ={"LD_LIBRARY_PATH": str(library), "NVML_CARDS": "2"},
        comfyui__home=str(home),
        comfyui__python=sys.executable,
        comfyui__port=quiet_port(),
    )
    until(lambda: len(testbed.logged("comfyui_ready")) == 2, why="both ComfyUIs")
    cards = {_environ(line["pid"])["CUDA_VISIBLE_DEVICES"] for line in testbed.logged("comfyui_started")}
    assert cards == set(UUIDS)
    assert {task["status"] for task in testbed.ended(*tasks)} == {"finished"}
    asked = {request["miner_id"] for request in testbed.devnet.requests("miner_request")}
    assert asked == {f"{MINER_ID}-6f1c0a", f"{MINER_ID}-802d1b"}
    assert testbed.worker.stop() == 0


def _environ(pid: int) -> dict[str, str]:
    pairs = (Path("/proc") / str(pid) / "environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
