"""A worker's tasks name LoRAs that lie elsewhere."""

from __future__ import annotations

import json
import threading

from miner.comfy.weights import ON_DEMAND
from tests.support import flows
from tests.support.scripted_server import ScriptedServer, head, whole
from tests.support.testbed import Testbed, until

PARAMETER = '[parameters.lora_name]\ntype = "lora"\nbase = "flux"\nbind = ["middle.until"]\n'


def a_lora() -> bytes:
    header = {
        "double_blocks.0.img_attn.qkv.lora_A.weight": {"dtype": "U8", "shape": [1, 3072], "data_offsets": [0, 3072]}
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(3072)


def test_a_task_that_waits_for_its_lora_lets_others_pass_and_is_refused_in_words(testbed: Testbed) -> None:
    come, models = threading.Event(), testbed.folder / "models"
    with ScriptedServer() as site:
        slow = site.serve(lambda _: iter([come, head(200, f"Content-Length: {len(a_lora())}"), a_lora()]))
        page = site.serve(whole(b"<html>", "Content-Type: text/html"))
        testbed.start_devnet("--leases", "4")
        testbed.add_workflow("styled", flows.wait(0.05, until=""), parameters=PARAMETER)
        testbed.start_worker(
            testbed.start_engine(),
            workflows={"4": ["styled"]},
            models__dir=str(models),
            loras__on_demand=True,
            loras__hosts=["127.0.0.1"],
            network__allow=[site.host, testbed.devnet.url.removeprefix("http://")],
            miner__prefetch=3,
        )
        waits = testbed.create(parameters={"lora_name": slow})
        until(lambda: site.asked("/0"), why="the download")
        (plain, refused) = testbed.ended(testbed.create(parameters={}), testbed.create(parameters={"lora_name": page}))
        assert (plain["status"], testbed.task(waits)["status"]) == ("finished", "running")
        assert refused["status"] == "failed"
        assert "lora_name: 127.0.0.1 sends a web page in place of the LoRA" in refused["msg"]
        come.set()
        (task,) = testbed.ended(waits)
        assert task["status"] == "finished", task["msg"]
        again = testbed.create(parameters={"lora_name": slow})
        (task,) = testbed.ended(again)
        assert task["status"] == "finished"
        assert len(site.asked("/0")) == 1
    assert len(list((models / "loras" / ON_DEMAND).rglob("*.safetensors"))) == 1
