"""Time and the state machine, with a clock of our own: no server, no waiting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from miner.devnet.blobs import Blobs
from miner.devnet.consumers import Consumers
from miner.devnet.database import open_database
from miner.devnet.options import DevnetOptions
from miner.devnet.sequencer import TOLD_FOR, Leased, Sequencer, key_is_of
from miner.devnet.wire import MinerRequest, MinerSubmit, TaskCreate, TaskQuery
from tests.unit.devnet.talk import MINER, OTHER, creation

NOBODY: frozenset[str] = frozenset()


@dataclass(slots=True)
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    sequencer: Sequencer
    consumers: Consumers
    clock: Clock = field(default_factory=Clock)

    def create(self, **fields: object) -> str:
        return self.consumers.create(TaskCreate.model_validate(creation(**fields)))

    def status(self, task_id: str) -> str:
        status: str = self.consumers.query(TaskQuery(task_id=task_id, api_key="key"))["status"]
        return status

    def ask(self, miner: str = MINER) -> Leased | None:
        self.sequencer.hear(MinerRequest(erc20_address=miner, workflow_ids=["4"]))
        return self.sequencer.lease(miner, ["4"])

    def fail(self, task_id: str, miner: str = MINER) -> str:
        return self.sequencer.submit(
            MinerSubmit(
                success=False,
                task_id=task_id,
                miner_id=miner,
                result="",
                inference_latency=0,
                upload_latency=0,
                msg="no",
            )
        )


@pytest.fixture(params=[{}])
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    clock, options = Clock(), DevnetOptions(lease_ttl=60, **request.param)
    db = open_database(tmp_path / "db", durable=False)
    sequencer = Sequencer(db, Blobs(db, tmp_path, durable=False, clock=clock), options, clock=clock)
    yield World(sequencer=sequencer, consumers=Consumers(db, sequencer, options, clock=clock), clock=clock)
    db.close()


def test_time_outs_run_from_the_lease_and_not_from_the_creation(world: World) -> None:
    task_id = world.create(timeout_seconds=10)
    world.clock.now += 100
    assert world.ask()
    world.clock.now += 9.9
    assert not world.sequencer.expire(NOBODY)
    world.clock.now += 0.2
    assert world.sequencer.expire(NOBODY)
    assert world.status(task_id) == "failed"


@pytest.mark.parametrize("world", [{"task_timeout": 10.0}], indirect=True)
def test_a_time_out_can_be_given_to_all_tasks_that_name_none(world: World) -> None:
    task_id = world.create()
    leased = world.ask()
    assert leased is not None
    assert leased.timeout == 10
    world.clock.now += 10
    world.sequencer.expire(NOBODY)
    assert world.status(task_id) == "failed"


@pytest.mark.parametrize("world", [{"on_silence": "fail"}], indirect=True)
def test_a_silent_miner_can_cost_the_task(world: World) -> None:
    task_id = world.create()
    world.ask()
    world.clock.now += 60
    world.sequencer.expire(NOBODY)
    assert world.status(task_id) == "failed"


def test_a_miner_that_asks_in_time_keeps_its_lease(world: World) -> None:
    task_id = world.create()
    world.ask()
    for _ in range(5):
        world.clock.now += 59
        assert not world.sequencer.expire(NOBODY)
        assert world.ask() is None
    assert world.status(task_id) == "running"


def test_a_miner_whose_request_is_held_is_not_silent(world: World) -> None:
    task_id = world.create()
    world.ask()
    world.clock.now += 61
    assert not world.sequencer.expire({MINER})
    assert world.sequencer.expire({OTHER})
    assert world.status(task_id) == "waiting"


def test_after_a_restart_a_miner_has_the_whole_time_again(world: World) -> None:
    task_id = world.create()
    world.ask()
    world.clock.now += 3600
    world.sequencer.resume()
    assert not world.sequencer.expire(NOBODY)
    assert world.status(task_id) == "running"


def test_a_task_that_was_taken_away_is_named_for_a_while(world: World) -> None:
    task_id = world.create(timeout_seconds=10)
    world.ask()
    world.clock.now += 10
    world.sequencer.expire(NOBODY)
    assert world.sequencer.tell(MINER) == (task_id,)
    assert world.sequencer.tell(OTHER) == ()
    world.clock.now += TOLD_FOR
    assert world.sequencer.tell(MINER) == ()


def test_a_task_that_came_back_to_the_same_miner_is_not_named_and_its_answer_counts(world: World) -> None:
    task_id = world.create()
    world.ask()
    world.clock.now += 60
    world.sequencer.expire(NOBODY)
    assert world.sequencer.tell(MINER) == (task_id,)
    assert world.fail(task_id) == "late"
    again = world.ask()
    assert again is not None
    assert world.sequencer.tell(MINER) == ()
    assert [world.fail(task_id), world.fail(task_id)] == ["first", "repeat"]
    assert world.sequencer.tell(MINER) == ()


@pytest.mark.parametrize(
    ("key", "fits"),
    [
        ("a/b/wf-{miner}-{task}.png", True),
        ("flux-lora-{miner}-{task}.jpg", True),
        ("wf-{miner}-{task}", False),
        ("wf-{miner}-{task}.", False),
        ("wf-{miner}-{task}.p/ng", False),
        ("-{miner}-{task}.png", False),
        ("{miner}-{task}.png", False),
        ("wf-{task}-{miner}.png", False),
        ("wf-{miner}-{task}.png/other.png", False),
    ],
)
def test_a_key_has_the_protocols_form(key: str, fits: bool) -> None:
    assert key_is_of(key.format(miner=MINER, task="t1"), miner_id=MINER, task_id="t1") is fits
