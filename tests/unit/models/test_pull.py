"""Many files, and several pulls at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from miner.models.catalogue import FileStatus
from miner.models.disk import require_room
from miner.models.folders import ModelFolders
from miner.models.partial_file import is_locked, partial_path
from miner.models.store import Store
from miner.task.errors import ConfigError, MachineFault
from tests.support.testbed import until
from tests.unit.models.conftest import ProgressRecorder
from tests.unit.models.samples import content, sha256
from tests.unit.models.server import Step

DATA = content(500_000)

KILLED = """
import sys
from pathlib import Path
from miner.cli.progress import Lines
from miner.models.catalogue import ModelFile
from miner.models.pull import pull
from miner.models.hash_db import HashDatabase
from miner.models.store import Store
from miner.models.progress import Stop
folder, url = Path(sys.argv[1]), sys.argv[2]
file = ModelFile(folder="vae", name="model.bin", url=url)
pull([file], store=Store(folder / "models"), hash_db=HashDatabase(folder / "state"), progress=Lines(), stop=Stop())
"""


def many(server, model, count=6):
    found = []
    for number in range(count):
        data = content(100_000, seed=number)
        url = server.put(f"/{number}", data, Step(cut=50_000 + number))
        found.append(model(url, name=f"{number}.bin", size=len(data), sha256=sha256(data)))
    return found


def test_files_are_downloaded_in_parallel_each_once(server, workspace, model):
    files = many(server, model)
    report = workspace.pull(*files, jobs=3)
    assert sorted(report.done) == sorted(file.relative_path for file in files)
    assert set(server.sent.values()) == {100_000}
    assert all(sha256(workspace.content(file)) == file.sha256 for file in files)


def test_one_failure_does_not_stop_the_others(server, workspace, model):
    files = many(server, model)
    server.files["/3"].script[:] = [Step(status=404)]
    report = workspace.pull(*files)
    assert list(report.failed) == ["vae/3.bin"]
    assert len(report.done) == 5


def test_a_present_file_is_not_requested(server, workspace, model):
    file = model(server.put("/model.bin", DATA), size=len(DATA))
    workspace.put(file, DATA)
    assert not workspace.pull(file).failed
    assert server.requests == []


@pytest.mark.parametrize("first_fails", [False, True])
def test_of_two_pulls_at_once_the_second_waits_for_the_first(server, workspace, model, first_fails):
    """No byte is downloaded twice, whether the second finds the file or resumes a partial one."""
    hold, second = threading.Event(), ProgressRecorder()
    script = [Step(hold=hold, cut=300_000), Step(status=404)] if first_fails else [Step(hold=hold)]
    file = model(server.put("/model.bin", DATA, *script), size=len(DATA), sha256=sha256(DATA))
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(workspace.pull, file)
        assert server.half.wait(30)
        two = pool.submit(workspace.pull, file, progress=second)
        until(lambda: second.messages, why="the second pull to wait")
        assert is_locked(workspace.store.target(file))
        hold.set()
        assert bool(one.result().failed) == first_fails
        assert not two.result().failed
    assert second.messages.count("waiting for another download of it") == 1
    assert server.sent == {"/model.bin": len(DATA)}
    assert workspace.content(file) == DATA
    assert workspace.names() == ["vae/model.bin"]


def test_a_killed_pull_leaves_a_partial_file_that_the_next_resumes(server, workspace, model, tmp_path):
    hold = threading.Event()
    file = model(server.put("/model.bin", DATA, Step(hold=hold)))
    target = workspace.store.target(file)
    command = [sys.executable, "-c", KILLED, str(tmp_path), file.url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert server.half.wait(30)
        until(
            lambda: partial_path(target).exists() and partial_path(target).stat().st_size > 100_000,
            why="a part to grow",
        )
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    hold.set()
    assert not target.exists()
    had = partial_path(target).stat().st_size
    assert not workspace.pull(file).failed
    assert workspace.content(file) == DATA
    assert server.gets("/model.bin")[-1].headers["Range"] == f"bytes={had}-"


def test_a_file_of_somebody_else_is_replaced_only_on_request(server, workspace, model):
    file = model(server.put("/model.bin", DATA), size=len(DATA))
    target = workspace.put(file, b"\1\0\2\3")
    error = workspace.pull(file).failed[file.relative_path]
    assert "it has 4 bytes, expected 500000" in error.message
    assert "--replace" in error.hint
    assert target.read_bytes() == b"\1\0\2\3"
    assert not workspace.pull(file, replace=True).failed
    assert target.read_bytes() == DATA


def test_a_download_of_ours_is_replaced_when_the_manifest_names_another_file(server, workspace, model):
    url = server.put("/model.bin", DATA)
    workspace.pull(model(url, sha256=sha256(DATA)))
    newer = content(500_000, seed=1)
    server.put("/model.bin", newer)
    assert not workspace.pull(model(url, sha256=sha256(newer))).failed
    assert workspace.content(model(url)) == newer


def test_the_old_file_stays_until_the_new_one_is_complete(server, workspace, model):
    url = server.put("/model.bin", DATA)
    workspace.pull(model(url, sha256=sha256(DATA)))
    server.put("/model.bin", content(500_000, seed=1), *[Step(cut=10)] * 9, ranges=False)
    assert workspace.pull(model(url, sha256="0" * 64)).failed
    assert workspace.content(model(url)) == DATA


def test_a_file_in_a_folder_that_comfyui_also_reads_is_present(workspace, model, tmp_path):
    other = tmp_path / "comfyui" / "models"
    file = model("https://example.org/x", folder="text_encoders", size=4)
    (other / "clip").mkdir(parents=True)
    (other / "clip" / file.name).write_bytes(b"\1\0\2\3")
    folders = ModelFolders(other, [("text_encoders", workspace.root / "text_encoders", True)])
    status = Store(workspace.root, folders).status(file, workspace.hash_db)
    assert (status.state, status.path) == ("present", other / "clip" / file.name)


def test_a_download_that_does_not_fit_is_refused_before_it_begins(workspace, model):
    status = FileStatus(
        file=model("https://example.org/x", size=10**18), state="missing", path=workspace.root / "vae" / "x"
    )
    with pytest.raises(MachineFault, match=r"needs 1000000000\.0 GB") as caught:
        require_room([status], keep_free=0, freeable=7_000_000_000)
    assert "prune` would free 7.0 GB" in caught.value.hint


def test_a_partial_file_needs_room_only_for_the_rest(workspace, model):
    big = 10**18
    status = FileStatus(
        file=model("https://example.org/x", size=big), state="partial", path=workspace.root / "x", present_bytes=big - 1
    )
    require_room([status], keep_free=0, freeable=0)


def test_a_download_of_unknown_size_that_does_not_fit_is_refused_at_the_first_answer(server, workspace, model):
    file = model(server.put("/model.bin", DATA, *[Step(length=10**18, cut=10)] * 9))
    error = workspace.pull(file).failed[file.relative_path]
    assert "needs 1000000000.0 GB" in error.message


def test_a_folder_that_cannot_be_created_is_named(server, workspace, model):
    workspace.root.write_text("a file where the folder should be")
    error = workspace.pull(model(server.put("/model.bin", DATA))).failed["vae/model.bin"]
    assert str(workspace.root) in error.message


def test_an_invalid_url_is_a_config_error(workspace, model):
    error = workspace.pull(model("ftp://example.org/x")).failed["vae/model.bin"]
    assert isinstance(error, ConfigError)
    assert "ftp://example.org/x is not the URL of a file" in error.message
