"""A sequencer that lies: the client gives a typed reply or a clean refusal, in time, and the worker goes on."""

from __future__ import annotations

import itertools
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from miner.sequencer import Reply, Sequencer
from miner.sequencer.outbox import Outbox
from miner.task.errors import Retryable
from miner.task.journal import Journal
from miner.task.ledger import Ledger
from miner.worker.lane.answers import Answers
from miner.worker.lane.gate import MAX_UNACKNOWLEDGED, UNKNOWN_TASK, Gate
from miner.worker.lane.prepare import UNDELAYED_REFUSALS
from miner.worker.lane.shutdown import Shutdown
from tests.campaigns.fuzz.lies import BROKEN, NOTHING, REFUSED, WRONG_FIELDS, Lie
from tests.support.script import TASK, Script, ScriptedTestbed, a_task, details
from tests.support.scripted_server import Answer, Request, ScriptedServer, reply
from tests.support.testbed import until

ME = "0x00000000000000000000000000000000000d37e0"
TIMEOUT = 0.25  # seconds that the client gives a whole exchange that may have no end
SOON = 10.0  # … and seconds that a slow machine may make of them


def said_to(lie: Lie, *, timeout: float = 60.0) -> Reply:
    """What the client makes of it."""
    with ScriptedServer(lambda request: lie if isinstance(lie, bytes) else lie(request)) as server:
        sequencer = Sequencer(server.url, timeout=timeout)
        try:
            return sequencer.request(ME, ["4"])
        finally:
            sequencer.close()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", REFUSED)
def test_a_reply_that_is_none_is_refused_in_time_and_in_words(name: str) -> None:
    begun = time.monotonic()
    with pytest.raises(Retryable) as refused:
        said_to(REFUSED[name], timeout=TIMEOUT)
    assert time.monotonic() - begun < SOON
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 400
    assert (refused.value.retry_after or 0.0) <= 3600


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_task_with_an_id_is_a_lease_with_the_reason(name: str) -> None:
    lease = said_to(BROKEN[name]).lease
    assert lease is not None
    assert lease.fault or name == "an id that is a number"
    assert lease.fault.isprintable()


@pytest.mark.parametrize("name", NOTHING)
def test_a_reply_that_says_nothing_gives_no_task(name: str) -> None:
    assert said_to(NOTHING[name]).lease is None


@pytest.mark.parametrize("field", WRONG_FIELDS)
def test_a_task_with_a_wrong_field_still_is_a_lease(field: str) -> None:
    leases = [said_to(wrong).lease for wrong in WRONG_FIELDS[field]]
    assert [lease.task_id for lease in leases if lease is not None] == ["t"] * len(leases)


def test_of_two_ids_in_one_reply_one_counts() -> None:
    twice = json.dumps(TASK).encode().replace(b'{"task_id"', b'{"task_id": "other", "task_id"', 1)
    lease = said_to(reply(twice)).lease
    assert lease is not None
    assert lease.task_id == "t"


def test_a_cookie_does_not_come_back_and_a_redirect_is_not_followed() -> None:
    with ScriptedServer() as server:
        elsewhere = f"Location: {server.url}/elsewhere"
        server.otherwise = lambda _: reply(b"", "Set-Cookie: id=1; Path=/", elsewhere, status=307)
        sequencer = Sequencer(server.url, api_key="key", timeout=5.0)
        for _ in range(2):
            with pytest.raises(Retryable, match="307"):
                sequencer.request(ME, [])
        sequencer.close()
    assert [request.path for request in server.requests] == ["/miner_request"] * 2
    assert not any(b"cookie" in request.head.lower() for request in server.requests)


# ---- a worker that is lied to ---------------------------------------------------------------------------------------


class LiedToTestbed(ScriptedTestbed):
    """devnet is there for its store alone; `images` answers once `released` is set."""

    def __init__(self, folder: Path, sequencer: Answer | None = None, **settings: object) -> None:
        super().__init__(folder)
        if sequencer is not None:
            self.sequencer.otherwise = sequencer
        self.released = threading.Event()
        self.images = self.stack.enter_context(ScriptedServer(lambda _: (self.released, reply(b"no picture"))))
        self._settings = settings

    def set_up(self) -> None:
        devnet = self.start_devnet()
        self.image = self.picture()
        self.start_worker(
            self.start_engine(),
            program="tests.support.impatient",
            sequencer__url=self.sequencer.url,
            sequencer__poll_interval=0.01,
            network__allow=[self.images.host, devnet.url.removeprefix("http://")],
            upload__bucket="b",
            **self._settings,
        )

    def right(self, task_id: str) -> bytes:
        """A task that is rendered; its store then refuses the upload, since the URL is not signed."""
        return a_task(task_id, **details(self.image), upload_url=f"{self.devnet.url}/store/results/no-signature")


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiedToTestbed]:
    with LiedToTestbed(tmp_path_factory.mktemp("lies")) as testbed:
        yield testbed
        assert not testbed.logged("loop_failed")
        assert testbed.worker.stop() == 0


def test_each_task_with_a_wrong_field_is_answered_once(testbed: LiedToTestbed) -> None:
    fields = [json.loads(wrong.partition(b"\r\n\r\n")[2]) for wrong in itertools.chain(*WRONG_FIELDS.values())]
    tasks = [reply({**field, "task_id": f"w{n}"}) for n, field in enumerate(fields)]
    for number in range(0, len(tasks), UNDELAYED_REFUSALS):  # wrong ones in a row are answered ever more slowly
        tasks.insert(number, testbed.right(f"r{number}"))
    script = testbed.script = Script(*tasks)
    until(lambda: script.over and len(script.answers) >= len(tasks), why="the answers")
    assert len({answer["task_id"] for answer in script.answers}) == len(script.answers) == len(tasks)
    assert not any(answer["success"] for answer in script.answers)
    assert all(answer["msg"] and answer["msg"].isprintable() for answer in script.answers)


WRONG_TARGETS = (
    {"upload_url": "https://[x"},
    {"upload_url": "https://10.0.0.1/x"},
    {"upload_headers": {"Host": "127.0.0.1"}},
    {"upload_headers": {"a": "b\r\nc: d"}},
    {"upload_url": "", "credential": dict.fromkeys(("access_key_id", "secret_access_key", "session_token"), "\n")},
)


def test_a_wrong_upload_target_costs_no_render(testbed: LiedToTestbed) -> None:
    tasks = [a_task(f"u{n}", **details(testbed.image), **target) for n, target in enumerate(WRONG_TARGETS)]
    script = testbed.script = Script(testbed.right("right"), *tasks)
    until(lambda: len(script.answers) == 1 + len(WRONG_TARGETS), why="the answers")
    assert {answer["msg"][:15] for answer in script.answers if answer["task_id"] != "right"} == {"upload target: "}
    assert not [e for e in testbed.logged("task_step", step="prompted") if e["task_id"].startswith("u")]


def test_a_lease_of_a_task_whose_answer_is_on_its_way_is_not_worked_on(testbed: LiedToTestbed) -> None:
    """The sequencer said `running` for a task that nobody here knew; it was answered, and now it comes as a lease."""
    stranger, slow = reply({"task_id": "x", "msg": "running"}), details(f"{testbed.images.url}/x.png")
    testbed.released.clear()
    script = testbed.script = Script(stranger, a_task("x", **slow), a_task("y"), submissions=(reply({}, status=500),))
    until(lambda: len(script.told("x")) >= 2, why="the second submission")
    testbed.released.set()
    until(lambda: script.told("y"), why="the answer to the next task")
    assert {answer["msg"] for answer in script.told("x")} == {UNKNOWN_TASK}  # one answer, however often it is sent


def test_unknown_running_tasks_that_are_never_acknowledged_do_not_pile_up(tmp_path: Path) -> None:
    numbers = itertools.count()

    def answer(request: Request) -> bytes:
        if request.path == "/miner_submit":
            return reply({}, status=500)
        return reply({"task_id": f"stranger-{next(numbers)}", "msg": "running"})

    with (
        ScriptedServer(answer) as liar,
        closing(Sequencer(liar.url)) as sequencer,
        closing(Journal(tmp_path)) as journal,
    ):
        outbox = Outbox(sequencer)  # not started: nothing is tried again
        ledger = Ledger(miner_id=ME, journal=journal, folder=tmp_path)
        answers = Answers(ledger=ledger, outbox=outbox)
        gate = Gate(
            sequencer=sequencer, ledger=ledger, journal=journal, answers=answers, shutdown=Shutdown(), prefetch=0
        )
        for _ in range(MAX_UNACKNOWLEDGED + 20):
            gate.ask(())
        assert outbox.depth == len(journal.unfinished(ME)) == MAX_UNACKNOWLEDGED


def test_a_reply_without_an_end_does_not_keep_the_miner_from_stopping(tmp_path: Path) -> None:
    endless = REFUSED["a header by the letter"]
    with LiedToTestbed(tmp_path, endless, sequencer__timeout=0.5, sequencer__wait=0.0) as testbed:
        until(lambda: testbed.logged("lease_request_failed"), why="the end of the request")
        testbed.worker.send(signal.SIGTERM)
        assert testbed.worker.stop(20.0) == 0
