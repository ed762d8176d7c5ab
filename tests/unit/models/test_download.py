"""One file from a misbehaving server: the right bytes in the end, or a clear error."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from miner.models.partial_file import origin_path, partial_path
from miner.models.progress import Stop, Stopped
from tests.support.testbed import until
from tests.unit.models.conftest import ProgressRecorder
from tests.unit.models.samples import content, safetensors, sha256
from tests.unit.models.server import Step

SIZE = 1_000_000
DATA = content(SIZE)
OTHER = content(SIZE, seed=1)
PATH = "/model.bin"


def known(data=DATA):
    return {"size": len(data), "sha256": sha256(data)}


def test_a_complete_file_is_all_that_is_left(server, workspace, model):
    file = model(server.put(PATH, DATA), **known())
    report = workspace.pull(file)
    assert not report.failed
    assert workspace.content(file) == DATA
    assert workspace.names() == ["vae/model.bin"]
    assert workspace.progress.furthest == {"vae/model.bin": SIZE}


def test_no_byte_is_downloaded_twice(server, workspace, model):
    file = model(server.put(PATH, DATA, Step(cut=100_000), Step(cut=1), Step(cut=300_000)), **known())
    assert not workspace.pull(file).failed
    assert workspace.content(file) == DATA
    assert server.sent[PATH] == SIZE
    assert [get.headers.get("Range") for get in server.gets(PATH)] == [
        None,
        "bytes=100000-",
        "bytes=100001-",
        "bytes=400001-",
    ]


def test_another_run_resumes_a_stopped_one(server, workspace, model):
    hold = threading.Event()
    file = model(server.put(PATH, DATA, Step(hold=hold)), **known())
    pool = ThreadPoolExecutor(1)
    pulled = pool.submit(workspace.pull, file)
    assert server.half.wait(30)
    target = workspace.store.target(file)
    until(lambda: partial_path(target).stat().st_size, why="a part to grow")
    workspace.stop.set()  # although the server sends nothing
    with pytest.raises(Stopped):
        pulled.result(timeout=10)
    hold.set()
    pool.shutdown()
    had = partial_path(target).stat().st_size
    assert 0 < had < SIZE
    assert not target.exists()

    assert not workspace.pull(file, stop=Stop()).failed
    assert workspace.content(file) == DATA
    assert server.gets(PATH)[-1].headers["Range"] == f"bytes={had}-"
    assert not origin_path(target).exists()


@pytest.mark.parametrize("etag", ['"one"', ""])
def test_a_file_that_changes_between_two_ranges_is_downloaded_again(server, workspace, model, etag):
    """By its ETag or Last-Modified; nothing else is known of it."""
    step = Step(content=OTHER, etag='"two"' if etag else "")
    url = server.put(PATH, DATA, Step(cut=400_000), etag=etag, modified="Mon, 01 Jan 2024 00:00:00 GMT")
    file = model(url, size=SIZE)
    if not etag:
        step.headers = {"Last-Modified": "Tue, 02 Jan 2024 00:00:00 GMT"}
        step.no_range = True
    server.files[PATH].script.append(step)
    assert not workspace.pull(file).failed
    assert workspace.content(file) == OTHER
    assert server.gets(PATH)[1].headers["If-Range"] == (etag or "Mon, 01 Jan 2024 00:00:00 GMT")


def test_416_for_a_complete_partial_file_ends_the_download(server, workspace, model):
    """After a crash between the last byte and the rename, for a file of unknown size."""
    file = model(server.put(PATH, DATA))
    target = workspace.store.target(file)
    workspace.pull(file)
    partial_path(target).write_bytes(target.read_bytes())
    origin_path(target).write_text(json.dumps({"url": file.url, "validator": server.files[PATH].etag}))
    target.unlink()
    assert not workspace.pull(file).failed
    assert workspace.content(file) == DATA
    assert server.sent[PATH] == SIZE


def test_a_complete_partial_file_is_checked_without_a_request(server, workspace, model):
    file = model(server.put(PATH, DATA, Step(cut=SIZE - 1)), **known())
    workspace.pull(file)
    target = workspace.store.target(file)
    target.rename(partial_path(target))
    origin_path(target).write_text(json.dumps({"url": file.url}))
    assert not workspace.pull(file).failed
    assert workspace.content(file) == DATA
    assert server.sent[PATH] == SIZE
    assert len(server.gets(PATH)) == 2


def test_a_partial_file_without_an_origin_is_not_trusted(server, workspace, model):
    file = model(server.put(PATH, DATA), **known())
    workspace.put(file, OTHER[:300_000]).rename(partial_path(workspace.store.target(file)))
    assert not workspace.pull(file).failed
    assert workspace.content(file) == DATA
    assert "Range" not in server.gets(PATH)[0].headers


CUT = Step(cut=400_000)
LENGTHS = [SIZE - 1, SIZE + 1, 10 * SIZE]
SUCCEEDS = {
    "a server that ignores If-Range changed the file": (
        [CUT, Step(content=OTHER, etag='"two"', no_condition=True)],
        {"etag": '"one"'},
        {"size": SIZE},
        OTHER,
    ),
    "the hash alone tells of a change": ([CUT, Step(content=OTHER, etag="")], {"etag": ""}, known(OTHER), OTHER),
    "nothing would tell of a change": ([CUT], {"etag": ""}, {"size": SIZE}, DATA),
    "no ranges": ([CUT, Step(cut=200_000)], {"ranges": False}, known(), DATA),
    "416, since the file shrank": (
        [Step(cut=900_000), Step(content=OTHER[:500_000], no_condition=True)],
        {},
        {},
        OTHER[:500_000],
    ),
    "slow": ([Step(trickle=9999)], {}, known(), DATA),
    "chunks of unknown length": ([Step(chunked=True, cut=300_000), Step(chunked=True)], {}, {}, DATA),
    "no length, but a known hash": ([Step(endless=True)], {}, {"sha256": sha256(DATA)}, DATA),
}


@pytest.mark.parametrize("case", SUCCEEDS)
def test_download_succeeds(server, workspace, model, case):
    script, served, facts, expected = SUCCEEDS[case]
    file = model(server.put(PATH, DATA, *script, **served), **facts)
    assert not workspace.pull(file).failed
    assert workspace.content(file) == expected
    assert workspace.names() == ["vae/model.bin"]
    if case == "nothing would tell of a change":
        assert "Range" not in server.gets(PATH)[1].headers
    if case == "the hash alone tells of a change":
        assert any("restarting" in text for text in workspace.progress.messages)


PARTIAL = ["vae/model.bin.part", "vae/model.bin.part.json"]
FAILS = {
    "never gets to the end": ([CUT] * 20, {"ranges": False}, known(), ["4 times in a row"], PARTIAL),
    "Retry-After is an hour": ([Step(status=429, headers={"Retry-After": "3600"})], {}, known(), ["429", "3600 s"], []),
    **{
        f"Content-Length is {claimed}": ([Step(length=claimed)] * 20, {}, known(), [f"{claimed} bytes", str(SIZE)], [])
        for claimed in LENGTHS
    },
    "Content-Length is too long": ([Step(length=2 * SIZE, no_range=True)] * 20, {}, {}, ["4 times in a row"], PARTIAL),
    "Content-Length is too short": ([Step(length=500, cut=500)], {}, {"sha256": sha256(DATA)}, [sha256(DATA)], []),
    "another file": ([Step(content=OTHER)], {}, known(), [sha256(OTHER), sha256(DATA)], []),
    "chunks beyond the size": ([Step(chunked=True)], {}, {"size": 500}, ["more than 500 bytes"], []),
    "no length and no hash": ([Step(endless=True)], {}, {}, ["does not tell its length", "sha256"], []),
    "compressed": ([Step(headers={"Content-Encoding": "gzip"})], {}, known(), ["compresses"], []),
    **{
        f"status {status}": ([Step(status=status)] * 5, {}, known(), [f"127.0.0.1 answered {status}", hint], [])
        for status, hint in [(404, "URL"), (410, "URL"), (401, "account"), (403, "account")]
    },
}


@pytest.mark.parametrize("case", FAILS)
def test_download_fails_and_says_why(server, workspace, model, case):
    script, served, facts, words, left = FAILS[case]
    file = model(server.put(PATH, DATA, *script, **served), **facts)
    error = workspace.pull(file).failed[file.relative_path]
    assert [word for word in words if word not in f"{error.message} {error.hint}"] == []
    assert workspace.names() == left
    if "times in a row" not in words[0] and "Content-Length" not in case:
        assert len(server.gets(PATH)) == 1  # the refusal is final


def test_content_length_too_short_for_a_safetensors_file(server, workspace, model):
    data = safetensors(SIZE)
    file = model(server.put(PATH, data, Step(length=SIZE // 2, cut=SIZE // 2)), name="model.safetensors")
    assert "its header says 1000000" in workspace.pull(file).failed[file.relative_path].message
    assert workspace.names() == []


def test_retry_after_is_obeyed(server, workspace, model):
    busy = Step(status=429, headers={"Retry-After": "1"})
    file = model(server.put(PATH, DATA, busy, Step(status=503)), **known())
    assert not workspace.pull(file).failed
    first, second, _ = server.gets(PATH)
    assert second.at - first.at >= 1.0
    assert workspace.content(file) == DATA


def test_a_damaged_partial_file_is_downloaded_again(server, workspace, model):
    file = model(server.put(PATH, DATA, Step(cut=400_000), *[Step(status=404)]), **known())
    assert workspace.pull(file).failed
    partial = partial_path(workspace.store.target(file))
    partial.write_bytes(bytes(200_000) + partial.read_bytes()[200_000:])
    assert not workspace.pull(file).failed
    assert workspace.content(file) == DATA


def test_no_server_is_an_error_that_names_it(workspace, model):
    file = model("http://127.0.0.1:1/model.bin?key=s3cret", **known())
    error = workspace.pull(file).failed[file.relative_path]
    assert "the connection to 127.0.0.1 failed" in error.message
    assert error.hint


@pytest.mark.parametrize("step", [Step(status=404), Step(status=500), Step(length=3, no_range=True), Step(cut=0)])
def test_no_error_and_no_saved_origin_has_the_query_of_a_url(server, workspace, model, step):
    file = model(server.put(PATH, DATA, Step(cut=1000), *[step] * 20) + "?token=s3cret", **known())
    error = workspace.pull(file).failed[file.relative_path]
    assert "s3cret" not in error.message + error.hint + " ".join(workspace.progress.messages)
    assert all(b"s3cret" not in path.read_bytes() for path in workspace.root.rglob("*.json"))


def test_a_redirect_is_followed_with_the_range(server, workspace, model):
    server.put("/real", DATA, Step(cut=400_000))
    moved = Step(status=302, headers={"Location": server.url + "/real"})
    file = model(server.put(PATH, b"", moved, moved), **known())
    assert not workspace.pull(file, progress=ProgressRecorder()).failed
    assert workspace.content(file) == DATA
    assert server.sent["/real"] == SIZE
