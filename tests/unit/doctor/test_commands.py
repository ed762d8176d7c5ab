"""The commands as processes: exit codes and output, without secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict

import pytest
from rich.console import Console

from miner.cli.bench import bench_lines, bench_table
from miner.cli.tables import finding_lines, finding_table, verdict
from miner.doctor.bench import Row
from miner.doctor.report import exit_code, finding, good, warning
from miner.doctor.trial_render import RenderResult
from miner.machine.benchmarks import Measurement, read
from miner.task.errors import ConfigError
from tests.support.testbed import MINER_ID
from tests.unit.doctor.conftest import STAND_INS

KEY, PASSWORD, TOKEN = "k3yofsomeone", "pa55word", "t0kenofthepage"
ROW = Measurement(
    workflow="mochi-fp8", cold=90.0, warm=60.0, runs=1, peak_memory=18 * 10**9, device="RTX", comfyui="0.33.0", at=1.0
)
BROKEN = RenderResult(name="flux-lora", ok=False, format="jpg", says="failed: no LoRA", cure="pull one")


@pytest.fixture
def run(tmp_path, devnet, engine):
    """Runs a command with a configuration that can mine on the engine; `changes` replace sections."""

    def of(*arguments, **changes):
        sections = {
            "sequencer": f'url = "{devnet.url}"\napi_key = "{KEY}"',
            "miner": f'id = "{MINER_ID}"\nmin_free_disk_gb = 0.0',
            "workflows": 'enabled = ["upscaler-lanczos"]',
            "comfyui": f'url = "{engine.replace("://", f"://user:{PASSWORD}@")}"',
            "state": f'dir = "{tmp_path / "state"}"',
            "status": f'enabled = false\ntoken = "{TOKEN}"',
            **changes,
        }
        config = tmp_path / "config.toml"
        config.write_text("".join(f"[{name}]\n{text}\n" for name, text in sections.items()))
        config.chmod(0o600)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("XALORA_")}
        command = [sys.executable, "-m", "miner", *arguments, "--config", str(config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, env=environ, check=False)

    return of


def test_a_pipe_gets_plain_lines_with_the_trial_renders(run):
    ended = run("doctor", "--render")
    assert ended.returncode == 1, ended.stdout + ended.stderr  # the engine has no GPU
    assert "ok    Workflow upscaler-lanczos: can run\n" in ended.stdout
    assert "ok    Render a picture: png, 64x48" in ended.stdout
    assert "ok    Render upscaler-lanczos: png, 256x192" in ended.stdout
    assert ended.stdout.endswith("this machine can mine, with the warnings above\n")
    assert not ended.stderr
    assert not [secret for secret in (KEY, PASSWORD, TOKEN) if secret in ended.stdout]
    assert "\x1b" not in ended.stdout


def test_json_is_one_object(run):
    ended = run("doctor", "--json", workflows='enabled = ["mochi-fp8"]')
    shown = json.loads(ended.stdout)
    assert ended.returncode == shown["exit_code"] == 2
    names = [check["check"] for check in shown["checks"]]
    assert names == [
        *(
            "configuration",
            "permissions",
            "environment",
            "name_lookup",
            "sequencer",
            "gpu",
            "comfyui",
            "comfyui_args",
            "models",
            "workflows",
        ),
        *("decoder", "memory", "disk", "disk_speed", "state_folder", "journal", "ports", "worker"),
    ]
    assert not [secret for secret in (KEY, PASSWORD, TOKEN) if secret in ended.stdout + ended.stderr]


def test_invalid_settings_are_marks_with_exit_code_2(run):
    ended = run("doctor", miner='id = "nobody"\nprefetch = "many"')
    assert ended.returncode == 2
    assert ended.stdout.count("BAD   Configuration: ") == 2
    assert "Traceback" not in ended.stderr


def test_an_unknown_enabled_workflow_is_a_config_error(facts_of):
    with pytest.raises(ConfigError, match="unknown workflow 'no-such'"):
        facts_of(workflows={"enabled": ("no-such",)})


def test_verify_hashes_models_first(run, tmp_path):
    (tmp_path / "models" / "upscale_models").mkdir(parents=True)
    changes = {"models": f'dir = "{tmp_path / "models"}"', "workflows": 'enabled = ["upscaler-lanczos", "upscaler"]'}
    ended = run("doctor", "--verify", **changes)
    assert "hashing models" in ended.stderr
    assert "WARN  Models: 1 of 1 files are missing" in ended.stdout


def test_a_bench_is_printed_and_saved(run, tmp_path):
    ended = run("bench", "--json", workflows=f'enabled = ["plain-picture"]\nfolders = ["{STAND_INS}"]')
    assert ended.returncode == 0, ended.stderr
    (row,) = json.loads(ended.stdout)["workflows"]
    assert row["measured"] == asdict(read(tmp_path / "state")["plain-picture"])


def test_a_bench_of_what_cannot_run_says_what_to_do(run):
    ended = run("bench", "mochi-fp8")
    assert ended.returncode == 1
    assert "xalora-miner doctor" in ended.stderr


# ---- how it looks -----------------------------------------------------------------------------------------------


def shown(what):
    console = Console(width=100, force_terminal=True, color_system=None, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_a_terminal_gets_a_table():
    text = shown(finding_table(finding("it", [good("Disk", "[bold] 9 GB"), warning("GPU 0", "old", "a new one")], 0.0)))
    assert "✓" in text
    assert "[bold] 9 GB" in text
    assert "next: a new one" in text


def test_a_pipe_gets_a_line_for_each_mark():
    assert list(finding_lines(finding("it", [warning("GPU 0", "old", "a new one")], 0.0))) == [
        "WARN  GPU 0: old",
        "      next: a new one",
    ]


def test_the_last_line_is_the_verdict():
    fine = [finding("it", [good("Disk", "x")], 0.0)]
    assert exit_code(fine) == 0
    assert verdict(fine).plain == "this machine is ready to mine"


def test_a_bench_is_a_table_and_lines():
    rows = [Row(workflow="mochi-fp8", measured=ROW), Row(workflow="flux-lora", failure=BROKEN)]
    text = shown(bench_table(rows, "RTX"))
    assert "60.0 s" in text
    assert "18.0 GB" in text
    assert "no LoRA; next: pull one" in text
    assert list(bench_lines(rows)) == [
        "mochi-fp8: 60 tasks an hour; 60.0 s warm, 90.0 s cold; video memory 18.0 GB",
        "flux-lora: failed: no LoRA\n      next: pull one",
    ]
