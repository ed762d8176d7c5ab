"""External, managed and embedded ComfyUI; workflows and models."""

from __future__ import annotations

import json
import socket
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from miner.comfy.replies import Stats
from miner.doctor.checks.comfyui import comfyui, could_start, packages
from miner.doctor.checks.models import model_marks, models
from miner.doctor.checks.workflows import known_before_start, summary_mark, workflow_mark, workflows
from miner.doctor.facts import ComfyStatus, ModelFiles, query_comfyui
from miner.machine.gpu import Gpu, Gpus
from miner.machine.software import version_of
from miner.models.catalogue import FileStatus, ModelFile
from miner.task.errors import MachineFault
from miner.worker.layout import Placement
from tests.support.testbed import free_port
from tests.unit.doctor.conftest import levels, only

FILE = ModelFile(folder="vae", name="ae.safetensors", url="https://h/x", size=1000, needed_by=("flux-lora",))
ROOT = Path("/models")


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "ComfyUI"
    folder.mkdir()
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text('__version__ = "0.3.64"\n')
    (folder / "requirements.txt").write_text("pytest>=1 # ours\n\n# a comment\nno-such-package==1.0\n")
    return folder


# ---- an external one --------------------------------------------------------------------------------------------


def test_one_that_answers_on_a_cpu_is_a_warning(facts_of, engine):
    mark = only(comfyui(facts_of(comfyui={"url": engine})), "ComfyUI")
    assert mark.level == "warning"
    assert "0.33.0 answers" in mark.says
    assert "CPU" in mark.says


def test_one_with_a_gpu_is_good(facts_of):
    facts = facts_of(comfyui={"url": "http://127.0.0.1:1"})
    stats = Stats(version="0.33.0", device="cuda:0 RTX", on_gpu=True, vram_total=24 * 10**9, vram_free=23 * 10**9)
    facts.comfyuis = lambda: (ComfyStatus(placement=facts.layout().placements[0], stats=stats, object_info={}),)
    assert only(comfyui(facts), "ComfyUI").level == "good"


@pytest.mark.parametrize("which", ["refuses", "is something else"])
def test_one_that_does_not_answer_is_bad_and_no_workflow_is_checked(facts_of, devnet, which):
    url = devnet.url if which == "is something else" else f"http://127.0.0.1:{free_port()}"
    facts = facts_of(comfyui={"url": url})
    mark = only(comfyui(facts), "ComfyUI")
    assert mark.level == "bad"
    assert mark.cure
    assert levels(workflows(facts)) == {"Workflows": "bad"}


def test_one_that_hangs_times_out():
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = query_comfyui(Placement(name="0", miner_id="", url=url), timeout=0.2)
    assert "does not answer" in found.error.message


def test_of_two_each_has_its_mark(facts_of, engine):
    told = levels(comfyui(facts_of(comfyui={"url": f"{engine},http://127.0.0.1:{free_port()}"})))
    assert told == {"ComfyUI 0": "warning", "ComfyUI 1": "bad"}


def test_a_missing_folder_is_a_warning(facts_of, engine, tmp_path):
    there = {"url": engine, "output_dir": tmp_path}
    assert len([m for m in comfyui(facts_of(comfyui=there)) if "output_dir" in m.says]) == 0
    gone = {"url": engine, "output_dir": tmp_path / "gone"}
    (mark,) = [m for m in comfyui(facts_of(comfyui=gone)) if "output_dir" in m.says]
    assert mark.level == "warning"


def test_a_password_in_its_url_is_not_shown(facts_of, engine):
    url = engine.replace("://", "://user:pa55@")
    assert "pa55" not in "".join(mark.says + mark.cure for mark in comfyui(facts_of(comfyui={"url": url})))


# ---- a managed one ----------------------------------------------------------------------------------------------


def test_the_home_and_python_of_a_managed_one_are_checked(facts_of, home, tmp_path):
    facts = facts_of(comfyui={"home": home, "python": sys.executable, "port": free_port()})
    told = list(comfyui(facts))
    assert levels(told) == {
        "ComfyUI's home": "good",
        "ComfyUI's Python": "warning",
        "ComfyUI": "note",
        "Tuning": "note",
    }
    assert "no-such-package" in only(told, "ComfyUI's Python").says
    assert "pip install -r" in only(told, "ComfyUI's Python").cure
    assert "0.3.64" in only(told, "ComfyUI's home").says
    assert not (tmp_path / "state").exists()


def test_an_invalid_home_is_bad(facts_of, tmp_path):
    (mark,) = comfyui(facts_of(comfyui={"home": tmp_path}))
    assert mark.level == "bad"
    assert "main.py is missing" in mark.says


@pytest.mark.parametrize("python", ["/nonexistent/python", "/bin/true"])
def test_an_invalid_python_is_bad(facts_of, home, python):
    facts = facts_of(comfyui={"home": home, "python": python})
    assert only(could_start(facts.layout().placements[0].launch), "ComfyUI's Python").level == "bad"


@pytest.mark.parametrize(
    ("installed", "level"),
    [
        ({"torch": "2.9.1", "av": "15.0"}, "good"),
        ({"torch": "2.9.1", "av": ""}, "warning"),
        ({"torch": "", "av": ""}, "bad"),
    ],
)
def test_missing_packages_are_reported(installed, level):
    assert packages("python", "3.11.9", installed, ROOT / "requirements.txt").level == level


def test_a_home_without_requirements_is_noted(facts_of, home):
    (home / "requirements.txt").unlink()
    (home / "comfyui_version.py").unlink()
    facts = facts_of(comfyui={"home": home, "python": sys.executable})
    told = list(could_start(facts.layout().placements[0].launch))
    assert only(told, "ComfyUI's Python").level == "note"
    assert version_of(home) == ""


# ---- the embedded engine ----------------------------------------------------------------------------------------


def test_without_url_and_home_the_engine_is_started_briefly(facts_of, tmp_path):
    facts = facts_of(workflows={"enabled": ("upscaler-lanczos", "mochi-fp8")})
    told = list(comfyui(facts))
    assert levels(told) == {"ComfyUI": "warning", "Embedded engine": "good"}
    verdicts = list(workflows(facts))
    assert levels(verdicts) == {
        "Workflow upscaler-lanczos": "good",
        "Workflow mochi-fp8": "warning",
        "Workflows": "good",
    }
    (found,) = facts.comfyuis()
    assert query_comfyui(found.placement).error is not None  # it was stopped
    assert not (tmp_path / "state").exists()


def test_an_engine_that_does_not_start_is_bad(facts_of):
    facts = facts_of(comfyui={"args": ("--no-such-flag",)})
    assert only(comfyui(facts), "Embedded engine").level == "bad"


# ---- workflows --------------------------------------------------------------------------------------------------


def test_a_verdict_names_the_reason_and_its_cure(facts_of, engine):
    facts = facts_of(comfyui={"url": engine}, workflows={"enabled": ("upscaler",)})
    told = list(workflows(facts))
    assert levels(told) == {"Workflow upscaler": "warning", "Workflows": "bad"}
    assert only(told, "Workflow upscaler").says.startswith("cannot run: ")
    assert only(told, "Workflow upscaler").cure


def test_before_a_managed_one_runs_its_files_memory_and_version_are_checked(facts_of, home):
    facts = facts_of(comfyui={"home": home, "port": free_port()}, workflows={"enabled": ("upscaler", "wan22-5b")})
    upscaler, wan = facts.enabled
    facts.gpus = lambda: Gpus(gpus=(Gpu(index=0, name="small", memory_bytes=4 * 10**9),), source="nvml")
    assert {reason.kind for reason in known_before_start(facts, upscaler)} == {"model"}
    assert {reason.kind for reason in known_before_start(facts, wan)} == {"model", "vram"}
    assert levels(workflows(facts))["Workflows"] == "bad"
    there = tuple(replace(status, state="present") for status in facts.model_files().statuses)
    facts.model_files = lambda: ModelFiles(root=ROOT, statuses=there)
    assert known_before_start(facts, upscaler) == ()
    assert "nodes are checked once ComfyUI runs" in only(workflows(facts), "Workflow upscaler").says


def test_no_runnable_workflow_is_bad_and_some_are_good():
    assert summary_mark(3, 0).level == "bad"
    assert summary_mark(3, 1).level == "good"


def test_an_engine_cannot_be_updated_so_the_cure_is_a_real_comfyui(facts_of):
    told = list(workflows(facts_of(workflows={"enabled": ("mochi-fp8",)})))
    assert "set XALORA_COMFYUI_HOME" in only(told, "Workflow mochi-fp8").cure
    assert "update ComfyUI" not in only(told, "Workflow mochi-fp8").cure


def test_several_reasons_are_counted(facts_of, library):
    facts = facts_of(workflows={"enabled": ("flux-lora",)}, comfyui={"home": "/nowhere"})
    placement = Placement(name="0", miner_id="", url="http://127.0.0.1:1")
    stats = Stats(version="0.33.0", device="cpu", on_gpu=False, vram_total=0, vram_free=0)
    facts.comfyuis = lambda: (ComfyStatus(placement=placement, stats=stats, object_info={}),)
    assert "more" in only(workflows(facts), "Workflow flux-lora").says
    assert workflow_mark(library.get("flux-lora"), (), good_says="can run").level == "good"


# ---- models -----------------------------------------------------------------------------------------------------


def status(state, **rest):
    return FileStatus(file=FILE, state=state, path=ROOT / FILE.relative_path, **rest)


@pytest.mark.parametrize(
    ("statuses", "level", "words"),
    [
        ([status("present", present_bytes=1000)], "good", "all 1 files"),
        ([status("missing")], "warning", "1 of 1 files are missing"),
        ([status("partial", present_bytes=400)], "warning", "missing"),
        ([status("differs", reason="it has 999 bytes")], "warning", "it has 999 bytes"),
        ([], "good", "need no files"),
    ],
)
def test_the_state_of_files_is_a_mark(statuses, level, words):
    (mark,) = model_marks(ROOT, statuses)
    assert mark.level == level
    assert words in mark.says


def test_real_files_are_checked_and_no_folder_is_created(facts_of, library, tmp_path):
    folder = tmp_path / "models"
    facts = facts_of(models={"dir": folder}, workflows={"enabled": ("upscaler",)})
    (mark,) = models(facts)
    assert mark.level == "warning"
    assert mark.cure == "xalora-miner models pull"
    (model,) = library.get("upscaler").manifest.models
    target = folder / model.folder / model.name
    target.parent.mkdir(parents=True)
    header = json.dumps({"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}).encode()
    target.write_bytes(len(header).to_bytes(8, "little") + header)
    (mark,) = models(facts_of(models={"dir": folder}, workflows={"enabled": ("upscaler",)}))
    assert (mark.level, "another file" in mark.says) == ("warning", True)
    target.write_bytes(b"<!doctype html>")
    (mark,) = models(facts_of(models={"dir": folder}, workflows={"enabled": ("upscaler",)}))
    assert (mark.level, mark.says.endswith("is broken: it is a web page, not weights")) == ("warning", True)
    room = model.size - 8 - 80
    header = json.dumps({"a": {"dtype": "U8", "shape": [room], "data_offsets": [0, room]}}).encode().ljust(80)
    with target.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(model.size)
    (mark,) = models(facts_of(models={"dir": folder}, workflows={"enabled": ("upscaler",)}))
    assert mark.level == "good"
    assert not (tmp_path / "state").exists()


def test_unknown_models_of_an_external_comfyui_are_noted(facts_of):
    (mark,) = models(facts_of(comfyui={"url": "http://127.0.0.1:1"}))
    assert mark.level == "note"


def test_an_unreadable_models_folder_is_a_warning(facts_of):
    facts = facts_of()
    facts.model_files = lambda: ModelFiles(error=MachineFault("/models: Input/output error", hint="see dmesg"))
    (mark,) = models(facts)
    assert (mark.level, mark.cure) == ("warning", "see dmesg")
