"""No file costs more than a decoder may spend, nor keeps the next picture waiting."""

from __future__ import annotations

import time

import pytest

from miner.media.decoding import CPU, MEMORY
from miner.media.pictures import clean_image
from miner.task.errors import JobFault
from tests.support import proc
from tests.support.decoder_cost import Meter
from tests.support.scripted_server import ScriptedServer, whole
from tests.support.testbed import Testbed
from tests.system.hostile.bombs import BOMBS, MEGAPIXELS
from tests.system.hostile.forge import encoded, noise
from tests.system.hostile.test_inputs import TELLTALE

OWN = 64.0  # MB that the worker may need for a picture: its bytes are here before, its pixels come back
LARGEST = 51_000_000  # bytes of a picture, about as the miner takes them
SIX = list(BOMBS)[:6]
ON_TIME = 5.0  # seconds for a good picture, a new decoder among it, on a busy machine


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_no_more_than_a_decoder_may_spend_and_the_next_picture_is_on_time(name: str) -> None:
    data = BOMBS[name]()
    assert len(data) <= LARGEST
    said = ""
    with Meter() as meter:
        try:
            clean_image(data, max_pixels=MEGAPIXELS)
        except JobFault as fault:
            said = fault.message
    assert not TELLTALE.search(said)
    assert meter.cost.cpu <= CPU + 1.0
    assert meter.cost.memory <= MEMORY / 1e6
    assert meter.cost.own <= OWN
    began = time.monotonic()
    clean_image(encoded(noise(), "PNG"), max_pixels=MEGAPIXELS)
    assert time.monotonic() - began <= ON_TIME


def test_of_a_worker_that_is_sent_the_six_the_next_good_task_is_on_time(testbed: Testbed) -> None:
    devnet = testbed.start_devnet()
    with ScriptedServer() as server:
        testbed.start_worker(
            testbed.start_engine(),
            sequencer__poll_interval=0.01,
            network__allow=[devnet.url.removeprefix("http://"), f"127.0.0.1:{server.port}"],
        )
        pid = testbed.worker.popen.pid
        testbed.ended(testbed.create())
        before = proc.peak_rss(pid)
        for name in SIX:
            bomb = testbed.create(parameters={"image": server.serve(whole(BOMBS[name]()))})
            began = time.monotonic()
            good, _ = testbed.ended(testbed.create(), bomb)
            assert good["status"] == "finished", good["msg"]
            assert time.monotonic() - began <= CPU + ON_TIME
        assert proc.peak_rss(pid) - before <= OWN + LARGEST / 1e6
        assert testbed.worker.stop() == 0
