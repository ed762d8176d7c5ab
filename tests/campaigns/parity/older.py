"""The network's older miner, as published: its code is run as it is, with a configuration that names devnet.

It wants its weights and custom nodes to lie in ComfyUI's folder, which it only looks for: empty files are enough.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from tests.campaigns.parity.gateway import gateway
from tests.campaigns.parity.renderer import Renderer
from tests.support.testbed import MINER_ID, Testbed, until

NEEDS = "web3 loguru dotenv requests requests_aws4auth boto3 toml yaml websocket pydantic PIL"


def missing(folder: Path | None, python: str) -> str:
    """Why it cannot be run; "" if it can."""
    if folder is None:
        return "OLDER_MINER is not given"
    if not (folder / "comfyui_miner.py").is_file():
        return f"{folder} has no comfyui_miner.py"
    imports = ", ".join(NEEDS.split())
    if subprocess.run([python, "-c", f"import {imports}"], capture_output=True, check=False).returncode:
        return f"{python} lacks its requirements: install requirements-miner.txt, and set OLDER_PYTHON"
    return ""


def by_credentials(folder: Path) -> bool:
    """Whether this branch of it wants S3 credentials, which it uses at the network's gateway; else a URL."""
    return "upload_url" not in (folder / "utils" / "task_utils.py").read_text()


def workflows(folder: Path) -> list[str]:
    """The names of those that this branch has."""
    known = (folder / "workflows.yml").read_text()
    return [name for name in ("hunyuan-fp8", "mochi-fp8", "flux-lora") if f"{name}:" in known]


@contextmanager
def running(testbed: Testbed, folder: Path, python: str) -> Iterator[None]:
    """It works for the test bed's devnet, as long as the block lasts."""
    copy, home = testbed.folder / "older", testbed.folder / "older-comfyui"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".git"))
    _install(copy, home)
    with _serving(Renderer(home)) as port, gateway(testbed.folder) as env:
        (copy / "config.toml").write_text(_config(testbed.devnet.url, port, home, workflows(folder)))
        start = ["sh", "-c", 'cd "$1" && exec "$2" comfyui_miner.py >&2', "sh", str(copy), python]
        testbed.add_process(start, testbed.folder / "older.log", PYTHONPATH=str(copy), **env)
        until(lambda: testbed.devnet.requests("miner_request"), why="the older miner", patience=120.0)
        yield


def _install(copy: Path, home: Path) -> None:
    """Make what its check looks for."""
    for snapshot in (copy / "example" / "snapshots").glob("*.json"):
        wanted = json.loads(snapshot.read_text())
        nodes = [url.rpartition("/")[2].removesuffix(".git") for url in wanted["git_custom_nodes"]]
        nodes += [node["filename"] for node in wanted.get("file_custom_nodes", [])]
        for path in (*(home / "custom_nodes" / node for node in nodes), *(home / name for name in wanted["downloads"])):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()


def _config(sequencer: str, port: int, home: Path, names: list[str]) -> str:
    return (
        f'[service]\nbase_url = "{sequencer}"\nport = "{port}"\n'
        '[versions]\nminer_version = "-v0.0.1"\n[storage]\ns3_bucket = "results"\n'
        f'[miner]\naddress = "{MINER_ID}"\n'
        f'[installation]\ncomfyui_home = "{home}"\ndocker_comfyui_home = "{home}"\n'
        f"workflow_names = {json.dumps(names)}\n"
    )


@contextmanager
def _serving(renderer: Renderer) -> Iterator[int]:
    """The port at which the renderer answers."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = uvicorn.Server(uvicorn.Config(renderer.app(), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([sock],), name="renderer", daemon=True)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)
