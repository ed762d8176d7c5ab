"""LoRAs that tasks name, from servers on loopback that behave like Hugging Face, Civitai and others, or worse."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from miner.comfy.weights import ON_DEMAND
from miner.models import lora_download
from miner.models.lora_download import Sites
from miner.models.lora_index import kept_in
from miner.models.on_demand import OnDemand
from miner.net.addresses import parse_allow
from miner.net.references import Reference, parse_reference
from miner.net.session import Guard
from miner.task.errors import JobFault
from tests.support.scripted_server import RESET, Request, Said, ScriptedServer, head, whole
from tests.unit.models.samples import lora, sha256

LORA = lora(200_000)


class Tasks:
    """The tasks in hand: which references they name."""

    def __init__(self) -> None:
        self.named: Counter[str] = Counter()
        self.changed = threading.Event()

    def needed(self) -> set[str]:
        return set(+self.named)

    @contextmanager
    def task(self, reference: Reference) -> Iterator[None]:
        self.named[reference.key] += 1
        try:
            yield
        finally:
            self.named[reference.key] -= 1


class Bench:
    """A models folder, a site and its storage on another host, and what fetches from them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.site = ScriptedServer()
        self.storage = ScriptedServer(host="127.0.0.2")
        self.tasks = Tasks()
        self.opened: list[OnDemand] = []

    def open(self, *, quota: int = 10**9, most: int = 10**8, **sites: Any) -> OnDemand:
        options = {"hosts": ("127.0.0.1", "127.0.0.2"), "hub": self.site.url, "civitai": self.site.url, **sites}
        allow = parse_allow([self.site.host, self.storage.host])
        self.opened.append(
            OnDemand(
                self.root,
                sites=Sites(**options),
                guard=Guard(allow=allow, schemes=("https",)),
                quota=quota,
                most=most,
                needed=self.tasks.needed,
                changed=self.tasks.changed.set,
            )
        )
        return self.opened[-1]

    def get(self, on_demand: OnDemand, text: str, *, base: str = "flux", seconds: float = 20.0) -> str:
        """ComfyUI's name, once it is there."""
        reference = parse_reference(text)
        assert reference is not None
        with self.tasks.task(reference):
            return wait_for(on_demand, reference, base=base, seconds=seconds)

    def content(self, name: str) -> bytes:
        return (self.root / "loras" / name).read_bytes()

    def listed(self) -> list[str]:
        """What ComfyUI would list."""
        return sorted(path.name for path in (self.root / "loras").rglob("*.safetensors"))

    def bytes_on_disk(self) -> int:
        """Of LoRAs, whole ones and those on their way."""
        total = 0
        for path in (self.root / "loras").rglob("*"):
            with suppress(FileNotFoundError):
                total += path.stat().st_size if path.suffix in (".safetensors", ".part") else 0
        return total

    def close(self) -> None:
        for server in (self.site, self.storage):
            server.close()
        for one in self.opened:
            one.close()


def wait_for(on_demand: OnDemand, reference: Reference, *, base: str = "flux", seconds: float = 20.0) -> str:
    until = time.monotonic() + seconds
    while (name := on_demand.want(reference, base=base)) is None:
        assert time.monotonic() < until
        time.sleep(0.002)
    return name


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def moved(url: str, *headers: str) -> Callable[[Request], Said]:
    return whole(b"", f"Location: {url}", *headers, status=302)


def test_a_file_of_hugging_face_is_checked_by_its_hash_and_the_token_stays_there(bench: Bench) -> None:
    url = bench.storage.serve(whole(LORA))
    bench.site.serve(moved(url, f'X-Linked-ETag: "{sha256(LORA)}"'), "/org/repo/resolve/main/a%20b.safetensors")
    name = bench.get(bench.open(hub_token="hf_secret"), "hf://org/repo/a b.safetensors".replace(" ", "%20"))
    assert name == f"{ON_DEMAND}/0/{sha256(LORA)[:40]}.safetensors"
    assert bench.content(name) == LORA
    assert [one.headers["Authorization"] for one in bench.site.requests] == ["Bearer hf_secret"]
    assert [one.headers["Authorization"] for one in bench.storage.requests] == [None]


def test_a_model_version_of_civitai_that_demands_a_token(bench: Bench) -> None:
    url = bench.storage.serve(whole(LORA))

    def answer(request: Request) -> Said:
        known = request.headers["Authorization"] == "Bearer key"
        return (moved(url) if known else whole(b"{}", status=401))(request)

    bench.site.serve(answer, "/api/download/models/691639")
    with pytest.raises(JobFault, match="401: the LoRA does not exist there, or needs an account"):
        bench.get(bench.open(), "civitai:691639")
    other = bench.open(civitai_token="key")  # takes another subfolder, as another miner would
    assert bench.content(bench.get(other, "https://civitai.com/models/1?modelVersionId=691639")) == LORA


REFUSED: dict[str, tuple[Callable[[Request], Said], str]] = {
    "a web page": (whole(b"<!doctype html><p>Sign in", "Content-Type: text/html"), "web page in place of the LoRA"),
    "a web page under another type": (whole(b"<!doctype html><p>Sign in please"), "a web page; it may need an account"),
    "a pickle": (whole(b"\x80\x02ccollections\nOrderedDict\n" * 9), "not a safetensors file"),
    "nothing": (whole(b""), "not a safetensors file"),
    "no LoRA": (whole(lora(layer="model.embed").replace(b".lora_up", b".encoder")), "not a LoRA"),
    "a LoRA for another base": (
        whole(lora(layer="unet.up_blocks.0.attn")),
        "it is a LoRA for sd, and the workflow needs",
    ),
    "more tensors than it has": (whole(LORA[:-9]), "is cut off"),
    "fewer tensors than it has": (whole(LORA + b"more"), "but its header says"),
    "a header without end": (whole(b"\xff" * 7 + b"\0{" + b" " * 99), "not a safetensors file"),
    "too large a header": (whole((10**8 - 9).to_bytes(8, "little") + b"{ ", f"Content-Length: {10**8}"), "header has"),
    "too large a file": (whole(b"", f"Content-Length: {10**9}"), "takes LoRAs of at most"),
    "another host": (whole(b"", "Location: http://127.0.0.3/", status=302), "127.0.0.3 is not among the hosts"),
    "a private port": (whole(b"", "Location: https://127.0.0.1:1/", status=302), "the port is neither 80 nor 443"),
    "circles": (whole(b"", "Location: /0", status=302), "redirects more than"),
    "not found": (whole(b"", status=404), "404; check the reference"),
    "compressed": (whole(LORA, "Content-Encoding: gzip"), "compresses the file"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_the_lora_is_refused_and_leaves_nothing(bench: Bench, what: str) -> None:
    answer, reason = REFUSED[what]
    with pytest.raises(JobFault, match=reason):
        bench.get(bench.open(), bench.site.serve(answer))
    assert bench.listed() == []
    assert kept_in(bench.root) == []
    assert bench.opened[0].bytes_taken == 0


def test_a_wrong_hash_is_refused(bench: Bench) -> None:
    url = bench.site.serve(whole(LORA))
    with pytest.raises(JobFault, match="another file than the SHA-256 says"):
        bench.get(bench.open(), f"{url}#sha256={'0' * 64}")


def test_a_broken_connection_goes_on_where_it_broke(bench: Bench) -> None:
    def answer(request: Request) -> Said:
        start = int((request.headers["Range"] or "bytes=0-")[6:-1])
        status, span = (206, f"bytes {start}-{len(LORA) - 1}/{len(LORA)}") if start else (200, "")
        lines = [f"Content-Length: {len(LORA) - start}", 'ETag: "1"', *([f"Content-Range: {span}"] if span else [])]
        return iter([head(status, *lines), LORA[start : start + 90_000], RESET])

    name = bench.get(bench.open(), bench.site.serve(answer))
    assert bench.content(name) == LORA
    assert bench.site.requests[0].headers["Range"] is None
    assert all(one.headers["If-Range"] == '"1"' for one in bench.site.requests[1:])


def test_a_file_that_changes_in_between_is_fetched_anew(bench: Bench) -> None:
    new = lora(200_000, seed=1)

    def answer(request: Request) -> Said:
        if not request.hit:
            return iter([head(200, f"Content-Length: {len(LORA)}", 'ETag: "1"'), LORA[:90_000], RESET])
        return whole(new, 'ETag: "2"')(request)

    name = bench.get(bench.open(), bench.site.serve(answer))
    assert bench.content(name) == new
    assert sha256(new)[:40] in name  # another name than its first content would have


def test_a_host_that_stalls_is_cut_and_then_left_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lora_download, "STALL", 0.2)
    monkeypatch.setattr(lora_download, "LONGEST_WAIT", 0.1)
    on_demand = bench.open()
    steps = [head(200, f"Content-Length: {len(LORA)}"), LORA[:50_000], 30.0]
    for _ in range(3):
        with pytest.raises(JobFault, match="neither took nor sent anything for"):
            bench.get(on_demand, bench.storage.serve(lambda _: iter(steps)))
    asked = len(bench.storage.requests)
    with pytest.raises(JobFault, match="is left alone for a while"):
        bench.get(on_demand, bench.storage.serve(whole(LORA)))
    assert len(bench.storage.requests) == asked
    assert bench.get(on_demand, bench.site.serve(whole(LORA)))  # no other host suffers


def test_a_region_that_is_blocked_is_known_at_once(bench: Bench) -> None:
    on_demand = bench.open()
    with pytest.raises(JobFault, match="451: it is blocked where this miner is"):
        bench.get(on_demand, bench.site.serve(whole(b"", status=451)))
    with pytest.raises(JobFault, match="451: it is blocked where this miner is, and is left alone"):
        bench.get(on_demand, bench.site.serve(whole(LORA)))


def test_a_restart_finds_what_it_has_and_tidies_what_was_half_done(bench: Bench) -> None:
    url = bench.site.serve(whole(LORA))
    first = bench.open()
    name = bench.get(first, url)
    first.close()
    folder = (bench.root / "loras" / name).parent
    for left in ("0" * 40 + ".part", "f" * 40 + ".safetensors"):
        (folder / left).write_bytes(b"half")
    assert bench.get(bench.open(), url) == name
    assert bench.listed() == [Path(name).name]
    assert not list(folder.glob("*.part"))
    assert len(bench.site.requests) == 1


def test_one_content_under_two_references_is_one_file(bench: Bench) -> None:
    on_demand = bench.open()
    assert bench.get(on_demand, bench.site.serve(whole(LORA))) == bench.get(on_demand, bench.site.serve(whole(LORA)))
    assert len(bench.listed()) == 1


def test_a_download_that_no_task_needs_any_more_ends(bench: Bench) -> None:
    on_demand, going = bench.open(), threading.Event()
    big = lora(30_000_000)

    def slowly(_: Request) -> Iterator[object]:
        yield head(200, f"Content-Length: {len(big)}")
        for at in range(0, len(big), 1 << 20):
            yield big[at : at + (1 << 20)]
            yield going if at == 5 << 20 else 0.0

    reference = parse_reference(bench.site.serve(slowly))
    assert reference is not None
    with bench.tasks.task(reference):
        assert on_demand.want(reference, base="flux") is None
        assert bench.site.reaches(lambda: len(bench.site.requests) == 1)
    going.set()
    bench.tasks.changed.wait(10)
    assert not on_demand.is_coming(reference.key)
    assert on_demand.bytes_taken == 0


def test_a_thousand_tasks_by_twenty_at_once_for_thirty_loras_under_a_quota_of_ten(bench: Bench) -> None:
    loras = [lora(40_000, seed) for seed in range(30)]
    size = len(max(loras, key=len))
    references = [parse_reference(bench.site.serve(whole(data))) for data in loras]
    assert None not in references
    quota = 10 * size
    on_demand = bench.open(quota=quota)
    rng, over, stop = random.Random(15), [], threading.Event()
    choices = [min(int(rng.expovariate(0.12)), 29) for _ in range(1000)]

    def watch() -> None:
        while not stop.wait(0.005):
            over.extend(taken for taken in (on_demand.bytes_taken, bench.bytes_on_disk()) if taken > quota)

    def task(number: int) -> float:
        reference = references[number]
        assert reference is not None
        began = time.monotonic()
        with bench.tasks.task(reference):
            name = wait_for(on_demand, reference, seconds=60.0)
            took = time.monotonic() - began
            time.sleep(0.002)  # a render
            assert bench.content(name) == loras[number]
        return took

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(20) as pool:
        took = list(pool.map(task, choices))
    stop.set()
    watcher.join()
    assert not over
    fetched = len(bench.site.requests)
    evicted = fetched - len(bench.listed())
    assert 30 <= fetched < 1000
    assert evicted == fetched - len(kept_in(bench.root)) > 0
    assert max(took) < 10.0


def test_who_waits_for_room_does_not_hold_a_connection(bench: Bench) -> None:
    one, two = bench.site.serve(whole(LORA)), bench.site.serve(whole(lora(200_000, seed=1)))
    on_demand = bench.open(quota=len(LORA) + 1000)
    first, second = parse_reference(one), parse_reference(two)
    assert first is not None
    assert second is not None
    with bench.tasks.task(second):
        with bench.tasks.task(first):
            name = wait_for(on_demand, first)
            assert on_demand.want(second, base="flux") is None
            assert bench.site.reaches(lambda: len(bench.site.requests) == 2 and len(bench.site.connections) == 0)
            assert bench.content(name) == LORA  # a task in hand needs it
        assert wait_for(on_demand, second)
    assert len(bench.listed()) == 1
