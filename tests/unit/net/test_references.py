from __future__ import annotations

import pytest

from miner.net.addresses import Refused
from miner.net.references import parse_reference

HASH = "ab" * 32
HUB = "https://huggingface.co/org/repo/resolve"


@pytest.mark.parametrize(
    ("texts", "meaning"),
    [
        (
            ["hf://org/repo/a b.safetensors".replace(" ", "%20"), f"{HUB}/main/a%20b.safetensors?download=true",
             "hf://org/repo@main/a%20b.safetensors", "https://hf.co/org/repo/blob/main/a%20b.safetensors"],
            "hf://org/repo/a%20b.safetensors",
        ),
        ([f"{HUB}/refs%2Fpr%2F1/d/a.safetensors"], "hf://org/repo@refs%2Fpr%2F1/d/a.safetensors"),
        (
            ["civitai:691639", "civitai:618692@691639", "urn:air:flux1:lora:civitai:618692@691639",
             "https://civitai.com/models/618692?modelVersionId=691639", " civitai:691639\n",
             "https://civitai.com/models/618692/some-name?modelVersionId=691639",
             "https://civitai.com/api/download/models/691639?type=Model&format=SafeTensor"],
            "civitai:691639",
        ),
        ([f"civitai:691639#sha256={HASH}", f"civitai:691639#sha256:{HASH.upper()}"], f"civitai:691639#sha256={HASH}"),
        (["https://example.com/a?b=c"], "https://example.com/a?b=c"),
        (["https://example.com:8443/a.safetensors"], "https://example.com:8443/a.safetensors"),
    ],
)  # fmt: skip
def test_spellings_of_one_file_are_one_reference(texts: list[str], meaning: str) -> None:
    found = [parse_reference(text) for text in texts]
    assert {one.text for one in found if one is not None} == {meaning}
    assert len({one.key for one in found if one is not None}) == 1
    again = parse_reference(meaning)
    assert again is not None
    assert again.text == meaning


@pytest.mark.parametrize(
    "text", ["ink", "ink.safetensors", "sub/ink", "sub\\ink", "a: b", "", "civitai", "C:\\x", "../x"]
)
def test_a_plain_name_is_none(text: str) -> None:
    assert parse_reference(text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hf://org/repo/a.ckpt", "has to end in .safetensors"),
        ("hf://org/repo/../../a.safetensors", "must not contain .."),
        ("hf://org/..%2F..%2Fb/a.safetensors", "the reference must be hf://"),
        ("hf:org", "the reference must be hf://"),
        ("civitai:abc", "the reference must be"),
        ("https://civitai.com/models/618692", "several versions"),
        ("ftp://example.com/a", "the reference must be"),
        ("file:///etc/passwd", "the reference must be"),
        ("https://user:word@example.com/a", "not a plain http or https URL"),
        ("https://example.com/a b", "spaces"),
        ("https://example.com/a\x00", "control characters"),
        ("https://example.com/a#sha256=12", "only sha256= and 64"),
        ("https://example.com/" + "a" * 2048, "more than 2048 characters"),
    ],
)
def test_a_wrong_reference_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        parse_reference(text)


def test_what_is_shown_of_a_web_address_is_its_host() -> None:
    reference = parse_reference("https://example.com/secret/path?token=secret")
    assert reference is not None
    assert reference.shown == "https://example.com/…"
    assert "secret" not in repr(reference)
