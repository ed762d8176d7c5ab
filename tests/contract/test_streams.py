"""The websocket: who is told what, and what is lost."""

from __future__ import annotations

from .graphs import empty, long, node, simple
from .test_endings import start, stop
from .wire import Comfy, Event, Stream


def status(stream: Stream) -> int:
    """The next event, which has to be a status: how many prompts wait or run."""
    event = stream.next()
    assert isinstance(event, Event)
    return event.remaining


def test_the_first_message_is_the_state_of_the_queue_and_the_clients_own_name(comfy: Comfy) -> None:
    with comfy.stream("my-name") as stream:
        assert stream.seen == [Event("status", {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "my-name"})]


def test_a_client_without_a_name_is_given_one(comfy: Comfy) -> None:
    with comfy.stream("") as stream:
        (first,) = stream.seen
        assert isinstance(first, Event)
        assert len(first.data["sid"]) == 32


def test_a_prompt_is_told_to_its_own_client_only(comfy: Comfy) -> None:
    with comfy.stream() as bystander:
        comfy.run(simple())
        assert bystander.is_silent()


def test_everyone_is_told_how_long_the_queue_is(comfy: Comfy) -> None:
    with comfy.stream() as bystander:
        comfy.wait(comfy.submit(simple(), client_id="someone"))
        counts = [status(bystander) for _ in range(3)]
    assert counts == [1, 1, 0]


def test_one_who_comes_back_in_mid_run_is_told_where_it_is(comfy: Comfy) -> None:
    with comfy.stream() as stream:
        prompt_id = start(comfy, stream)
        client = stream.client
    with comfy.stream(client) as stream:
        again = stream.next()
        assert isinstance(again, Event)
        assert (again.type, set(again.data)) == ("executing", {"node"})  # no prompt_id, and nothing that was missed
        assert again.data["node"] is not None
        stop(comfy, prompt_id)
        events = stream.until_done(prompt_id)
    assert "execution_start" not in [event.outline for event in events]
    assert [event.outline for event in events[-2:]] == ["execution_interrupted", "executing None"]


def test_one_who_comes_back_too_late_is_told_nothing(comfy: Comfy) -> None:
    with comfy.stream() as stream:
        client = stream.client
    comfy.wait(comfy.submit(simple(), client_id=client))
    comfy.idle()
    with comfy.stream(client) as stream:
        assert stream.is_silent()


def test_the_end_of_an_older_connection_takes_the_newer_one_with_it(comfy: Comfy) -> None:
    with comfy.stream() as older, comfy.stream(older.client) as newer:
        newer.until_done(comfy.submit(simple(), client_id=older.client))
        assert older.is_silent()
        older.close()
        comfy.wait(comfy.submit(simple(), client_id=newer.client))
        assert newer.is_silent()


def test_flags_are_answered_with_flags(comfy: Comfy) -> None:
    with comfy.stream(flags={"supports_preview_metadata": True}) as stream:
        answer = stream.seen[-1]
    assert isinstance(answer, Event)
    assert answer.type == "feature_flags"
    assert answer.data["supports_preview_metadata"] is True
    assert answer.data["max_upload_size"] > 0
    assert answer.data == comfy.get("/features").json()


def test_only_the_first_message_negotiates(comfy: Comfy) -> None:
    with comfy.stream() as stream:
        stream.send({"type": "something else"})
        stream.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        stream.send("no object")
        assert stream.is_silent()


def test_two_clients_each_hear_their_own(comfy: Comfy) -> None:
    with comfy.stream() as one, comfy.stream() as other:
        first = comfy.submit(simple(), client_id=one.client)
        second = comfy.submit(simple(), client_id=other.client)
        one.until_done(first)
        other.until_done(second)
        assert second not in str(one.seen)
        assert first not in str(other.seen)


def test_http_answers_while_a_node_runs(comfy: Comfy) -> None:
    with comfy.stream() as stream:
        prompt_id = comfy.submit(long(), client_id=stream.client)
        stream.until_outline("executing 2")
        assert comfy.get("/system_stats").status_code == 200
        assert comfy.get("/prompt").json()["exec_info"]["queue_remaining"] == 1
        stop(comfy, prompt_id)


def test_everyone_waits_for_a_slow_reader(comfy: Comfy) -> None:
    name = "n" * 1_000_000  # in every event, several times: more than the sockets' buffers hold
    graph = {name: empty(), "2": node("PreviewImage", images=[name, 0])}
    with comfy.stream() as slow, comfy.stream() as other:
        prompt_id = comfy.submit(graph, client_id=slow.client)
        comfy.wait(prompt_id)  # it is done, and everyone should be told that the queue is empty
        assert [status(other) for _ in range(2)] == [1, 1]
        assert other.is_silent(statuses=False)
        slow.until_done(prompt_id)
        assert status(other) == 0
