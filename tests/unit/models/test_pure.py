"""Without disk or network: the files of workflows, URLs, and range replies."""

from __future__ import annotations

import pytest
from requests.structures import CaseInsensitiveDict

from miner.config.bundled import WORKFLOWS
from miner.models.catalogue import ModelFile, files_of, unneeded
from miner.models.http_range import classify, range_headers, resume_at
from miner.models.loras import disposition_name, lora
from miner.models.partial_file import Origin
from miner.models.safetensors import header_flaw
from miner.models.source import HubFile, Source, hub_file, without_query
from miner.models.wanted import wanted
from miner.task.errors import ConfigError
from miner.workflows import Card, load_library

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
    shared = next(file for file in files if file.name == "t5xxl_fp8_e4m3fn_scaled.safetensors")
    assert shared.needed_by == ("flux-img2img", "flux-lora", "mochi-fp8")


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
    with pytest.raises(ConfigError, match=f"t5xxl_fp8_e4m3fn_scaled.safetensors: {key}: flux-lora says .*, mochi-fp8"):
        files_of([one, two])


FLUX = ("flux-lora", "flux-img2img")
WAN = ("wan22-5b", "wan22-5b-img2vid")


@pytest.mark.parametrize(
    ("memory", "names"),
    [
        (0, {"upscaler-lanczos"}),
        (8, {"upscaler", "upscaler-lanczos", *WAN}),
        (12, {*FLUX, "upscaler", "upscaler-lanczos", *WAN}),
        (24, {*FLUX, "hunyuan-fp8", "mochi-fp8", "upscaler", "upscaler-lanczos", *WAN}),
    ],
)
def test_only_workflows_that_fit_the_memory_are_chosen(memory, names):
    cards = [Card(memory=memory * 10**9)] if memory else []
    assert {one.workflow.name for one in wanted(LIBRARY.workflows, cards, pinned={}) if one.fits} == names


FAKE = {
    8: (("RTX 3070", (8, 6)), ("RTX 4060", (8, 9))),
    12: (("RTX 3060", (8, 6)), ("RTX 4070", (8, 9)), ("RTX 5070", (12, 0))),
    16: (("V100", (7, 0)), ("T4", (7, 5)), ("RTX 5080", (12, 0))),
    24: (("RTX 3090", (8, 6)), ("RTX 4090", (8, 9))),
    32: (("V100 32", (7, 0)), ("RTX 5090", (12, 0))),
    48: (("RTX 8000", (7, 5)), ("RTX A6000", (8, 6)), ("L40S", (8, 9))),
    80: (("A100", (8, 0)), ("H100", (9, 0)), ("B200", (10, 0))),
}
"""The memory of cards in GB, and their compute capabilities."""


def variants_for(gb: int, capability: tuple[int, int]) -> dict[str, str]:
    card = Card(memory=gb * 10**9, compute_capability=capability, torch_cuda=(13, 0), comfyui=(0, 33, 0))
    every = [one for one in wanted(LIBRARY.workflows, [card], pinned={}) if one.fits and one.workflow.variant]
    files = files_of(one.workflow for one in every)
    assert len({file.relative_path for file in files}) == len(files)
    total = round(sum(file.size or 0 for file in files) / 10**9)
    return {one.workflow.name: one.workflow.variant for one in every} | {"GB": str(total)}


SMALL = dict.fromkeys(WAN, "fp8")
VIDEOS = {"hunyuan-fp8": "fp8", "mochi-fp8": "fp8", **dict.fromkeys(WAN, "fp16")}


def test_each_card_wants_the_files_of_the_variants_that_it_will_render():
    found = {(gb, name): variants_for(gb, capability) for gb, cards in FAKE.items() for name, capability in cards}
    flux = {key: one.get("flux-lora", "") for key, one in found.items()}
    assert flux == {
        (8, "RTX 3070"): "",
        (8, "RTX 4060"): "",
        (12, "RTX 3060"): "fp8-cast",
        (12, "RTX 4070"): "fp8",
        (12, "RTX 5070"): "fp8",
        (16, "V100"): "fp8-cast",
        (16, "T4"): "fp8-cast",
        (16, "RTX 5080"): "fp8",
        (24, "RTX 3090"): "fp8-cast",
        (24, "RTX 4090"): "fp8",
        (32, "V100 32"): "fp8-cast",
        (32, "RTX 5090"): "fp8",
        (48, "RTX 8000"): "fp8-cast",
        (48, "RTX A6000"): "bf16",
        (48, "L40S"): "fp8",
        (80, "A100"): "bf16",
        (80, "H100"): "fp8",
        (80, "B200"): "fp8",
    }
    assert flux == {key: one.get("flux-img2img", "") for key, one in found.items()}
    others = {key: {name: v for name, v in one.items() if name not in (*FLUX, "GB")} for key, one in found.items()}
    for (gb, name), variants in others.items():
        expected = SMALL if gb < 12 else VIDEOS if gb >= 20 else dict.fromkeys(WAN, "fp16")
        assert variants == expected, name
    assert {key: one["GB"] for key, one in found.items() if key[1] in ("RTX 4060", "RTX 4070", "RTX 4090", "A100")} == {
        (8, "RTX 4060"): "18",
        (12, "RTX 4070"): "36",
        (24, "RTX 4090"): "70",
        (80, "A100"): "91",
    }


def test_two_cards_may_want_two_variants_and_a_pin_wants_its_own():
    flux = LIBRARY.get("flux-lora")
    small, large = (Card(memory=gb * 10**9, compute_capability=(8, 6)) for gb in (12, 48))
    two = wanted([flux], [small, large, large], pinned={})
    assert [(one.workflow.variant, len(one.cards)) for one in two] == [("fp8-cast", 1), ("bf16", 2)]
    assert [one.workflow.variant for one in wanted([flux], [Card(memory=10**9), large], pinned={})] == ["bf16"]
    (one,) = wanted([flux], [small, large], pinned={"flux-lora": ("from-bf16",)})
    assert (one.workflow.variant, one.fits, one.why) == ("from-bf16", True, "set in [workflows] variants")
    (none,) = wanted([flux], [], pinned={})
    assert (none.workflow.variant, none.fits) == ("fp8-cast", False)


def test_a_file_that_an_enabled_workflow_shares_is_needed():
    names = [file.name for file in unneeded(LIBRARY.workflows, [LIBRARY.get("mochi-fp8").variants[0]])]
    assert "flux1-dev.safetensors" in names
    assert "t5xxl_fp16.safetensors" in names
    assert "t5xxl_fp8_e4m3fn_scaled.safetensors" not in names


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
