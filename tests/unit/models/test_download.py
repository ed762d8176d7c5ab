"""One file from a server that does everything wrong that servers do: the right bytes in the end, or a clear error."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from miner.models.partial_file import origin_path, partial_path
from miner.models.progress import Stop, Stopped
from tests.support.testbed import until
from tests.unit.models.conftest import QUICK, RecordedProgress
from tests.unit.models.samples import content, safetensors, sha256
from tests.unit.models.server import Step

SIZE = 1_000_000
DATA = content(SIZE)
OTHER = content(SIZE, seed=1)
PATH = "/model.pth"


def known(data=DATA):
    return {"size": len(data), "sha256": sha256(data)}


def test_a_file_has_its_final_name_and_nothing_else_is_left(server, bench, model):
    file = model(server.put(PATH, DATA), **known())
    report = bench.pull(file)
    assert not report.failed
    assert bench.content(file) == DATA
    assert bench.names() == ["vae/model.pth"]
    assert bench.progress.furthest == {"vae/model.pth": SIZE}


def test_what_was_fetched_before_a_cut_is_not_fetched_again(server, bench, model):
    file = model(server.put(PATH, DATA, Step(cut=100_000), Step(cut=1), Step(cut=300_000)), **known())
    assert not bench.pull(file).failed
    assert bench.content(file) == DATA
    assert server.sent[PATH] == SIZE
    assert [get.headers.get("Range") for get in server.gets(PATH)] == [
        None,
        "bytes=100000-",
        "bytes=100001-",
        "bytes=400001-",
    ]


def test_another_run_goes_on_where_the_first_one_was_stopped(server, bench, model):
    hold = threading.Event()
    file = model(server.put(PATH, DATA, Step(hold=hold)), **known())
    pool = ThreadPoolExecutor(1)
    pulled = pool.submit(bench.pull, file)
    assert server.half.wait(30)
    target = bench.store.target(file)
    until(lambda: partial_path(target).stat().st_size, why="a part to grow")
    bench.stop.set()  # the server is silent, and is not waited for
    with pytest.raises(Stopped):
        pulled.result(timeout=10)
    hold.set()
    pool.shutdown()
    had = partial_path(target).stat().st_size
    assert 0 < had < SIZE
    assert not target.exists()

    assert not bench.pull(file, stop=Stop()).failed
    assert bench.content(file) == DATA
    assert server.gets(PATH)[-1].headers["Range"] == f"bytes={had}-"
    assert not origin_path(target).exists()


@pytest.mark.parametrize("etag", ['"one"', ""])
def test_a_file_that_changes_between_two_ranges_is_fetched_anew(server, bench, model, etag):
    """By its ETag, else by its time of change; nothing else is known of it."""
    step = Step(content=OTHER, etag='"two"' if etag else "")
    url = server.put(PATH, DATA, Step(cut=400_000), etag=etag, modified="Mon, 01 Jan 2024 00:00:00 GMT")
    file = model(url, size=SIZE)
    if not etag:
        step.headers = {"Last-Modified": "Tue, 02 Jan 2024 00:00:00 GMT"}
        step.no_range = True
    server.files[PATH].script.append(step)
    assert not bench.pull(file).failed
    assert bench.content(file) == OTHER
    assert server.gets(PATH)[1].headers["If-Range"] == (etag or "Mon, 01 Jan 2024 00:00:00 GMT")


def test_a_change_is_noticed_where_the_server_takes_no_notice_of_the_condition(server, bench, model):
    changed = Step(content=OTHER, etag='"two"', no_condition=True)
    file = model(server.put(PATH, DATA, Step(cut=400_000), changed, etag='"one"'), size=SIZE)
    assert not bench.pull(file).failed
    assert bench.content(file) == OTHER


def test_a_change_that_no_header_tells_is_noticed_by_the_hash(server, bench, model):
    changed = Step(content=OTHER, etag="")
    file = model(server.put(PATH, DATA, Step(cut=400_000), changed, etag=""), **known(OTHER))
    assert not bench.pull(file).failed
    assert bench.content(file) == OTHER
    assert any("restarting" in text for text in bench.progress.said)


def test_without_any_way_to_tell_a_change_the_file_is_fetched_anew(server, bench, model):
    file = model(server.put(PATH, DATA, Step(cut=400_000), etag=""), size=SIZE)
    assert not bench.pull(file).failed
    assert bench.content(file) == DATA
    assert "Range" not in server.gets(PATH)[1].headers


def test_a_server_without_ranges_is_asked_for_all_of_it(server, bench, model):
    file = model(server.put(PATH, DATA, Step(cut=400_000), Step(cut=200_000), ranges=False), **known())
    assert not bench.pull(file).failed
    assert bench.content(file) == DATA


def test_a_server_without_ranges_that_never_gets_to_the_end_is_given_up(server, bench, model):
    file = model(server.put(PATH, DATA, *[Step(cut=400_000)] * 20, ranges=False), **known())
    error = bench.pull(file).failed[file.relative_path]
    assert "4 times in a row" in error.message
    assert len(server.gets(PATH)) == 1 + QUICK.attempts - 1
    assert not bench.store.target(file).exists()


def test_416_over_a_file_that_shrank_begins_anew(server, bench, model):
    file = model(server.put(PATH, DATA, Step(cut=900_000)), name="model.pth")
    server.files[PATH].script.append(Step(content=OTHER[:500_000], no_condition=True))
    assert not bench.pull(file).failed
    assert bench.content(file) == OTHER[:500_000]


def test_416_over_a_whole_part_means_that_nothing_is_left_to_fetch(server, bench, model):
    """As after a crash between the last byte and the rename, of a file whose size nobody knows."""
    file = model(server.put(PATH, DATA))
    target = bench.store.target(file)
    bench.pull(file)
    partial_path(target).write_bytes(target.read_bytes())
    origin_path(target).write_text(json.dumps({"url": file.url, "validator": server.files[PATH].etag}))
    target.unlink()
    assert not bench.pull(file).failed
    assert bench.content(file) == DATA
    assert server.sent[PATH] == SIZE


def test_a_whole_part_of_known_size_is_checked_without_asking_for_more(server, bench, model):
    file = model(server.put(PATH, DATA, Step(cut=SIZE - 1)), **known())
    bench.pull(file)
    target = bench.store.target(file)
    target.rename(partial_path(target))
    origin_path(target).write_text(json.dumps({"url": file.url}))
    assert not bench.pull(file).failed
    assert bench.content(file) == DATA
    assert server.sent[PATH] == SIZE
    assert len(server.gets(PATH)) == 2


def test_a_part_without_a_note_is_not_trusted(server, bench, model):
    file = model(server.put(PATH, DATA), **known())
    partial = partial_path(bench.store.target(file))
    partial.parent.mkdir(parents=True)
    partial.write_bytes(OTHER[:300_000])
    assert not bench.pull(file).failed
    assert bench.content(file) == DATA
    assert "Range" not in server.gets(PATH)[0].headers


def test_a_busy_server_gets_the_time_that_it_asks_for(server, bench, model):
    busy = Step(status=429, headers={"Retry-After": "1"})
    file = model(server.put(PATH, DATA, busy, Step(status=503)), **known())
    assert not bench.pull(file).failed
    first, second, _ = server.gets(PATH)
    assert second.at - first.at >= 1.0
    assert bench.content(file) == DATA


def test_a_server_that_asks_for_an_hour_is_not_waited_for(server, bench, model):
    file = model(server.put(PATH, DATA, Step(status=429, headers={"Retry-After": "3600"})), **known())
    error = bench.pull(file).failed[file.relative_path]
    assert "429" in error.message
    assert "3600 s" in error.message


def test_a_slow_server_is_waited_for(server, bench, model):
    small = DATA[:50_000]
    file = model(server.put(PATH, small, Step(trickle=999)), **known(small))
    assert not bench.pull(file).failed
    assert bench.content(file) == small


@pytest.mark.parametrize("claimed", [SIZE - 1, SIZE + 1, 10 * SIZE])
def test_a_content_length_that_contradicts_the_size_is_an_error(server, bench, model, claimed):
    file = model(server.put(PATH, DATA, *[Step(length=claimed)] * 20), **known())
    error = bench.pull(file).failed[file.relative_path]
    assert f"{claimed} bytes" in error.message
    assert str(SIZE) in error.message
    assert bench.names() == []


def test_a_content_length_that_is_too_long_is_an_error_where_no_size_is_known(server, bench, model):
    file = model(server.put(PATH, DATA, *[Step(length=2 * SIZE, no_range=True)] * 20))
    error = bench.pull(file).failed[file.relative_path]
    assert "4 times in a row" in error.message
    assert bench.names() == ["vae/model.pth.part", "vae/model.pth.part.json"]


def test_a_content_length_that_is_too_short_shows_by_the_hash(server, bench, model):
    file = model(server.put(PATH, DATA, Step(length=SIZE // 2, cut=SIZE // 2)), sha256=sha256(DATA))
    error = bench.pull(file).failed[file.relative_path]
    assert sha256(DATA) in error.message
    assert bench.names() == []


def test_a_content_length_that_is_too_short_shows_by_the_header_of_safetensors(server, bench, model):
    data = safetensors(SIZE)
    file = model(server.put(PATH, data, Step(length=SIZE // 2, cut=SIZE // 2)), name="model.safetensors")
    error = bench.pull(file).failed[file.relative_path]
    assert "its header says 1000000" in error.message
    assert bench.names() == []


def test_another_file_than_the_manifest_names_is_an_error(server, bench, model):
    file = model(server.put(PATH, OTHER), **known())
    error = bench.pull(file).failed[file.relative_path]
    assert sha256(OTHER) in error.message
    assert sha256(DATA) in error.message
    assert len(server.gets(PATH)) == 1
    assert bench.names() == []


def test_a_part_that_the_disk_spoiled_is_fetched_anew(server, bench, model):
    file = model(server.put(PATH, DATA, Step(cut=400_000), *[Step(status=404)]), **known())
    assert bench.pull(file).failed
    partial = partial_path(bench.store.target(file))
    partial.write_bytes(bytes(200_000) + partial.read_bytes()[200_000:])
    assert not bench.pull(file).failed
    assert bench.content(file) == DATA


def test_chunks_with_more_than_the_size_end_at_the_size(server, bench, model):
    file = model(server.put(PATH, DATA, Step(chunked=True)), size=SIZE // 2)
    error = bench.pull(file).failed[file.relative_path]
    assert f"more than {SIZE // 2} bytes" in error.message
    assert bench.names() == []


def test_chunks_of_unknown_length_are_fetched_to_their_end(server, bench, model):
    file = model(server.put(PATH, DATA, Step(chunked=True, cut=300_000), Step(chunked=True)))
    assert not bench.pull(file).failed
    assert bench.content(file) == DATA


def test_a_body_whose_end_nothing_tells_is_refused(server, bench, model):
    file = model(server.put(PATH, DATA, Step(endless=True)))
    error = bench.pull(file).failed[file.relative_path]
    assert "does not tell its length" in error.message
    assert "sha256" in error.hint


def test_a_body_whose_end_nothing_tells_is_taken_if_its_hash_is_known(server, bench, model):
    file = model(server.put(PATH, DATA, Step(endless=True)), sha256=sha256(DATA))
    assert not bench.pull(file).failed
    assert bench.content(file) == DATA


def test_a_compressed_answer_is_refused(server, bench, model):
    file = model(server.put(PATH, DATA, Step(headers={"Content-Encoding": "gzip"})), **known())
    assert "compresses" in bench.pull(file).failed[file.relative_path].message


@pytest.mark.parametrize(("status", "hint"), [(404, "URL"), (410, "URL"), (401, "account"), (403, "account")])
def test_a_refusal_is_final_and_says_what_to_do(server, bench, model, status, hint):
    file = model(server.put(PATH, DATA, *[Step(status=status)] * 5), **known())
    error = bench.pull(file).failed[file.relative_path]
    assert f"127.0.0.1 answered {status}" in error.message
    assert hint in error.hint
    assert len(server.gets(PATH)) == 1


def test_no_server_at_all_is_an_error_that_names_it(bench, model):
    file = model("http://127.0.0.1:1/model.pth?key=s3cret", **known())
    error = bench.pull(file).failed[file.relative_path]
    assert "the connection to 127.0.0.1 failed" in error.message
    assert error.hint


@pytest.mark.parametrize("step", [Step(status=404), Step(status=500), Step(length=3, no_range=True), Step(cut=0)])
def test_no_error_and_no_note_has_the_query_of_a_url(server, bench, model, step):
    file = model(server.put(PATH, DATA, Step(cut=1000), *[step] * 20) + "?token=s3cret", **known())
    error = bench.pull(file).failed[file.relative_path]
    assert "s3cret" not in error.message + error.hint + " ".join(bench.progress.said)
    assert all(b"s3cret" not in path.read_bytes() for path in bench.root.rglob("*.json"))


def test_a_redirect_is_followed_with_the_range(server, bench, model):
    server.put("/real", DATA, Step(cut=400_000))
    moved = Step(status=302, headers={"Location": server.url + "/real"})
    file = model(server.put(PATH, b"", moved, moved), **known())
    assert not bench.pull(file, progress=RecordedProgress()).failed
    assert bench.content(file) == DATA
    assert server.sent["/real"] == SIZE
