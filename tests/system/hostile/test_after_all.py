"""A worker that was sent every hostile input: nothing is left of them, and the next good task succeeds."""

from __future__ import annotations

import os
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miner.task.stages import PresignedPut, TemporaryS3
from miner.worker.lane.prepare import UNDELAYED_REFUSALS
from tests.support.scripted_server import ScriptedServer, whole
from tests.support.testbed import Testbed, until
from tests.system.hostile import addresses, answers, data_urls, pictures, targets

MOST_GROWTH = 20.0  # MB
KEPT = 2  # connections
SMALL = 500_000  # bytes; a larger picture is served, since a task's reply has at most 1 MiB


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has: resident memory in MB, threads by name, and what its descriptors are."""

    memory: float
    threads: Counter[str]
    descriptors: Counter[str]


def usage(pid: int) -> Usage:
    proc = Path(f"/proc/{pid}")
    pages = int((proc / "statm").read_text().split()[1])
    threads, descriptors = [], []
    for task in (proc / "task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            threads.append((task / "comm").read_text().strip())
    for link in (proc / "fd").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            descriptors.append(str(link.readlink()).partition(":")[0])
    return Usage(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, Counter(threads), Counter(descriptors))


def hostile_tasks(server: ScriptedServer) -> Iterator[dict[str, Any]]:
    """Parameters or an upload target of each row that a task can carry; of the many addresses every sixth one,
    and of the answers, each of which may take its time, every third."""
    for case in (*addresses.ROWS[::6], *data_urls.ROWS):
        if len(case.given) < SMALL and case.given.isprintable() and not _needs_a_resolver(case.given):
            yield {"parameters": {"image": case.given}}
    for case in pictures.ROWS:
        data = case.given()
        inline = f"data:image/png;base64,{b64encode(data).decode()}"
        yield {"parameters": {"image": inline if len(inline) < SMALL else server.serve(whole(data))}}
    for case in answers.ROWS[::3]:
        yield {"parameters": {"image": server.serve(case.given)}}
    for case in targets.ROWS:
        match case.given:
            case PresignedPut(url=url, headers=headers) if url.isprintable() and not _needs_a_resolver(url):
                yield {"extra": {"upload_url": url, "upload_headers": dict(headers)}}
            case TemporaryS3() as given if given.secret_access_key.isprintable() and len(given.session_token) < SMALL:
                names = ("access_key_id", "secret_access_key", "session_token")
                yield {"target": "s3", "extra": {"credential": {name: getattr(given, name) for name in names}}}


def left(pid: int, before: Usage) -> Counter[str]:
    """Threads and descriptors beyond those of before, by kind; a connection more may be kept for the next request."""
    now = usage(pid)
    return (now.threads - before.threads) + (now.descriptors - before.descriptors) - Counter(socket=KEPT)


def _needs_a_resolver(url: str) -> bool:
    """Whether it is about a name that only the table's own resolver knows: the system's is slow to say no."""
    return ".test" in url or "xn--" in url or "a" * 49 in url


def test_after_every_hostile_task_the_worker_is_as_it_was_and_does_the_next_good_one(testbed: Testbed) -> None:
    with ScriptedServer() as server:
        devnet = testbed.start_devnet(s3=True)
        testbed.start_worker(
            testbed.start_engine(),
            sequencer__poll_interval=0.01,
            network__allow=[devnet.url.removeprefix("http://"), f"127.0.0.1:{server.port}"],
            upload__bucket="results",
            upload__endpoint=devnet.url,
            log__level="WARNING",
            network__input_timeout=1.0,
        )
        pid = testbed.worker.popen.pid
        picture = {"image": testbed.picture()}
        testbed.ended(*[testbed.create(parameters=picture, target=target) for target in ("presigned", "s3") * 5])
        before = usage(pid)
        good, hostile = [], []
        for number, task in enumerate(hostile_tasks(server)):
            if number % UNDELAYED_REFUSALS == 0:  # wrong ones in a row are answered ever more slowly
                good.append(testbed.create(parameters=picture))
            hostile.append(testbed.create(**{"parameters": picture, **task}))
        tasks = testbed.ended(*hostile, patience=100.0)
        assert len(hostile) >= 180
        assert [len(task["answers"]) for task in tasks] == [1] * len(tasks)
        assert all(task["msg"].isprintable() for task in tasks)
        (last,) = testbed.ended(testbed.create(parameters=picture))
        assert last["status"] == "finished", last["msg"]
        assert {task["status"] for task in testbed.ended(*good)} == {"finished"}
        until(lambda: not left(pid, before), why=f"the end of {left(pid, before)}", patience=15.0)
        assert usage(pid).memory - before.memory <= MOST_GROWTH
        assert not testbed.logged("loop_failed")
        assert testbed.worker.stop() == 0
