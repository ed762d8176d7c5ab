from __future__ import annotations

import pytest

from miner.net.references import parse_reference
from miner.workflows.lora_names import Elsewhere, find_lora
from miner.workflows.parameters import LoraParameter, Refused

LISTED = (
    "Ink.safetensors",
    "caf\u00e9.safetensors",
    "Upper.SAFETENSORS",
    "sub/deep/x.safetensors",
    "x.safetensors.safetensors",
)
REFERENCE = "hf://org/repo/a.safetensors"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Ink", "Ink.safetensors"),
        ("Ink.safetensors", "Ink.safetensors"),
        ("Ink.SafeTensors", "Ink.safetensors"),
        ("Upper", "Upper.SAFETENSORS"),
        ("Upper.safetensors", "Upper.SAFETENSORS"),
        ("caf\u00e9", "caf\u00e9.safetensors"),
        ("cafe\u0301", "caf\u00e9.safetensors"),  # NFD, as macOS writes it
        ("cafe\u0301.safetensors", "caf\u00e9.safetensors"),
        ("sub/deep/x", "sub/deep/x.safetensors"),
        ("sub\\deep\\x.safetensors", "sub/deep/x.safetensors"),
        ("x.safetensors", "x.safetensors.safetensors"),
        ("x", None),  # a plain name never means one in a subfolder
        ("deep/x", None),
        ("../Ink", None),
        ("ink", None),  # two files may differ in case
        ("", None),
        (".safetensors", None),
    ],
)
def test_a_name_means_one_listed_lora_however_it_is_spelled(name: str, found: str | None) -> None:
    assert find_lora(name, LISTED) == found


def test_a_listed_name_in_nfd_is_found_and_given_as_it_is_listed() -> None:
    assert find_lora("caf\u00e9", ["cafe\u0301.safetensors"]) == "cafe\u0301.safetensors"
    both = ["caf\u00e9.safetensors", "cafe\u0301.safetensors"]
    assert [find_lora(name, both) for name in both] == both


@pytest.mark.parametrize(
    ("elsewhere", "loras", "picked"),
    [
        (Elsewhere(), LISTED, "is a reference, and this miner fetches no LoRAs; it must be one of Ink"),
        (Elsewhere(), (), "fetches no LoRAs; no LoRA is installed"),
        (Elsewhere(fetched=True), LISTED, REFERENCE),
        (Elsewhere(named={"KEY": "Ink.safetensors"}), LISTED, "Ink.safetensors"),
        (Elsewhere(named={"KEY": "Ink.safetensors"}), (), "fetches no LoRAs"),  # not pulled yet
        (Elsewhere(named={"KEY": "Ink.safetensors"}, fetched=True), (), REFERENCE),
    ],
)
def test_a_reference_is_the_named_lora_or_fetched_or_refused(
    elsewhere: Elsewhere, loras: tuple[str, ...], picked: str
) -> None:
    reference = parse_reference(REFERENCE)
    assert reference is not None
    named = dict.fromkeys([reference.key] if elsewhere.named else [], "Ink.safetensors")
    elsewhere = Elsewhere(named=named, fetched=elsewhere.fetched)
    parameter = LoraParameter(type="lora")
    if picked == REFERENCE or picked in loras:
        assert parameter.pick(REFERENCE, loras, elsewhere) == picked
    else:
        with pytest.raises(Refused, match=picked):
            parameter.pick(REFERENCE, loras, elsewhere)
