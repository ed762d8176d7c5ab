"""Starting, stopping, being killed, and starting again: real processes."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests

from miner.devnet.errors import DevnetError
from miner.devnet.options import DevnetOptions
from miner.devnet.serve import run_devnet
from tests.support.devnet import Running, serve
from tests.unit.devnet.talk import DEADLINE, OTHER, Talk, key_of

SERVE = """
import sys
from pathlib import Path
from miner.devnet.options import DevnetOptions
from miner.devnet.serve import run_devnet
state = Path(sys.argv[1]) if len(sys.argv) > 1 else None
run_devnet(DevnetOptions(state=state), on_ready=lambda url: print(url, file=sys.stderr, flush=True))
"""


@contextmanager
def process(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A devnet in a process of its own, and its URL."""
    command = [sys.executable, "-W", "error", "-c", SERVE, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as devnet:
        try:
            assert devnet.stderr is not None
            yield devnet, devnet.stderr.readline().strip()
        finally:
            devnet.kill()


def test_nothing_that_was_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    with requests.Session() as session:
        with process(str(tmp_path)) as (devnet, url):
            talk = Talk(devnet=Running(url=url, session=session), session=session, state=tmp_path)
            answered, running, waiting = talk.create(), talk.create(), talk.create()
            task = talk.lease()
            talk.answer(task, result=talk.upload(task))
            held = talk.lease()
            talk.upload(held)
            devnet.send_signal(signal.SIGKILL)
            assert devnet.wait(DEADLINE) == -signal.SIGKILL

        with serve(DevnetOptions(state=tmp_path)) as again:
            talk = Talk(devnet=again, session=session, state=tmp_path)
            assert [talk.query(t)["status"] for t in (answered, running, waiting)] == ["finished", "running", "waiting"]
            assert session.get(talk.query(answered)["result"]["url"], timeout=5).content == b"a picture"
            assert talk.answer(task, result=key_of(task)).status_code == 200, "the same answer is a repeat"
            assert talk.answer(held, result=key_of(held)).status_code == 200, "the upload is there still"
            assert talk.lease(OTHER)["task_id"] == waiting
            assert talk.devnet.stats()["answers"] == {"first": 2, "repeat": 1}
            assert talk.violations() == []


def test_a_signed_url_outlives_a_restart_on_the_same_port(tmp_path: Path) -> None:
    with requests.Session() as session:
        with serve(DevnetOptions(state=tmp_path)) as devnet:
            talk = Talk(devnet=devnet, session=session, state=tmp_path)
            talk.create()
            task, port = talk.lease(), int(devnet.url.rpartition(":")[2])
        with serve(DevnetOptions(state=tmp_path, port=port)) as devnet:
            Talk(devnet=devnet, session=session, state=tmp_path).upload(task)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_and_its_temporary_folder_is_gone(tmp_path: Path, number: signal.Signals) -> None:
    with process(TMPDIR=str(tmp_path)) as (devnet, url):
        assert requests.get(f"{url}/nothing", timeout=5).status_code == 404
        assert len(list(tmp_path.iterdir())) == 1
        devnet.send_signal(number)
        out, err = devnet.communicate(timeout=DEADLINE)
    assert (devnet.returncode, out, err) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def begin(options: DevnetOptions) -> None:
    with serve(options):
        pass


def test_two_devnets_never_share_a_folder(tmp_path: Path) -> None:
    options = DevnetOptions(state=tmp_path)
    with serve(options), pytest.raises(DevnetError, match="cannot be used") as refused:
        begin(options)
    assert "other devnet" in refused.value.hint


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "devnet.sqlite3").write_bytes(b"this is no database" * 100)
    with pytest.raises(DevnetError, match="cannot be used"):
        begin(DevnetOptions(state=tmp_path))


def test_a_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    begin(DevnetOptions(state=tmp_path))
    with closing(sqlite3.connect(tmp_path / "devnet.sqlite3")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(DevnetError, match="another version"):
        begin(DevnetOptions(state=tmp_path))


def run(options: DevnetOptions) -> None:
    run_devnet(options, on_ready=lambda url: pytest.fail(f"it answers at {url}"))


@pytest.mark.parametrize("start", [begin, run])
def test_a_port_that_is_taken_is_named(start: Callable[[DevnetOptions], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DevnetError, match=f"cannot listen on 127.0.0.1 port {port}") as refused:
            start(DevnetOptions(port=port))
    assert "another port" in refused.value.hint


def test_stopping_leaves_no_thread_and_no_socket() -> None:
    before = set(threading.enumerate())
    with serve(DevnetOptions(durable=False)) as devnet:
        devnet.stats()
        url = devnet.url
    assert set(threading.enumerate()) <= before
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=5)


def test_a_client_that_does_not_read_does_not_keep_it_from_stopping() -> None:
    with serve(DevnetOptions(durable=False)) as devnet, requests.Session() as session:
        url = session.put(f"{devnet.url}/inputs/a", data=bytes(50_000_000), timeout=DEADLINE).json()["url"]
        unread = session.get(url, stream=True, timeout=DEADLINE)
    unread.close()
