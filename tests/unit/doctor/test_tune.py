"""A tuning, on the embedded engine in ComfyUI's place: each trial is a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from miner.comfy.process_tree import all_processes, command_line
from miner.config import Loaded, Settings
from miner.doctor.comfy_session import Busy
from miner.doctor.facts import Facts
from miner.doctor.tune import choice, tune
from miner.doctor.tune_candidates import Candidate
from miner.doctor.tune_plan import plans, require_idle
from miner.doctor.tune_policy import Limits
from miner.doctor.tune_trials import Plan
from miner.machine import tuning
from miner.machine.software import Basis
from miner.task.errors import ConfigError, MachineFault
from miner.task.journal import Journal
from miner.workflows import load_library
from tests.support.paths import STAND_INS
from tests.support.testbed import MINER_ID, free_port, until
from tests.support.tuned_engine import tuned_home


@pytest.fixture
def workflows(tmp_path):
    """A folder with one workflow, whose picture and speed the arguments change."""
    folder = tmp_path / "workflows" / "tuned"
    folder.mkdir(parents=True)
    graph = json.loads((STAND_INS / "plain-picture" / "graph.json").read_text())
    graph["tuned"] = {"class_type": "DevnetTuned", "inputs": {"image": ["picture", 0], "weights": ""}}
    graph["save"]["inputs"]["images"] = ["tuned", 0]
    (folder / "graph.json").write_text(json.dumps(graph))
    text = (STAND_INS / "plain-picture" / "workflow.toml").read_text()
    (folder / "workflow.toml").write_text(text.replace("plain-picture", "tuned"))
    return folder.parent


@pytest.fixture
def settings(tmp_path):
    comfyui = {"home": tuned_home(tmp_path / "home"), "python": Path(sys.executable), "port": free_port()}
    return Settings(state={"dir": tmp_path / "state"}, miner={"id": MINER_ID}, comfyui=comfyui)


def ours(settings):
    """Processes of this home's ComfyUI."""
    port = str(settings.comfyui.port)
    return [process for process in all_processes() if {"main.py", port} <= set(command_line(process) or ())]


def plan_of(settings, workflows, *candidates, **changes):
    library = load_library([workflows], ids={})
    return Plan(
        settings=settings,
        lane=0,
        basis=Basis(),
        candidates=[Candidate(args=tuple(args.split())) for args in candidates],
        workflows=[library.get("tuned")],
        **{"runs": 1, "rounds": 1, "limit": 1.0, "limits": Limits(), **changes},
    )


def test_the_fastest_arguments_with_the_same_pictures_are_chosen(settings, workflows):
    shown = []
    plan = plan_of(
        settings,
        workflows,
        "--fast cublas_ops",
        "--use-flash-attention",
        "--use-sage-attention",
        "--fast autotune",
    )
    found = tune(plan, shown.append)
    ruled_out = {trial.name: reason for trial, reason in found.trials}
    assert found.args == ("--fast", "autotune")
    assert "tuned looks different" in ruled_out["--fast cublas_ops"]
    assert "`flash-attn` package must be installed" in ruled_out["--use-flash-attention"]
    assert "not done within 1 s" in ruled_out["--use-sage-attention"]
    assert ruled_out["--fast autotune"] == ""
    assert not ours(settings)
    assert len(shown) == 2 + 4 + 2
    chosen = choice(plan, found)
    tuning.write(settings.state.dir, chosen)
    assert tuning.read(settings.state.dir)[""].args == chosen.args


def test_the_fastest_variant_with_the_same_pictures_is_chosen(settings, workflows):
    manifest = workflows / "tuned" / "workflow.toml"
    variants = "".join(
        f'[[variants]]\nname = "{name}"\ndescription = "one"\nsets.tuned.weights = "{name}"\n'
        for name in ("usual", "others", "small")
    )
    manifest.write_text(f"{manifest.read_text()}\n{variants}")
    plan = plan_of(settings, workflows)
    found = tune(plan, lambda _: None)
    ruled_out = {trial.name: reason for trial, reason in found.trials}
    assert ruled_out["tuned as usual"] == ruled_out["tuned as small"] == ""
    assert "looks different" in ruled_out["tuned as others"]
    chosen = choice(plan, found)
    assert (chosen.args, chosen.variants) == ((), {"tuned": "small"})
    assert len(found.trials) + 2 + 2 <= plan.trials[1]


def test_without_a_workflow_that_renders_nothing_is_chosen(settings, workflows):
    broken = settings.model_copy(
        update={"comfyui": settings.comfyui.model_copy(update={"args": ("--fast", "fp16_accumulation")})}
    )
    with pytest.raises(MachineFault, match=r"no workflow can be compared: tuned: .*OutOfMemoryError"):
        tune(plan_of(broken, workflows, "--use-sage-attention"), lambda _: None)


def facts(settings):
    status = {"status": settings.status.model_copy(update={"enabled": False})}
    enabled = settings.workflows.model_copy(update={"enabled": ("plain-picture",)})
    settings = settings.model_copy(update={**status, "workflows": enabled})
    loaded = Loaded(settings=settings, file=None, origin={}, warnings=())
    return Facts(loaded, load_library([STAND_INS], ids={}))


def test_a_plan_is_for_a_comfyui_of_the_miners_own(settings):
    (plan,) = plans(facts(settings), (), runs=3, limit=None, limits=Limits())
    assert [one.name for one in plan.tried] in (["--use-pytorch-cross-attention"], [])  # on a CPU, or with a GPU
    elsewhere = settings.model_copy(
        update={"comfyui": settings.comfyui.model_copy(update={"home": None, "url": "http://127.0.0.1:1"})}
    )
    with pytest.raises(ConfigError, match=r"comfyui\.home is not set"):
        plans(facts(elsewhere), (), runs=3, limit=None, limits=Limits())


def test_a_miner_that_runs_is_left_alone(settings):
    require_idle(facts(settings))
    journal = Journal(settings.state.dir)
    try:
        with pytest.raises(Busy, match="a miner runs"):
            require_idle(facts(settings))
    finally:
        journal.close()


def test_an_interrupted_tuning_leaves_no_process_and_no_choice(settings, workflows, tmp_path):
    comfyui = settings.comfyui
    config = tmp_path / "config.toml"
    config.write_text(
        f'[workflows]\nenabled = ["tuned"]\nfolders = ["{workflows}"]\n[state]\ndir = "{settings.state.dir}"\n'
        f'[comfyui]\nhome = "{comfyui.home}"\npython = "{comfyui.python}"\nport = {comfyui.port}\n'
        "[status]\nenabled = false\n"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("XALORA_")}
    command = [sys.executable, "-m", "miner", "bench", "--tune", "--config", str(config)]
    bench = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        until(lambda: ours(settings), why="the first trial's ComfyUI", patience=60.0)
        bench.send_signal(signal.SIGTERM)
        bench.send_signal(signal.SIGINT)  # an impatient operator's, while the first one stops ComfyUI
        said, _ = bench.communicate(timeout=60)
        assert bench.returncode in (128 + signal.SIGTERM, 128 + signal.SIGINT), said
    finally:
        bench.kill()
    assert not ours(settings)
    assert not (settings.state.dir / tuning.FILE).exists()
