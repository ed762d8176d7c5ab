"""`xalora-miner models` as a real process, against an endpoint shaped like Hugging Face (HF_ENDPOINT)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from miner.config.bundled import WORKFLOWS
from miner.models.hash_db import HashDatabase
from tests.support.paths import ROOT
from tests.support.testbed import until
from tests.unit.models.samples import gguf, lora, safetensors, sha256
from tests.unit.models.server import Step

ONE, TWO, SHARED = gguf(300_000), gguf(200_000, seed=2), safetensors(100_000)


class Installation:
    """A miner's settings in a folder, with two small workflows that share a file."""

    def __init__(self, folder: Path, hub) -> None:
        self.folder = folder
        self.hub = hub
        self.models = folder / "models"
        self.config = folder / "config.toml"
        shared = self.model("text_encoders", "shared.safetensors", SHARED)
        self.workflow("one", vram_gb=0, models=[self.model("vae", "one.gguf", ONE), shared])
        self.workflow("two", vram_gb=10_000, models=[self.model("vae", "two.gguf", TWO), shared])
        self.settings()

    def model(self, folder: str, name: str, data: bytes, *, repo: str = "org/repo") -> str:
        url = self.hub.publish(repo, name, data)
        return (
            f'[[models]]\nfolder = "{folder}"\nname = "{name}"\nurl = "{url}"\nsize = {len(data)}\n'
            f'sha256 = "{sha256(data)}"\nlicence = "Tiny [dev] Licence"\n'
        )

    def workflow(self, name: str, *, vram_gb: int, models: list[str]) -> None:
        folder = self.folder / "workflows" / name
        folder.mkdir(parents=True)
        (folder / "graph.json").write_bytes((WORKFLOWS / "upscaler-lanczos" / "graph.json").read_bytes())
        text = (WORKFLOWS / "upscaler-lanczos" / "workflow.toml").read_text()
        head, _, parameters = text.partition("[parameters")
        head = head.replace('name = "upscaler-lanczos"', f'name = "{name}"')
        head = "".join(
            f"vram_gb = {vram_gb}\n" if line.startswith("vram_gb") else line for line in head.splitlines(True)
        )
        (folder / "workflow.toml").write_text(head + "\n".join(models) + "\n[parameters" + parameters)

    def settings(self, *, enabled: tuple[str, ...] = ("one", "two"), more: str = "") -> None:
        self.config.write_text(
            f"[workflows]\nfolders = [{json.dumps(str(self.folder / 'workflows'))}]\nenabled = {json.dumps(enabled)}\n"
            f"[state]\ndir = {json.dumps(str(self.folder / 'state'))}\n[miner]\nmin_free_disk_gb = 0\n"
            + (more or f"[models]\ndir = {json.dumps(str(self.models))}\n")
        )

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XALORA_", "HF_", "COMFYUI_"))}
        env = {**kept, "HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.folder / "hf"), **environ}
        command = [sys.executable, "-m", "miner", "models", *words, "--config", str(self.config)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env, cwd=ROOT)

    def run(self, *words: str, answer: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        with self.start(*words, **environ) as process:
            out, err = process.communicate(answer, timeout=60)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def file(self, place: str) -> Path:
        return self.models / place


@pytest.fixture
def installation(tmp_path, hugging_face):
    return Installation(tmp_path, hugging_face)


def test_list_pull_and_verify(installation):
    """The pull meets a busy hub, a broken connection and an expired URL; its token goes to the hub alone."""
    listed = installation.run("list")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count("missing") == 4  # three files and the summary
    assert "one, two" in listed.stdout
    assert "Tiny [dev] Licence" in listed.stdout

    installation.hub.busy += [{"Retry-After": "0"}, {"RateLimit": '"resolvers";r=0;t=1'}]
    cdn = installation.hub.cdn
    cdn.files["/org/repo/one.gguf"].script[:] = [Step(cut=100_000), Step(status=403)]
    pulled = installation.run("pull", HF_TOKEN="hf_accepted")
    assert pulled.returncode == 0, pulled.stderr
    assert "3 of 3 files" in pulled.stdout
    assert installation.file("vae/one.gguf").read_bytes() == ONE
    assert installation.file("vae/two.gguf").read_bytes() == TWO
    assert installation.file("text_encoders/shared.safetensors").read_bytes() == SHARED
    assert not list(installation.models.rglob("*.part*"))
    assert cdn.sent == {
        "/org/repo/one.gguf": len(ONE),
        "/org/repo/shared.safetensors": len(SHARED),
        "/org/repo/two.gguf": len(TWO),
    }
    assert set(installation.hub.tokens) == {"Bearer hf_accepted"}
    assert all("Authorization" not in request.headers for request in cdn.requests)
    assert "Hugging Face answered 429; retrying in 1." in pulled.stderr
    assert "s3cret" not in pulled.stdout + pulled.stderr

    verified = installation.run("verify")
    assert (verified.returncode, verified.stdout.count(": good")) == (0, 3)


def test_each_failure_is_one_clear_line_and_the_next_step(installation):
    """A gated repository, a file that is gone, and one that changed."""
    installation.hub.gated.add("gated/repo")
    installation.workflow("three", vram_gb=0, models=[installation.model("vae", "three.gguf", ONE, repo="gated/repo")])
    installation.settings(enabled=("one", "two", "three"))
    installation.hub.publish("org/repo", "one.gguf", ONE[:-1] + b"?")
    installation.hub.files.pop("/org/repo/resolve/main/two.gguf")
    pulled = installation.run("pull")
    assert pulled.returncode == 1
    assert "1 of 4 files" in pulled.stdout
    errors = [line for line in pulled.stderr.splitlines() if line.startswith("error: ")]
    assert sorted(line.partition(", expected")[0] for line in errors) == [
        f"error: vae/one.gguf: {installation.hub.url}/org/repo/resolve/main/one.gguf has SHA-256 "
        + sha256(ONE[:-1] + b"?"),
        "error: vae/three.gguf: gated/repo is gated: accept its license at https://huggingface.co/gated/repo",
        "error: vae/two.gguf: org/repo has no two.gguf at main",
    ]
    assert "next:  then set HF_TOKEN to a token of that account" in pulled.stderr
    assert "Traceback" not in pulled.stderr
    assert installation.hub.cdn.gets("/org/repo/one.gguf") == []


def test_an_endpoint_that_is_not_a_hub(installation):
    url = installation.hub.cdn.put("/org/repo/resolve/main/one.gguf", ONE).partition("/org")[0]
    pulled = installation.run("pull", "one", HF_ENDPOINT=url)
    assert pulled.returncode == 1
    assert "does not answer as Hugging Face does" in pulled.stderr
    assert "HF_ENDPOINT" in pulled.stderr


def test_prune_asks_first(installation):
    with contextlib.closing(HashDatabase(installation.folder / "state")) as hash_db:
        path = installation.file("vae/two.gguf")
        path.parent.mkdir(parents=True)
        path.write_bytes(TWO)
        hash_db.add_download(path, path.stat(), sha256(TWO))
    installation.settings(enabled=("one",))
    refused = installation.run("prune", answer="n\n")
    assert refused.returncode == 1
    assert "vae/two.gguf" in refused.stdout
    assert path.exists()
    assert installation.run("prune", "--yes").returncode == 0
    assert not path.exists()


def test_a_dry_run_shows_files_and_sizes_and_downloads_nothing(installation):
    shown = installation.run("pull", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    for word in ("vae/one.gguf", "400 KB", "to fetch", "3 of 3 files"):
        assert word in shown.stdout
    assert not installation.models.exists()


def test_on_start_downloads_what_fits_the_gpu_and_logs_lines(installation):
    """No GPU has 10 TB, so no machine gets the second workflow."""
    pulled = installation.run("pull", "--on-start", XALORA_LOG_FORMAT="json")
    assert pulled.returncode == 0, pulled.stderr
    events = [json.loads(line) for line in pulled.stderr.splitlines()]
    assert {event["workflow"] for event in events if event["event"] == "models_left_out"} == {"two"}
    assert ["problem" in event for event in events if event["event"] == "gpus"]
    assert {event["file"] for event in events if event["event"] == "model_download"} >= {"vae/one.gguf"}
    assert installation.file("vae/one.gguf").exists()
    assert not installation.file("vae/two.gguf").exists()


def test_ctrl_c_stops_at_once_and_keeps_the_downloaded_bytes(installation):
    hold = threading.Event()
    installation.hub.cdn.files["/org/repo/one.gguf"].script.append(Step(hold=hold))
    partial = installation.file("vae/one.gguf.part")
    with installation.start("pull", "one") as process:
        until(lambda: partial.exists() and partial.stat().st_size, why="a part to grow")
        process.send_signal(signal.SIGINT)  # although the server sends nothing
        _, err = process.communicate(timeout=20)
        hold.set()
    assert process.returncode == 130, err
    assert "run the same command to resume" in err
    assert 0 < partial.stat().st_size < len(ONE)
    assert not installation.file("vae/one.gguf").exists()


def test_a_lora_of_hugging_face_is_named_as_tasks_name_it(installation):
    installation.hub.publish("me/style", "style.safetensors", safetensors(9_000))
    pulled = installation.run("pull-lora", "hf://me/style/style.safetensors")
    assert pulled.returncode == 0, pulled.stderr
    assert "tasks name it style" in pulled.stdout
    assert installation.file("loras/style.safetensors").read_bytes() == safetensors(9_000)


def test_the_loras_of_the_settings_are_pulled_listed_and_pruned_once_they_are_no_longer_named(installation):
    kept, gone = lora(9_000), lora(8_000, seed=1)
    for name, data in (("kept", kept), ("gone", gone)):
        installation.hub.publish("me/style", f"{name}.safetensors", data)
    installation.workflow("three", vram_gb=0, models=[])
    manifest = installation.folder / "workflows" / "three" / "workflow.toml"
    manifest.write_text(
        manifest.read_text() + '\n[parameters.lora_name]\ntype = "lora"\nbind = []\ndescription = "not used"\n'
    )
    models = f"[models]\ndir = {json.dumps(str(installation.models))}\n[loras]\n"
    table = 'ink = "hf://me/style/kept.safetensors"\nwash = "hf://me/style/gone.safetensors"\n'
    installation.settings(enabled=("three",), more=models + table)
    assert installation.run("pull").returncode == 0
    assert installation.file("loras/ink.safetensors").read_bytes() == kept
    listed = installation.run("list").stdout
    assert "hf://me/style/kept.safetensors" in listed
    assert "FLUX.1" in listed
    installation.settings(enabled=("three",), more=models)
    named = {"XALORA_LORAS": "ink=hf://me/style/kept.safetensors"}
    assert "loras/wash.safetensors" in installation.run("prune", "--yes", **named).stdout
    assert not installation.file("loras/wash.safetensors").exists()
    assert installation.file("loras/ink.safetensors").exists()
