"""The miner's side: leases, heartbeats, answers, time-outs.

It promises that a task is leased to one miner at a time and counted once, and that a call out of order is refused with
the reason. It never waits and never touches a socket: each method is a step that is over when it returns.

A lease ends in one of four ways: `answered`, `canceled` by its consumer, `timed out`, or `silent`, which is a miner
that did not ask for `lease_ttl` seconds. The last three take the task away, and an answer that comes all the same is
taken with 200 and recorded as `late`: it is no fault of the miner's, and it does not count.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from miner.devnet.blobs import Blobs
from miner.devnet.database import transaction
from miner.devnet.formats import HEAD, UNKNOWN, format_of
from miner.devnet.options import DevnetOptions
from miner.devnet.wire import PUBLIC_WORKFLOWS, MinerRequest, MinerSubmit, Refusal

TOLD_FOR = 60.0
"""Seconds for which a lost task is named in `canceled`: a reply may get lost."""

Verdict = Literal["first", "repeat", "late", "differing"]
"""An answer counts; repeats one; is to a task that was taken away; or differs from the one that counted."""

Ending = Literal["answered", "canceled", "timed out", "silent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """A task in a miner's hands. Times are Unix seconds."""

    task_id: str
    task_type: str
    workflow_id: str
    miner_id: str
    details: str = field(repr=False)  # the consumer's `task_details`, as JSON
    details_form: str
    target: str
    key: str  # of the presigned URL's object
    extra: str = field(repr=False)  # JSON object: more fields of the reply
    timeout: float | None
    leased_at: float


class Sequencer:
    """The miner's side of the state. `clock` returns Unix seconds."""

    def __init__(
        self, db: sqlite3.Connection, blobs: Blobs, options: DevnetOptions, *, clock: Callable[[], float]
    ) -> None:
        self._db = db
        self._blobs = blobs
        self._options = options
        self._clock = clock

    def resume(self) -> None:
        """After a restart: give every miner a full `lease_ttl`, since none could be heard while devnet was down."""
        self._db.execute("UPDATE miners SET seen_at = ?", (self._clock(),))

    def hear(self, call: MinerRequest) -> None:
        """Note that a miner is alive, what it can run, for `/resource_request`, and how far its tasks are."""
        self._db.execute(
            "INSERT INTO miners VALUES (?, ?, ?, ?, ?) ON CONFLICT (miner_id) DO UPDATE SET seen_at = excluded.seen_at,"
            " workflow_ids = CASE excluded.workflow_ids WHEN '[]' THEN workflow_ids ELSE excluded.workflow_ids END,"
            " version = excluded.version, hardware = excluded.hardware",
            (call.erc20_address, self._clock(), json.dumps(call.workflow_ids), call.version, call.hardware),
        )
        for progress in call.progress:
            self._db.execute(
                "UPDATE leases SET progress = ? WHERE task_id = ? AND miner_id = ? AND ended_at IS NULL",
                (progress.model_dump_json(exclude_none=True), progress.task_id, call.erc20_address),
            )

    def progress_of(self, task_id: str) -> dict[str, Any] | None:
        """What the miner that runs a task last said of it."""
        row = self._db.execute(
            "SELECT progress FROM leases WHERE task_id = ? AND ended_at IS NULL AND progress IS NOT NULL", (task_id,)
        ).fetchone()
        return json.loads(row[0]) if row else None

    def lease(self, miner_id: str, workflow_ids: Sequence[str]) -> Leased | None:
        """Lease the oldest task that fits; None without one, or for a miner at its limit."""
        if not workflow_ids or len(self.held(miner_id)) >= self._options.leases:
            return None
        task = self._oldest(workflow_ids)
        if task is None:
            return None
        now = self._clock()
        workflow_id = task["workflow_id"] or _id_of_type(task["task_type"], workflow_ids)
        deadline = None if task["timeout"] is None else now + task["timeout"]
        with transaction(self._db):
            self._db.execute("UPDATE tasks SET status = 'running' WHERE seq = ?", (task["seq"],))
            number = self._db.execute(
                "INSERT INTO leases (task_id, miner_id, workflow_id, key, leased_at, deadline)"
                " VALUES (?, ?, ?, '', ?, ?)",
                (task["task_id"], miner_id, workflow_id, now, deadline),
            ).lastrowid
            key = _key(task["task_id"], number, workflow_id)
            self._db.execute("UPDATE leases SET key = ? WHERE seq = ?", (key, number))
        return Leased(
            workflow_id=workflow_id,
            miner_id=miner_id,
            key=key,
            leased_at=now,
            **{
                name: task[name]
                for name in ("task_id", "task_type", "details", "details_form", "target", "extra", "timeout")
            },
        )

    def held(self, miner_id: str) -> tuple[str, ...]:
        """The ids of the tasks that a miner holds, the oldest lease first."""
        rows = self._db.execute(
            "SELECT task_id FROM leases WHERE miner_id = ? AND ended_at IS NULL ORDER BY seq", (miner_id,)
        )
        return tuple(row[0] for row in rows)

    def has_news(self, miner_id: str) -> bool:
        """Whether this miner lost a task that no reply has named yet."""
        return any(row["told"] == 0 for row in self._lost(miner_id))

    def tell(self, miner_id: str) -> tuple[str, ...]:
        """The ids of the tasks that a miner lost recently and should stop; marks them as told."""
        lost = self._lost(miner_id)
        if any(row["told"] == 0 for row in lost):
            self._db.execute("UPDATE leases SET told = TRUE WHERE miner_id = ? AND ended_at IS NOT NULL", (miner_id,))
        return tuple(row["task_id"] for row in lost)

    def submit(self, call: MinerSubmit) -> Verdict:
        """Take an answer. Raises Refusal: 404 for an unknown task, 400 for an answer that can never be taken."""
        now = self._clock()
        self._db.execute("UPDATE miners SET seen_at = ? WHERE miner_id = ?", (now, call.miner_id))
        body = call.model_dump_json()
        verdict, lease = self._judge(call, body)
        with transaction(self._db):
            self._db.execute(
                "INSERT INTO answers (at, task_id, miner_id, verdict, body) VALUES (?, ?, ?, ?, ?)",
                (now, call.task_id, call.miner_id, verdict, body),
            )
            if lease is not None:
                self._end_lease(lease, "answered")
                self._finish(call, lease)
        if verdict == "differing":
            raise Refusal(400, f"answered after the acknowledgement: task {call.task_id} has another answer already")
        return verdict

    def end_lease_of(self, task_id: str, ending: Ending) -> None:
        """End a task's lease, if it has one. The caller sets the task's status."""
        lease = self._db.execute("SELECT * FROM leases WHERE task_id = ? AND ended_at IS NULL", (task_id,)).fetchone()
        if lease is not None:
            self._end_lease(lease, ending)

    def expire(self, attending: Collection[str]) -> bool:
        """Take away what timed out, and what silent miners hold; returns whether anything was.

        A miner in `attending` has a request open, so it is not silent.
        """
        now = self._clock()
        late = self._db.execute("SELECT * FROM leases WHERE ended_at IS NULL AND deadline <= ?", (now,)).fetchall()
        for lease in late:
            with transaction(self._db):
                self._end_lease(lease, "timed out")
                seconds = lease["deadline"] - lease["leased_at"]
                self._fail(lease["task_id"], f"timed out: no answer within {seconds:g} s of the lease")
        silent = self._db.execute(
            "SELECT leases.* FROM leases JOIN miners USING (miner_id) WHERE ended_at IS NULL AND seen_at <= ?",
            (now - self._options.lease_ttl,),
        ).fetchall()
        lost = [lease for lease in silent if lease["miner_id"] not in attending]
        for lease in lost:
            self._lose(lease)
        return bool(late or lost)

    def _lost(self, miner_id: str) -> list[sqlite3.Row]:
        """The leases that were taken away recently, except of tasks that the same miner leased again."""
        return self._db.execute(
            "SELECT task_id, told FROM leases AS lost WHERE ended <> 'answered' AND ended_at > ? AND miner_id = ?"
            " AND NOT EXISTS (SELECT 1 FROM leases AS again WHERE again.task_id = lost.task_id"
            " AND again.miner_id = lost.miner_id AND again.seq > lost.seq) ORDER BY seq",
            (self._clock() - TOLD_FOR, miner_id),
        ).fetchall()

    def _lose(self, lease: sqlite3.Row) -> None:
        with transaction(self._db):
            self._end_lease(lease, "silent")
            if self._options.on_silence == "fail":
                self._fail(lease["task_id"], f"the miner was silent for {self._options.lease_ttl:g} s")
            else:
                self._db.execute("UPDATE tasks SET status = 'waiting' WHERE task_id = ?", (lease["task_id"],))

    def _oldest(self, workflow_ids: Sequence[str]) -> sqlite3.Row | None:
        types = {PUBLIC_WORKFLOWS[w].task_type for w in workflow_ids if w in PUBLIC_WORKFLOWS}
        row: sqlite3.Row | None = self._db.execute(
            "SELECT * FROM tasks WHERE status = 'waiting' AND (any_miner"
            " OR workflow_id IN (SELECT value FROM json_each(?))"
            " OR workflow_id IS NULL AND task_type IN (SELECT value FROM json_each(?))) ORDER BY seq LIMIT 1",
            (json.dumps(workflow_ids), json.dumps(sorted(types))),
        ).fetchone()
        return row

    def _judge(self, call: MinerSubmit, body: str) -> tuple[Verdict, sqlite3.Row | None]:
        """What an answer is, and the lease that it ends if it counts."""
        task = self._db.execute("SELECT * FROM tasks WHERE task_id = ?", (call.task_id,)).fetchone()
        if task is None:
            raise Refusal(404, f"unknown task {call.task_id}")
        leases = self._db.execute(
            "SELECT * FROM leases WHERE task_id = ? AND miner_id = ? ORDER BY seq", (call.task_id, call.miner_id)
        ).fetchall()
        if not leases:
            raise Refusal(400, f"task {call.task_id} was never leased to miner {call.miner_id}")
        if leases[-1]["ended_at"] is None:
            try:
                self._check_result(call, task, leases[-1])
            except Refusal:
                self._hurry(leases[-1])
                raise
            return "first", leases[-1]
        answers = self._db.execute(
            "SELECT verdict, body FROM answers WHERE task_id = ? AND miner_id = ?", (call.task_id, call.miner_id)
        ).fetchall()
        if any(answer["body"] == body for answer in answers):
            return "repeat", None
        if any(answer["verdict"] == "first" for answer in answers):
            return "differing", None
        return "late", None

    def _hurry(self, lease: sqlite3.Row) -> None:
        """A miner may never answer again after a refusal, and goes on asking: its task must not run for ever."""
        self._db.execute(
            "UPDATE leases SET deadline = min(coalesce(deadline, ?1), ?1) WHERE seq = ?2",
            (self._clock() + self._options.lease_ttl, lease["seq"]),
        )

    def _check_result(self, call: MinerSubmit, task: sqlite3.Row, lease: sqlite3.Row) -> None:
        """A success must name an object that exists, under the key that the lease gave, or by the task's id: a miner
        may have its own pattern for names, and the object is where the presigned URL put it."""
        if not call.success:
            return
        if task["target"] == "none":
            raise Refusal(400, "the task had no upload target, so its answer must be a failure")
        if task["target"] == "s3":  # the object is in a bucket that devnet does not see
            if not key_is_of(call.result, miner_id=call.miner_id, task_id=call.task_id):
                raise Refusal(400, f"result {call.result} is not <prefix>/<workflow>-<miner id>-<task id>.<format>")
            return
        stem = call.result.rpartition("/")[2].rpartition(".")[0]
        named = re.search(f"(?:^|-){re.escape(call.task_id)}$", stem) is not None
        if not named and self._object_key(call.result) != lease["key"]:
            raise Refusal(400, f"result {call.result} is not the key of upload_url, {lease['key']}")
        stored = self._blobs.find(self._options.bucket, lease["key"])
        if stored is None:
            raise Refusal(400, f"result {call.result} is not in the store")
        if stored.size == 0:
            raise Refusal(400, f"result {call.result} is an empty object")

    def _finish(self, call: MinerSubmit, lease: sqlite3.Row) -> None:
        target = self._db.execute("SELECT target FROM tasks WHERE task_id = ?", (call.task_id,)).fetchone()[0]
        result = None
        if call.success:
            result = call.result if target == "s3" else self._named_by_format(lease["key"])
        self._db.execute(
            "UPDATE tasks SET status = ?, ended_at = ?, result = ?, msg = ?, inference_latency = ?, upload_latency = ?"
            " WHERE task_id = ?",
            (
                "finished" if call.success else "failed",
                self._clock(),
                result,
                call.msg,
                call.inference_latency,
                call.upload_latency,
                call.task_id,
            ),
        )

    def _named_by_format(self, key: str) -> str:
        """The key; of a workflow whose format was not known at the lease, with the suffix of what was uploaded."""
        stem, _, suffix = key.rpartition(".")
        stored = self._blobs.find(self._options.bucket, key)
        if suffix != UNKNOWN.suffix or stored is None:
            return key
        with stored.path.open("rb") as file:
            named = f"{stem}.{format_of(file.read(HEAD), stored.content_type).suffix}"
        self._blobs.rename(self._options.bucket, key, named)
        return named

    def _object_key(self, result: str) -> str:
        """The key in an answer's `result`; the path of a presigned URL, which has the bucket in it, is accepted too."""
        return result.removeprefix("/").removeprefix("store/").removeprefix(f"{self._options.bucket}/")

    def _fail(self, task_id: str, msg: str) -> None:
        self._db.execute(
            "UPDATE tasks SET status = 'failed', ended_at = ?, msg = ? WHERE task_id = ?", (self._clock(), msg, task_id)
        )

    def _end_lease(self, lease: sqlite3.Row, ending: Ending) -> None:
        self._db.execute(
            "UPDATE leases SET ended_at = ?, ended = ? WHERE seq = ?", (self._clock(), ending, lease["seq"])
        )


def key_is_of(key: str, *, miner_id: str, task_id: str) -> bool:
    """Whether `key` has the form `<prefix>/<workflow>-<miner id>-<task id>.<format>`, with an optional prefix."""
    stem, dot, form = key.rpartition("/")[2].rpartition(".")
    workflow = stem.removesuffix(f"-{miner_id}-{task_id}")
    return bool(dot) and form.isalnum() and workflow not in ("", stem)


def _key(task_id: str, number: int | None, workflow_id: str) -> str:
    """One key per lease: a miner that lost a task cannot overwrite the next one's result."""
    public = PUBLIC_WORKFLOWS.get(workflow_id)
    return f"{task_id}-{number}.{public.format if public else UNKNOWN.suffix}"


def _id_of_type(task_type: str, workflow_ids: Sequence[str]) -> str:
    fitting = (w for w in workflow_ids if w in PUBLIC_WORKFLOWS and PUBLIC_WORKFLOWS[w].task_type == task_type)
    return next(fitting, workflow_ids[0])
