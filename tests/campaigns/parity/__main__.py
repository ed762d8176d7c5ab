"""`make parity`: all calls of the network's Node SDK through devnet, to our miner and to the network's older one.

Prints a matrix, and what became of each parameter of the older miner's endpoint files (`sweep`). Exits with 1 where a
cell is red; what was not given is skipped with the reason.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaigns.parity import older, sweep
from tests.campaigns.parity.renderer import SLOW
from tests.support import flows
from tests.support.testbed import Testbed, until

DRIVER = Path(__file__).with_name("driver.cjs")
PATIENCE = 300.0  # seconds for a task
MARKS = {True: "ok", False: "RED", None: "–"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One miner. `results`: by case, whether it is as it should be (None: skipped), and what was seen."""

    name: str
    results: dict[str, tuple[bool | None, str]]
    skipped: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.parity", description=__doc__)
    parser.add_argument("--node-sdk", type=Path, help="the network's Node SDK, after `npm install` in it")
    parser.add_argument("--older-miner", type=Path, action="append", default=[], help="the network's; may repeat")
    parser.add_argument("--older-python", default=sys.executable, help="a Python that has its requirements")
    parser.add_argument(
        "--comfyui-url", action="append", default=[], help="a real ComfyUI with all weights; may repeat"
    )
    parser.add_argument("--lora", default="tiny-flux", help="a LoRA that the real ones have")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        swept = _swept(asked, Path(folder))
        bundle = Path(folder) / "sdk.cjs"
        if reason := _bundled(asked.node_sdk, bundle):
            print(f"skipped: {reason}")
            return swept
        columns = [_column("ours, embedded", bundle, _ours(Path(folder) / "embedded"))]
        for number, url in enumerate(asked.comfyui_url):
            columns.append(_column(f"ours, {url}", bundle, _ours(Path(folder) / f"real-{number}", url, asked.lora)))
        if not asked.comfyui_url:
            columns.append(Column(name="ours, a real ComfyUI", results={}, skipped="COMFYUI_URL is not given"))
        for number, miner in enumerate(asked.older_miner or [None]):
            if reason := older.missing(miner, asked.older_python):
                columns.append(Column(name="the older miner", results={}, skipped=reason))
                continue
            name = f"older, {'credentials' if older.by_credentials(miner) else 'presigned'}"
            run = _older(Path(folder) / f"older-{number}", miner.resolve(), asked.older_python)
            columns.append(_column(name, bundle, run))
    return swept | _report(columns)


def _swept(asked: argparse.Namespace, folder: Path) -> int:
    """The parameters, on each real ComfyUI; returns 1 if one did not arrive."""
    files = sweep.endpoints(asked.older_miner or [])
    reason = "" if files else "OLDER_MINER is not given, or has no endpoint files"
    if reason := reason or ("" if asked.comfyui_url else "COMFYUI_URL is not given"):
        print(f"skipped: the older miner's parameters: {reason}")
        return 0
    red = False
    for number, url in enumerate(asked.comfyui_url):
        (folder / f"sweep-{number}").mkdir()
        with Testbed(folder / f"sweep-{number}") as testbed:
            for title, ok, seen in sweep.sweep(testbed, url, files, lora=asked.lora):
                print(f"{MARKS[ok]:>4}  {url}: {title}: {seen}", flush=True)
                red |= not ok
    return int(red)


def _bundled(sdk: Path | None, bundle: Path) -> str:
    """Bundle the SDK for Node; returns why that cannot be, or ""."""
    if sdk is None:
        return "NODE_SDK is not given"
    esbuild = sdk / "node_modules" / ".bin" / "esbuild"
    if not esbuild.exists():
        return f"{esbuild} is missing: run `npm install` in {sdk}"
    command = [esbuild, sdk / "packages" / "index.ts", "--bundle", "--platform=node", f"--outfile={bundle}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


@contextmanager
def _ours(folder: Path, comfyui: str = "", lora: str = "") -> Iterator[dict[str, Any]]:
    folder.mkdir()
    with Testbed(folder) as testbed:
        testbed.start_devnet()
        picture = testbed.picture((64, 48))
        tasks: dict[str, Any] = {"upscaler": {"image_url": picture, "workflow_id": "4"}}
        slow: dict[str, Any] = {"workflow_id": "9"}
        if comfyui:
            workflows = {"1": ["hunyuan-fp8"], "3": ["flux-lora"], "4": ["upscaler"]}
            tasks["txt2img"] = {"prompt": "a fox", "lora_name": lora, "width": 512, "height": 512, "steps": 1}
            tasks["txt2vid"] = {"prompt": "a fox", "width": 128, "height": 128, "length": 5, "steps": 1}
            slow = {"image_url": testbed.picture((1500, 1000), "large.png")}
        else:
            testbed.add_workflow("slow", flows.wait(PATIENCE))
            workflows = {"4": ["upscaler-lanczos"], "9": ["slow"]}
        testbed.start_worker(comfyui or testbed.start_engine(), workflows=workflows, sequencer__heartbeat=10.0)
        until(lambda: testbed.devnet.requests("miner_request"), why="our miner", patience=120.0)
        yield _plan(
            testbed,
            base="upscaler",
            tasks=tasks,
            slow=slow,
            wrong={"image_url": "http://127.0.0.1:1/none.png"},
            without="the embedded engine renders no diffusion",
        )


@contextmanager
def _older(folder: Path, miner: Path, python: str) -> Iterator[dict[str, Any]]:
    folder.mkdir()
    with Testbed(folder) as testbed:
        credential = json.dumps(dict.fromkeys(("access_key_id", "secret_access_key", "session_token"), "x"))
        testbed.start_devnet(*(("--target", "s3", "--credential", credential) if older.by_credentials(miner) else ()))
        video = {"prompt": "a fox", "width": 848, "height": 480, "length": 37, "steps": 20, "workflow_id": "1"}
        picture = {"prompt": "a fox", "lora_name": "angel", "workflow_id": "3"}
        with older.running(testbed, miner, python):
            yield _plan(
                testbed,
                base="txt2vid",
                tasks={"txt2vid": video} | ({"txt2img": picture} if "flux-lora" in older.workflows(miner) else {}),
                slow={"prompt": f"a fox runs {SLOW}"},
                wrong={"prompt": 7},  # not a string, all that it checks
                without="this branch of it has no such workflow",
            )


def _plan(testbed: Testbed, **plan: Any) -> dict[str, Any]:
    return {"url": testbed.devnet.url, "key": "consumer#key", "patience": PATIENCE, **plan}


def _column(name: str, bundle: Path, running: Any) -> Column:
    results: dict[str, tuple[bool | None, str]] = {}
    with running as plan:
        command = ["node", str(DRIVER), str(bundle), json.dumps(plan)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
            assert node.stdout is not None
            for line in node.stdout:
                said = json.loads(line)
                results[said["case"]] = said["ok"], said["detail"]
                print(f"{MARKS[said['ok']]:>4}  {name}: {said['case']}: {said['detail']}", flush=True)
    return Column(name=name, results=results)


def _report(columns: list[Column]) -> int:
    ran = [column for column in columns if column.results]
    print("\n" + " | ".join(["case".ljust(22), *(column.name for column in ran)]))
    for case in ran[0].results:
        marks = [MARKS[column.results.get(case, (False, ""))[0]] for column in ran]
        print(" | ".join([case.ljust(22), *(mark.ljust(len(c.name)) for mark, c in zip(marks, ran, strict=True))]))
    for column in columns:
        if column.skipped:
            print(f"skipped: {column.name}: {column.skipped}")
    return int(any(ok is False for column in ran for ok, _ in column.results.values()))


if __name__ == "__main__":
    sys.exit(main())
