"""Without disk or network: the files of workflows, URLs, and range replies."""

from __future__ import annotations

import pytest
from requests.structures import CaseInsensitiveDict

from miner.config.bundled import WORKFLOWS
from miner.models.catalogue import ModelFile, files_of, fitting, unneeded
from miner.models.http_range import classify, range_headers, resume_at
from miner.models.loras import disposition_name, lora
from miner.models.partial_file import Origin
from miner.models.safetensors import header_flaw
from miner.models.source import HubFile, Source, hub_file, without_query
from miner.task.errors import ConfigError
from miner.workflows import load_library

LIBRARY = load_library([WORKFLOWS], ids={})
HERE = Source(url="http://h/x?k=1", display_url="http://h/x")
FILE = ModelFile(folder="vae", name="x.pth", url="http://h/x")
TAGGED = Origin(url="http://h/x", validator='"one"')
NAMED = Origin(url="elsewhere", identity="abc")


# ---- what workflows need ----------------------------------------------------------------------------------------


def test_a_file_that_several_workflows_need_is_one_file():
    files = files_of(LIBRARY.workflows)
    places = [file.relative_path for file in files]
    assert len(places) == len(set(places))
    shared = next(file for file in files if file.name == "t5xxl_fp16.safetensors")
    assert shared.needed_by == ("flux-lora", "mochi-fp8")


def test_every_file_of_the_bundled_workflows_has_its_size_and_a_licence():
    assert all(file.size and file.licence for file in files_of(LIBRARY.workflows))


@pytest.mark.parametrize("key", ["size", "sha256"])
def test_manifests_that_contradict_each_other_are_an_error_that_names_both(key):
    one, two = LIBRARY.get("flux-lora"), LIBRARY.get("mochi-fp8")
    changed = [
        model.model_copy(update={"size": 7, "sha256": "0" * 64} if model.name.startswith("t5xxl") else {})
        for model in two.manifest.models
    ]
    if key == "sha256":
        changed = [model.model_copy(update={"size": None}) for model in changed]
    two = type(two)(manifest=two.manifest.model_copy(update={"models": tuple(changed)}), graph=two.graph)
    with pytest.raises(ConfigError, match=f"t5xxl_fp16.safetensors: {key}: flux-lora says .*, mochi-fp8"):
        files_of([one, two])


@pytest.mark.parametrize(
    ("memory", "names"),
    [
        (0, ["upscaler-lanczos"]),
        (8 * 10**9, ["upscaler", "upscaler-lanczos", "wan22-5b"]),
        (24 * 10**9, ["flux-lora", "hunyuan-fp8", "mochi-fp8", "upscaler", "upscaler-lanczos", "wan22-5b"]),
    ],
)
def test_only_workflows_that_fit_the_memory_are_chosen(memory, names):
    assert [workflow.name for workflow in fitting(LIBRARY.workflows, memory=memory)] == names


def test_a_file_that_an_enabled_workflow_shares_is_needed():
    names = [file.name for file in unneeded(LIBRARY.workflows, ["mochi-fp8"])]
    assert "flux1-dev.safetensors" in names
    assert "t5xxl_fp16.safetensors" not in names


# ---- addresses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "file"),
    [
        ("https://huggingface.co/o/r/resolve/main/a/b.safetensors", ("o/r", "main", "a/b.safetensors")),
        ("https://huggingface.co/o/r/blob/v1/b.safetensors?download=true", ("o/r", "v1", "b.safetensors")),
        ("https://hf.co/o/r/resolve/refs%2Fpr%2F1/b%20c.sft", ("o/r", "refs/pr/1", "b c.sft")),
        ("hf://o/r.x/b.safetensors", ("o/r.x", "main", "b.safetensors")),
        ("hf://o/r@v2/a/b.safetensors", ("o/r", "v2", "a/b.safetensors")),
        ("https://huggingface.co/datasets/o/r/resolve/main/b", None),
        ("https://huggingface.co/o/r", None),
        ("https://example.org/o/r/resolve/main/b", None),
        ("hf://o/r", None),
    ],
)
def test_a_url_is_hugging_faces_or_plain(url, file):
    assert hub_file(url) == (HubFile(repo=file[0], revision=file[1], path=file[2]) if file else None)


def test_a_displayed_url_has_no_secret():
    assert without_query("https://me:pw@h:1/x?token=s#f") == "https://h:1/x"


@pytest.mark.parametrize(
    ("source", "name", "becomes"),
    [
        ("https://h/a/my lora.safetensors", "", "my_lora.safetensors"),
        ("https://h/../.x.SAFETENSORS", "", "x.safetensors"),
        ("h/a.safetensors", "", "a.safetensors"),
        ("hf://o/r/sub/a.safetensors", "", "a.safetensors"),
        ("https://h/42?type=Model", "style", "style.safetensors"),
        ("https://h/a.safetensors", "b.safetensors", "b.safetensors"),
    ],
)
def test_a_lora_is_named_by_its_url_or_on_request(source, name, becomes):
    file = lora(source, name=name)
    assert file.relative_path == f"loras/{becomes}"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("hf://o/r/a.ckpt", ""),
        ("https://h/a.safetensors", "../b"),
        ("https://h/a.safetensors", "a/b"),
        ("https://h/a.safetensors", "x" * 300),
    ],
)
def test_what_is_not_a_lora_is_refused_before_any_request(source, name):
    with pytest.raises(ConfigError, match="safetensors"):
        lora(source, name=name)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('attachment; filename="a b.safetensors"', "a_b.safetensors"),
        ("attachment; filename*=UTF-8''%C3%BCber.safetensors", "ber.safetensors"),
        ('attachment; filename="../../etc/x.safetensors"', "x.safetensors"),
        ('attachment; filename="..\\\\x.safetensors"', "x.safetensors"),
        ('attachment; filename="x.ckpt"', ""),
        ("attachment", ""),
    ],
)
def test_a_servers_file_name_is_sanitized(header, name):
    assert disposition_name(header) == name


# ---- answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "origin", "source", "file", "start"),
    [
        (5, None, HERE, FILE, 0),
        (5, TAGGED, HERE, FILE, 5),
        (5, Origin(url="http://other/x", validator='"one"'), HERE, FILE, 0),
        (5, Origin(url="http://h/x"), HERE, FILE, 0),
        (5, Origin(url="http://h/x"), HERE, ModelFile(folder="vae", name="x", url="", sha256="a"), 5),
        (9, TAGGED, HERE, ModelFile(folder="vae", name="x", url="", size=8), 0),
        (5, NAMED, Source(url="u", display_url="p", identity="abc"), FILE, 5),
        (5, NAMED, Source(url="u", display_url="p", identity="def"), FILE, 0),
        (5, NAMED, HERE, FILE, 0),
        (5, TAGGED, Source(url="u", display_url="http://h/x", identity="abc"), FILE, 0),
    ],
)
def test_bytes_are_kept_only_if_a_change_would_be_noticed(length, origin, source, file, start):
    assert resume_at(length, origin, source, file) == start


@pytest.mark.parametrize(
    ("start", "origin", "headers"),
    [
        (0, TAGGED, {}),
        (7, TAGGED, {"Range": "bytes=7-", "If-Range": '"one"'}),
        (7, NAMED, {"Range": "bytes=7-"}),
        (7, Origin(url="u"), {"Range": "bytes=7-"}),
    ],
)
def test_a_range_is_requested_on_the_condition_that_nothing_changed(start, origin, headers):
    assert range_headers(start, origin) == headers


@pytest.mark.parametrize(
    ("status", "headers", "start", "verdict"),
    [
        (200, {}, 0, "whole"),
        (200, {}, 7, "whole"),
        (206, {"Content-Range": "bytes 7-9/10"}, 7, "rest"),
        (206, {"Content-Range": "bytes 7-9/*", "ETag": '"one"'}, 7, "rest"),
        (206, {"Content-Range": "bytes 7-9/10", "ETag": '"two"'}, 7, "changed"),
        (206, {"Content-Range": "bytes 6-9/10"}, 7, "changed"),
        (206, {}, 7, "changed"),
        (206, {"Content-Range": "bytes 0-9/10"}, 0, "refused"),
        (416, {"Content-Range": "bytes */7"}, 7, "complete"),
        (416, {"Content-Range": "bytes */6"}, 7, "changed"),
        (416, {}, 7, "changed"),
        (416, {}, 0, "refused"),
        (200, {"Content-Encoding": "gzip"}, 0, "refused"),
        (204, {}, 7, "refused"),
        (404, {}, 7, "refused"),
    ],
)
def test_a_reply_is_classified(status, headers, start, verdict):
    assert classify(status, CaseInsensitiveDict(headers), start=start, origin=TAGGED) == verdict


# ---- safetensors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        b"null",
        b"[]",
        b"3",
        b"\xff",
        b'{"a": null}',
        b'{"a": {"dtype": "U8", "data_offsets": [1]}}',
        b'{"a": {"dtype": "U8", "data_offsets": [0, "1"]}}',
        b'{"a": {"dtype": "U8", "data_offsets": {"0": 1}}}',
        b"[" * 100_000,
    ],
)
def test_an_invalid_header_never_raises(header):
    assert "invalid header" in header_flaw(header, data=1)
