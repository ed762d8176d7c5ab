"""Who may talk to a devnet."""

from __future__ import annotations

import pytest

from miner.devnet.errors import DevnetError
from miner.devnet.options import DevnetOptions
from tests.unit.devnet.conftest import Start
from tests.unit.devnet.talk import Talk, creation

TOKEN = "a-token"


@pytest.mark.parametrize("host", ["evil.example:80", "localhost.evil", "127.0.0.1.evil", "", "0.0.0.0", "[::1"])
def test_another_name_than_this_machines_is_refused(talk: Talk, host: str) -> None:
    reply = talk.session.get(f"{talk.devnet.url}/_devnet/stats", headers={"Host": host}, timeout=5)
    assert (reply.status_code, "Host" in reply.json()["message"]) == (403, True)


@pytest.mark.parametrize("host", ["LOCALHOST", "localhost:1", "127.0.0.1", "[::1]", "[::1]:8080", "127.1.2.3"])
def test_every_name_of_loopback_is_taken(talk: Talk, host: str) -> None:
    assert talk.session.get(f"{talk.devnet.url}/_devnet/stats", headers={"Host": host}, timeout=5).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [("https://evil.example", 403), ("null", 403), ("http://127.0.0.1:3000", 200), ("http://localhost", 200)],
)
def test_a_page_of_another_origin_is_refused(talk: Talk, origin: str, status: int) -> None:
    reply = talk.session.get(f"{talk.devnet.url}/_devnet/stats", headers={"Origin": origin}, timeout=5)
    assert reply.status_code == status


def test_with_a_token_only_its_bearer_leases_and_controls(start: Start) -> None:
    talk = start(host="0.0.0.0", token=TOKEN)
    for path in ("_devnet/reset", "miner_request", "miner_submit", "nothing"):
        assert talk.post(path, {}).status_code == 401
    assert talk.session.put(f"{talk.devnet.url}/inputs/a", data=b"x", timeout=5).status_code == 401
    assert talk.post("task_create", creation()).status_code == 401

    talk.session.headers["Authorization"] = f"Bearer {TOKEN}"
    task_id = talk.create(api_key=TOKEN)
    assert talk.lease()["task_id"] == task_id
    assert talk.query(task_id, TOKEN)["status"] == "running"


def test_with_a_token_the_names_are_the_operators(start: Start) -> None:
    talk = start(host="0.0.0.0", token=TOKEN)
    headers = {"Host": "gpu-box.lan", "Authorization": f"Bearer {TOKEN}"}
    assert talk.session.get(f"{talk.devnet.url}/_devnet/stats", headers=headers, timeout=5).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.com", "localhost.evil", ""])
def test_beyond_loopback_a_token_is_needed(host: str) -> None:
    with pytest.raises(DevnetError, match="no token") as refused:
        DevnetOptions(host=host)
    assert refused.value.hint
    assert DevnetOptions(host=host, token=TOKEN).host == host


@pytest.mark.parametrize("host", ["LOCALHOST", "127.1.2.3", "[::1]"])
def test_on_loopback_none_is_needed(host: str) -> None:
    assert DevnetOptions(host=host).token == ""


def test_the_token_is_not_shown() -> None:
    assert TOKEN not in repr(DevnetOptions(token=TOKEN))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("port", 65536),
        ("leases", 0),
        ("lease_ttl", 0),
        ("task_timeout", 0),
        ("max_wait", -1),
        ("upload_ttl", 0),
        ("bucket", "a/b"),
        ("on_silence", "shrug"),
        ("details", "yaml"),
        ("nothing", "404"),
        ("target", "ftp"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(DevnetError, match=option):
        DevnetOptions(**{option: value})  # type: ignore[arg-type]  # the point of it
