"""Where the key and the URL come from, and how a combined key is split."""

from __future__ import annotations

from pathlib import Path

import pytest

from miner.sdk import ConfigurationError, UpscalerTask, Workflow
from miner.sdk.settings import split_key

from .stub import Stub

TASK = UpscalerTask(image_url="https://a.example/b.jpg")


def consumer_of(stub: Stub, **settings: str | None) -> tuple[str, str]:
    """The consumer id and the key that arrive at the stub."""
    stub.answer("/task_create", {"task_id": "t1"})
    with Workflow(**settings) as workflow:  # type: ignore[arg-type]
        workflow.create_task(TASK)
    body = stub.sent("/task_create")[-1]
    return body["consumer_id"], body["api_key"]


@pytest.mark.parametrize(
    ("combined", "consumer_id", "api_key"),
    [
        ("me#secret", "me", "secret"),
        ("me-secret", "me", "secret"),
        ("me#se#cret", "me", "se"),
        ("me-se-cret", "me", "se"),
        ("my-name#se-cret", "my-name", "se-cret"),
        (" me#secret\n", "me", "secret"),
    ],
)
def test_a_combined_key_has_two_parts_at_the_hash_or_else_at_the_dash(
    combined: str, consumer_id: str, api_key: str
) -> None:
    credentials = split_key(combined)

    assert (credentials.consumer_id, credentials.api_key) == (consumer_id, api_key)


@pytest.mark.parametrize("combined", ["s3cret", "#s3cret", "s3cret#", "-s3cret"])
def test_half_a_key_is_refused_without_being_repeated(combined: str) -> None:
    with pytest.raises(ConfigurationError, match="XALORA_API_KEY") as caught:
        split_key(combined)

    assert "s3cret" not in caught.value.message


def test_an_argument_beats_the_environment_which_beats_the_file(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(f"XALORA_API_KEY=file#1\nXALORA_WORKFLOW_URL={stub.url}/\n")
    assert consumer_of(stub) == ("file", "1")

    monkeypatch.setenv("XALORA_API_KEY", "environment#2")
    assert consumer_of(stub) == ("environment", "2")

    assert consumer_of(stub, api_key="argument#3") == ("argument", "3")


def test_the_networks_former_names_count_where_the_present_ones_are_not_set(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(f"HEURIST_API_KEY=file#1\nHEURIST_WORKFLOW_URL={stub.url}\n")
    assert consumer_of(stub) == ("file", "1")

    monkeypatch.setenv("HEURIST_API_KEY", "former#2")
    assert consumer_of(stub) == ("former", "2")

    monkeypatch.setenv("XALORA_API_KEY", "present#3")
    assert consumer_of(stub) == ("present", "3")


def test_an_empty_variable_is_no_variable(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("XALORA_API_KEY='file#1'\n")
    monkeypatch.setenv("XALORA_API_KEY", "")

    assert consumer_of(stub, workflow_url=stub.url) == ("file", "1")


def test_no_file_is_read_where_none_is_wanted(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("XALORA_API_KEY=file#1\n")

    with Workflow(env_file=None) as workflow, pytest.raises(ConfigurationError, match="XALORA_API_KEY"):
        workflow.create_task(TASK)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigurationError, match=r"\.env cannot be read"):
        Workflow()


@pytest.mark.parametrize(
    "url", ["sequencer.example", "ftp://a.example", "http://", "http://a.example:port", "http://["]
)
def test_a_url_that_cannot_be_used_is_named(url: str) -> None:
    with pytest.raises(ConfigurationError, match="XALORA_WORKFLOW_URL"):
        Workflow(workflow_url=url)


def test_the_public_sequencer_is_the_default() -> None:
    with Workflow() as workflow:
        assert workflow.workflow_url == "https://sequencer-v2.xalora.xyz"
