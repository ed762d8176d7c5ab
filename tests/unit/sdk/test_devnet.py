"""The consumer's side against a devnet, with a miner by hand on the other side of it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image
from typer.testing import CliRunner

from miner.cli.submit import submit_app
from miner.devnet.options import DevnetOptions
from miner.sdk import (
    APIError,
    AuthenticationError,
    FluxLoraTask,
    ImageToImageTask,
    ImageToVideoTask,
    Text2VideoTask,
    UpscalerTask,
    Workflow,
    download,
)
from tests.support.devnet import Running, serve

KEY = "me#s3cret"
MINER_ID = "0x" + "ab" * 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Miner:
    """The miner's side of the wire, a call at a time."""

    devnet: Running
    session: requests.Session

    def lease(self) -> dict[str, Any]:
        """A task, or the reply that there is none."""
        return self._post("miner_request", {"erc20_address": MINER_ID, "workflow_ids": ["1", "3", "4", "5", "6"]})

    def finish(self, task: dict[str, Any], data: bytes) -> str:
        """Upload the data as the result, and answer the task. Gives the object's key."""
        self.session.put(task["upload_url"], data=data, timeout=10).raise_for_status()
        key: str = task["upload_url"].partition("?")[0].partition("/store/results/")[2]
        self._answer(task, success=True, result=key, msg="")
        return key

    def fail(self, task: dict[str, Any], reason: str) -> None:
        self._answer(task, success=False, result="", msg=reason)

    def _answer(self, task: dict[str, Any], **fields: Any) -> None:
        common = {"task_id": task["task_id"], "miner_id": MINER_ID, "inference_latency": 0.5, "upload_latency": 0.1}
        self._post("miner_submit", common | fields)

    def _post(self, call: str, body: dict[str, Any]) -> dict[str, Any]:
        reply = self.session.post(f"{self.devnet.url}/{call}", json=body, timeout=10)
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer


@pytest.fixture
def miner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Miner]:
    """A devnet that takes one key, and knows a miner that is there."""
    with serve(DevnetOptions(api_keys=(KEY,), durable=False)) as devnet, requests.Session() as session:
        monkeypatch.setenv("XALORA_API_KEY", KEY)
        monkeypatch.setenv("XALORA_WORKFLOW_URL", devnet.url)
        miner = Miner(devnet=devnet, session=session)
        assert miner.lease().get("task_id") is None
        yield miner


def test_a_task_of_each_type_arrives_whole_and_its_result_comes_home(miner: Miner) -> None:
    tasks = [
        UpscalerTask(image_url="https://a.example/b.jpg", workflow_id="4"),
        FluxLoraTask(prompt="a cat", lora_name="ink", aspect_ratio="16:9", steps=4, seed=7, timeout_seconds=60),
        Text2VideoTask(prompt="a cat", width=848, height=480, length=9, fps=24, quality=80),
        ImageToVideoTask(image_url="https://a.example/b.jpg", prompt="a cat", length=9, fps=24),
        ImageToImageTask(image_url="https://a.example/b.jpg", prompt="a cat", denoise=0.5),
    ]
    with Workflow() as workflow:
        for task in tasks:
            task_id = workflow.execute_workflow(task)
            assert workflow.query_task_result(task_id).status == "waiting"

            leased = miner.lease()
            assert (leased["task_id"], leased["task_type"]) == (task_id, task.task_type)
            assert leased["task_details"] == task.task_details
            assert workflow.query_task_result(task_id).status == "running"

            key = miner.finish(leased, b"a file")
            result = workflow.wait_for_result(task_id)
            assert (result.status, result.msg) == ("finished", "")
            assert key in result.result["url"]
            assert workflow.download(result, Path("home")) == download(result, Path("home")) == len(b"a file")
            assert Path("home").read_bytes() == b"a file"
    assert miner.devnet.stats()["violations"] == 0, "the consumer kept to the protocol"


def test_a_failure_arrives_with_its_reason(miner: Miner) -> None:
    with Workflow() as workflow:
        task_id = workflow.execute_workflow(FluxLoraTask(prompt="a cat", lora_name="ink"))
        miner.fail(miner.lease(), "no LoRA named ink is installed")

        result = workflow.wait_for_result(task_id)

    assert (result.status, result.msg) == ("failed", "no LoRA named ink is installed")
    assert result.result == {"error": "no LoRA named ink is installed"}
    assert result.result_url is None


def test_a_canceled_task_ends_the_wait_and_is_taken_from_its_miner(miner: Miner) -> None:
    with Workflow() as workflow:
        task_id = workflow.execute_workflow(Text2VideoTask(prompt="a cat"))
        miner.lease()

        assert workflow.cancel_task(task_id).task_id == task_id
        assert workflow.wait_for_result(task_id).status == "canceled"

    assert miner.lease()["canceled"] == [task_id]


@pytest.mark.usefixtures("miner")
def test_a_wrong_key_an_unknown_task_and_a_workflow_nobody_runs_are_told_apart() -> None:
    task = UpscalerTask(image_url="https://a.example/b.jpg")
    with Workflow(api_key="me#wrong") as stranger, pytest.raises(AuthenticationError, match="XALORA_API_KEY"):
        stranger.execute_workflow(task)
    with Workflow() as workflow:
        with pytest.raises(APIError, match="404") as unknown:
            workflow.query_task_result("nothing")
        with pytest.raises(APIError, match="no miner") as nobody:
            workflow.resource_request(workflow_id="99")

    assert (unknown.value.status, nobody.value.status) == (404, 404)


def test_submit_takes_a_photo_through_the_devnets_store_and_brings_the_result_home(miner: Miner) -> None:
    Image.new("RGB", (8, 6), "teal").save("photo.jpg")
    created = CliRunner().invoke(submit_app, ["upscaler", "--image", "photo.jpg", "--no-wait", "--json"])
    assert (created.exit_code, created.stderr) == (0, "")

    leased = miner.lease()
    sent = requests.get(leased["task_details"]["parameters"]["image"], timeout=10).content
    assert sent == Path("photo.jpg").read_bytes()
    with Image.open(io.BytesIO(sent)) as picture, io.BytesIO() as enlarged:
        picture.resize((32, 24)).save(enlarged, "PNG")
        key = miner.finish(leased, enlarged.getvalue())

    task_id = json.loads(created.stdout)["task_id"]
    done = CliRunner().invoke(submit_app, ["result", task_id, "-o", "out.png"])

    assert (done.exit_code, done.stderr) == (0, "")
    assert key in done.stdout
    with Image.open("out.png") as home:
        assert home.size == (32, 24)
    assert miner.devnet.stats()["tasks"] == {"finished": 1}, "to ask for a result creates nothing"
    assert miner.devnet.stats()["violations"] == 0, "the consumer kept to the protocol"
