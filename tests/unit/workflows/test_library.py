"""Which workflow serves which id, and the error without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from miner.task.errors import ConfigError, JobFault
from miner.task.stages import Lease
from miner.workflows import Library
from tests.support.sample_workflow import MANIFEST, load, write

NO_ID = MANIFEST.replace('id = "7"', 'id = ""')


def lease(workflow_id: str, task_type: str = "txt2img", **parameters: Any) -> Lease:
    return Lease(
        task_id="t",
        task_type=task_type,
        workflow_id=workflow_id,
        parameters=parameters,
        target=None,
        timeout_seconds=None,
        leased_at=0.0,
    )


def four(folder: Path, **ids: list[str]) -> Library:
    write(folder, name="first")
    write(folder, name="second")
    write(folder, NO_ID, name="third")
    write(folder, NO_ID.replace("txt2img", "upscaler"), name="scaler")
    return load(folder, **ids)


def test_manifests_say_which_ids_they_answer_to(tmp_path: Path) -> None:
    library = four(tmp_path)
    assert library.ids == {"7": ("first", "second")}
    assert library.ids_of(["first", "third"]) == ("7",)
    assert library.ids_of(["third", "scaler"]) == ()


def test_config_maps_ids_before_manifests_do_and_in_its_own_order(tmp_path: Path) -> None:
    library = four(tmp_path, **{"7": ["third", "first"], "x": ["scaler"]})
    assert library.choose(lease("7"), ["first", "second", "third"]).name == "third"
    assert library.choose(lease("7"), ["first", "second"]).name == "first"
    assert library.choose(lease("x", "upscaler"), ["scaler"]).name == "scaler"
    assert library.ids_of(["scaler", "first"]) == ("7", "x")
    with pytest.raises(JobFault):
        library.choose(lease("7"), ["second"])


def test_config_can_take_an_id_away(tmp_path: Path) -> None:
    library = four(tmp_path, **{"7": []})
    assert library.ids_of(["first"]) == ()
    with pytest.raises(JobFault, match="unknown workflow_id"):
        library.choose(lease("7"), ["first"])


def test_config_that_maps_an_id_to_nonsense_is_named(tmp_path: Path) -> None:
    four(tmp_path)
    with pytest.raises(ConfigError, match=r"workflows\.ids\.9: unknown workflow 'fourth'"):
        load(tmp_path, **{"9": ["fourth"]})
    with pytest.raises(ConfigError, match=r"workflows\.ids\.9: first, scaler have different task types"):
        load(tmp_path, **{"9": ["first", "scaler"]})


def test_an_unknown_name_is_a_config_error_that_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown workflow 'zeroth'; available: first, scaler, second, third"):
        four(tmp_path).get("zeroth")


@pytest.mark.parametrize(
    ("workflow_id", "task_type", "runnable", "reason"),
    [
        ("8", "txt2img", ["first"], "unknown workflow_id: '8'"),
        ("", "txt2img", ["first"], "unknown workflow_id: ''"),
        ("9" * 500, "txt2img", ["first"], "unknown workflow_id"),
        ("7", "upscaler", ["first"], "task_type is 'upscaler'; workflow_id '7' requires txt2img"),
        ("7", "\x1b[2J\n" * 50, ["first"], "requires txt2img"),
        ("7", "txt2img", ["third"], "this miner cannot run workflow_id '7' now; please create it again"),
        ("7", "txt2img", [], "this miner cannot run workflow_id '7' now; please create it again"),
    ],
)
def test_a_lease_without_a_workflow_is_told_why(
    tmp_path: Path, workflow_id: str, task_type: str, runnable: list[str], reason: str
) -> None:
    with pytest.raises(JobFault) as caught:
        four(tmp_path).choose(lease(workflow_id, task_type), runnable)
    assert reason in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200
