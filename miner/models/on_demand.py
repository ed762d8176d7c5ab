"""The LoRAs that tasks name by reference: fetched once for all who wait, kept within a quota.

    want ─▶ on the shelf: its name ─▶ on its way: not yet ─▶ failed a moment ago: the reason ─▶ a thread fetches it

Promises: files and downloads together never have more than `quota` bytes; what a task in hand names is not evicted; a
download ends once no task in hand names it; a host that fails or stalls is left alone for a while, so that its LoRAs
are refused at once. Never: blocks the caller for the network.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from miner.machine.disk import free_bytes
from miner.models.disk import disk_errors
from miner.models.lora_download import Download, HostRefused, Orders, Sites, Unwanted, fits_any, wrong_base
from miner.models.lora_index import LoraFolder
from miner.models.lora_shelf import Breaker, Kept, to_evict
from miner.net.addresses import Refused
from miner.net.egress import Egress, NetworkFault
from miner.net.errors import Unreached
from miner.net.references import Reference
from miner.net.session import Guard
from miner.task.errors import JobFault, MachineFault, MinerError, Retryable
from miner.telemetry import clock
from miner.telemetry.sizes import gb

log = structlog.get_logger()

REMEMBER = 15.0  # seconds that a failure is the answer to every task that names the same
REMEMBER_OURS = 0.5  # … if it was this machine's
LOOK = 0.02  # seconds between two looks whether there is room, while a download waits for it


@dataclass(slots=True)
class _Coming:
    """A download under way."""

    reference: Reference
    bases: set[str] = field(default_factory=set)  # that its tasks need
    reserved: int = 0  # bytes


class OnDemand:
    """One for all lanes. Any thread may call it."""

    def __init__(
        self,
        root: Path,
        *,
        sites: Sites,
        guard: Guard,
        quota: int,
        most: int,
        needed: Callable[[], Collection[str]],
        min_free: int = 0,
        egress: Egress | None = None,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = clock.now,
    ) -> None:
        """`root`: the models folder. `quota`, `most` (of one file) and `min_free` (of the disk) are in bytes. `needed`:
        the keys of the references that tasks in hand name; `changed` is called, without a lock, when one can go on.
        """
        self._folder = LoraFolder(root)
        self._sites = sites
        self._guard = guard
        self._quota = quota
        self._most = min(most, quota)
        self._min_free = min_free
        self._needed = needed
        self._egress = egress or Egress()
        self._changed = changed
        self._clock = clock
        self._lock = threading.Condition()
        self._shelf: dict[str, Kept] | None = None  # by content; None: not opened yet
        self._coming: dict[str, _Coming] = {}  # by key
        self._failed: dict[str, tuple[float, MinerError]] = {}
        self._queue: list[str] = []  # keys that wait for room, first come first served
        self._breaker = Breaker()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    # ---- for the lanes ----------------------------------------------------------------------------------------------

    def want(self, reference: Reference, *, base: str) -> str | None:
        """ComfyUI's name of the LoRA; None while it is on its way. `base`: what the workflow needs, or "".

        Call it again after `changed`. Raises JobFault with a clause for the consumer, and MachineFault.
        """
        key = reference.key
        with self._lock:
            if (kept := self._find(key)) is not None:
                if not fits_any(kept.base, [base]):
                    raise JobFault(wrong_base(kept.base, [base]))
                self._put(replace(kept, used_at=self._clock()))
                return self._folder.comfy_name(kept.sha256)
            if key in self._coming:
                self._coming[key].bases.add(base)
                return None
            at, error = self._failed.get(key, (float("-inf"), None))
            passing = isinstance(error, MachineFault)  # of this machine: the next try may succeed
            if error is not None and self._clock() - at < (REMEMBER_OURS if passing else REMEMBER):
                raise copy(error)
            self._failed.pop(key, None)
            self._start(reference, base)
        return None

    def is_coming(self, key: str) -> bool:
        """Whether it is being fetched now."""
        return key in self._coming

    def touch(self) -> None:
        """ComfyUI does not list a file that is there: make it look again. Raises MachineFault."""
        self._folder.touch()

    def close(self) -> None:
        """End all downloads. Blocks until they have ended: a moment, or a host's silence at most."""
        self._stop.set()
        with self._lock:
            self._lock.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join(2.0)
        self._folder.close()

    @property
    def bytes_taken(self) -> int:
        """Of files, and of what downloads under way may write."""
        with self._lock:
            return self._taken() + sum(one.size for one in self._opened().values())

    # ---- under the lock ---------------------------------------------------------------------------------------------

    def _opened(self) -> dict[str, Kept]:
        if self._shelf is None:
            self._shelf = self._folder.open()
            log.info("loras_kept", count=len(self._shelf), size=gb(sum(one.size for one in self._shelf.values())))
        return self._shelf

    def _find(self, key: str) -> Kept | None:
        for kept in self._opened().values():
            if key in kept.keys:
                if self._folder.has(kept):
                    return kept
                del self._opened()[kept.sha256]  # somebody deleted it
                return None
        return None

    def _put(self, kept: Kept) -> None:
        shelf = self._opened()
        shelf[kept.sha256] = kept
        self._folder.save(shelf.values())

    def _start(self, reference: Reference, base: str) -> None:
        try:
            self._sites.require(self._sites.first(reference))
        except Refused as refused:
            raise JobFault(str(refused)) from None
        self._coming[reference.key] = _Coming(reference, {base})
        thread = threading.Thread(target=self._run, args=(reference,), name="lora", daemon=True)
        self._threads = [*(one for one in self._threads if one.is_alive()), thread]
        thread.start()

    def _taken(self) -> int:
        return sum(one.reserved for one in self._coming.values())

    def _make_room(self, key: str, size: int) -> bool:
        """Reserve `size` bytes for a download, after an eviction if that makes enough room."""
        mine, shelf = self._coming[key], self._opened()
        if size <= mine.reserved:
            return True
        going = to_evict(
            shelf.values(),
            needed=self._needed(),
            room=size,
            taken=self._taken() - mine.reserved,
            quota=self._quota,
        )
        if going is None:
            return False
        for one in going:
            self._folder.remove(one)
            del shelf[one.sha256]
            log.info("lora_evicted", lora=one.origin, size=gb(one.size), unused_for=round(self._clock() - one.used_at))
        if going:
            self._folder.save(shelf.values())
        with disk_errors(self._folder.path):
            free = free_bytes(self._folder.path)
        if free < size - mine.reserved + self._min_free:
            hint = "free some space, or lower [loras] quota_gb"
            raise MachineFault(f"a LoRA needs {gb(size)}, and {gb(free)} of disk are free", hint=hint, fault="disk")
        mine.reserved = size
        return True

    # ---- a download's thread ----------------------------------------------------------------------------------------

    def _run(self, reference: Reference) -> None:
        key = reference.key
        partial = self._folder.partial(key)
        download = Download(reference, partial, sites=self._sites, guard=self._guard, orders=self._orders(key))
        error: MinerError | None = None
        try:
            sha256 = download.run()
            with self._lock:
                self._keep(reference, partial, sha256, download)
        except Unwanted:
            log.info("lora_not_needed", lora=reference.shown, next="stopped its download")
        except (Refused, MinerError) as failure:
            error = self._judged(failure, download)
            log.warning("lora_not_fetched", lora=reference.shown, reason=error.message, hint=error.hint or None)
        except Exception:
            log.exception("lora_crashed", lora=reference.shown, next="refusing its tasks; please report this bug")
            error = MachineFault("the LoRA could not be fetched (a bug)")
        finally:
            with self._lock:
                with suppress(OSError):
                    partial.unlink(missing_ok=True)
                if error is not None:
                    self._failed[key] = self._clock(), error
                del self._coming[key]
                self._lock.notify_all()
            self._changed()

    def _orders(self, key: str) -> Orders:
        def reserve(size: int) -> bool:
            with self._lock:
                has = self._coming[key].reserved >= size  # who has its room must not wait behind who waits for that
                return has or (not self._queue and self._make_room(key, size))

        return Orders(
            reserve=reserve,
            wait_for_room=lambda size: self._wait_for_room(key, size),
            require_wanted=lambda: self._require_wanted(key),
            require_host=self._require_host,
            bases=lambda: frozenset(self._coming[key].bases),
            most=self._most,
            stop=self._stop,
        )

    def _require_wanted(self, key: str) -> None:
        if self._stop.is_set() or key not in self._needed():
            raise Unwanted("no task needs it")

    def _require_host(self, host: str) -> None:
        with self._lock:
            why = self._breaker.refusal(host, now=self._clock())
        if why:
            raise Refused(f"{why}; create the task again later")

    def _wait_for_room(self, key: str, size: int) -> None:
        with self._lock:
            self._queue.append(key)
            try:
                while self._queue[0] != key or not self._make_room(key, size):
                    self._require_wanted(key)
                    self._lock.wait(LOOK)
            finally:
                self._queue.remove(key)
                self._lock.notify_all()

    def _keep(self, reference: Reference, partial: Path, sha256: str, download: Download) -> None:
        now, shelf = self._clock(), self._opened()
        kept = shelf.get(sha256)
        if kept is None:
            self._folder.adopt(partial, sha256)
            kept = Kept(
                sha256=sha256,
                size=download.length,
                base=download.base,
                keys=frozenset(),
                origin=reference.shown,
                used_at=now,
                fetched_at=now,
            )
        self._coming[reference.key].reserved = 0  # the file counts from here on
        self._put(replace(kept, keys=kept.keys | {reference.key}, used_at=now))
        for host in download.hosts:
            self._breaker.worked(host)
        log.info("lora_fetched", lora=reference.shown, size=gb(kept.size), base=kept.base or "unknown")

    def _judged(self, failure: Refused | MinerError, download: Download) -> MinerError:
        """What the waiting tasks are told, and whom the failure counts against."""
        host, now = download.host, self._clock()
        if isinstance(failure, Retryable):
            if isinstance(failure, Unreached):
                try:
                    self._egress.judge(failure, who="a LoRA's host")
                except NetworkFault as fault:
                    return fault
            why = failure.message.replace("the server", host or "the server", 1)
            with self._lock:
                self._blame(host, why, now, for_all=False)
            return JobFault(why)
        if isinstance(failure, Refused):
            if isinstance(failure, HostRefused):
                with self._lock:
                    self._blame(host, str(failure), now, for_all=True)
            return JobFault(str(failure))
        return failure

    def _blame(self, host: str, reason: str, now: float, *, for_all: bool) -> None:
        if host and self._breaker.failed(host, reason, now=now, for_all=for_all):
            log.warning("lora_host_paused", host=host, reason=reason, next="refusing its LoRAs for a while")
