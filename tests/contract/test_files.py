"""Uploads and views."""

from __future__ import annotations

import uuid

import pytest

from miner.comfy.client import ComfyClient
from miner.comfy.leftovers import Leftovers, folder_of
from miner.task.prompt_ids import new_prompt_id
from miner.task.stages import OutputFile

from .graphs import encoded, picture, prefix, simple
from .wire import Comfy


@pytest.fixture
def folder() -> str:
    """A subfolder of its own."""
    return f"contract-{uuid.uuid4().hex}/deep"


def test_what_is_uploaded_can_be_viewed(comfy: Comfy, folder: str) -> None:
    data = encoded(picture()) + b"\r\n--boundary-like\r\n\r\n\r\n"
    answer = comfy.post("/upload/image", files={"image": ("a.png", data)}, data={"subfolder": folder})
    assert answer.json() == {"name": "a.png", "subfolder": folder, "type": "input"}
    seen = comfy.view({"filename": "a.png", "subfolder": folder, "type": "input"})
    assert seen.content == data
    assert seen.headers["content-type"] == "image/png"


def test_another_image_of_the_same_name_gets_another_name(comfy: Comfy, folder: str) -> None:
    names = [comfy.upload("a.png", data, subfolder=folder) for data in (b"one", b"two", b"three")]
    assert names == [f"{folder}/a.png", f"{folder}/a (1).png", f"{folder}/a (2).png"]


def test_the_same_image_keeps_its_name(comfy: Comfy, folder: str) -> None:
    comfy.upload("a.png", b"one", subfolder=folder)
    comfy.upload("a.png", b"two", subfolder=folder)
    assert comfy.upload("a.png", b"one", subfolder=folder) == f"{folder}/a.png"
    assert comfy.upload("a.png", b"two", subfolder=folder) == f"{folder}/a (1).png"


@pytest.mark.parametrize("yes", ["true", "1"])
def test_overwriting_keeps_the_name(comfy: Comfy, folder: str, yes: str) -> None:
    comfy.upload("a.png", b"one", subfolder=folder)
    assert comfy.upload("a.png", b"two", subfolder=folder, overwrite=yes) == f"{folder}/a.png"
    assert comfy.view({"filename": "a.png", "subfolder": folder, "type": "input"}).content == b"two"


def test_an_upload_can_go_to_the_temporary_folder(comfy: Comfy, folder: str) -> None:
    comfy.upload("ü 1.png", b"here", subfolder=folder, type="temp")
    assert comfy.view({"filename": "ü 1.png", "subfolder": folder, "type": "temp"}).content == b"here"
    assert comfy.view({"filename": "ü 1.png [temp]", "subfolder": folder, "type": "input"}).content == b"here"


@pytest.mark.parametrize(("name", "subfolder"), [("../a.png", ""), ("a.png", "../.."), ("../../a.png", "sub")])
def test_an_upload_cannot_leave_its_folder(comfy: Comfy, name: str, subfolder: str) -> None:
    answer = comfy.post("/upload/image", files={"image": (name, b"x")}, data={"subfolder": subfolder})
    assert answer.status_code == 400


def test_an_upload_without_an_image_is_refused(comfy: Comfy) -> None:
    assert comfy.post("/upload/image", files={"other": ("a.png", b"x")}).status_code == 400
    assert comfy.post("/upload/image").status_code == 400


def test_an_upload_to_an_unknown_folder_is_an_error_of_the_server(comfy: Comfy) -> None:
    answer = comfy.post("/upload/image", files={"image": ("a.png", b"x")}, data={"type": "nosuch"})
    assert answer.status_code == 500


def test_a_body_beyond_the_limit_is_refused(comfy: Comfy) -> None:
    limit = comfy.get("/features").json()["max_upload_size"]
    answer = comfy.post("/upload/image", files={"image": ("a.png", bytes(limit + 1))})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 404),
        ("filename=", 400),
        ("filename=nosuch.png&type=output", 404),
        ("filename=../../main.py&type=output", 400),
        ("filename=/etc/passwd", 400),
        ("filename=a.png&type=nosuch", 400),
        ("filename=a.png&type=output&subfolder=../..", 403),
    ],
)
def test_a_view_that_cannot_be_is_refused(comfy: Comfy, query: str, status: int) -> None:
    assert comfy.get(f"/view?{query}").status_code == status


def test_a_view_is_of_the_output_folder_unless_told_otherwise(comfy: Comfy) -> None:
    (file,) = comfy.run(simple(filename_prefix=prefix())).files
    del file["type"]
    assert comfy.view(file).status_code == 200
    assert comfy.view(file).headers["content-disposition"] == f'filename="{file["filename"]}"'


def test_what_a_browser_would_run_is_sent_as_bytes(comfy: Comfy, folder: str) -> None:
    comfy.upload("a.html", b"<script>alert(1)</script>", subfolder=folder)
    seen = comfy.view({"filename": "a.html", "subfolder": folder, "type": "input"})
    assert seen.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Origin": "http://evil.example:80"}])
def test_a_page_of_elsewhere_cannot_ask(comfy: Comfy, headers: dict[str, str]) -> None:
    assert comfy.get("/prompt", headers=headers).status_code == 403


def test_a_page_of_its_own_can_ask(comfy: Comfy) -> None:
    assert comfy.get("/prompt", headers={"Origin": comfy.url}).status_code == 200


def test_what_a_prompt_leaves_can_be_made_empty_and_forgotten(comfy: Comfy) -> None:
    """There is no request that deletes a file; an upload to its name replaces it, whatever its folder."""
    client = ComfyClient(comfy.url, client_id="leftovers")
    prompt_id = new_prompt_id("contract")
    loaded = comfy.upload("in.png", encoded(picture()), subfolder=folder_of(prompt_id), overwrite="true")
    graph = simple()
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": loaded}}
    graph["2"]["inputs"]["filename_prefix"] = f"{folder_of(prompt_id)}/out"
    graph["3"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    made = comfy.run(graph, prompt_id=prompt_id).files
    files = [*made, {"filename": "in.png", "subfolder": folder_of(prompt_id), "type": "input"}]
    assert {file["type"] for file in files} == {"input", "output", "temp"}
    assert all(comfy.view(file).content for file in files)
    leftovers = Leftovers(client, folders={}, ours=False)
    assert leftovers.erase(prompt_id, (), ended=False, reachable=True) == leftovers.forget([prompt_id, "other"]) == ""
    assert [comfy.view(file).content for file in files] == [b""] * len(files)
    assert comfy.history(prompt_id) is None
    gone = OutputFile(filename="none.png", subfolder=folder_of(prompt_id), kind="output")
    assert leftovers.erase(prompt_id, [gone], ended=False, reachable=True) == ""
    assert not client.has(gone)  # what is not there is not made
    client.close()
