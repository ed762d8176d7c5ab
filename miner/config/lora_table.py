"""The table of LoRAs in `[loras]`: name → reference. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from miner.net.addresses import Refused
from miner.net.references import parse_reference

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+ -]{0,199}")
_NEXT = re.compile(r"\s*[,\n]\s*(?=[^,=\s][^,=]*=\s*(?:https?://|hf:|civitai:|urn:))")


def lora_references(table: Mapping[str, str]) -> Mapping[str, str]:
    """Check each name and reference. Raises ValueError, without the reference: its query may be a secret."""
    for name, text in table.items():
        if not NAME.fullmatch(name) or name.lower().endswith(".safetensors"):
            raise ValueError(f"has a LoRA named '{name[:80]}': use letters, digits, spaces and _.+-, and no suffix")
        try:
            reference = parse_reference(text)
        except Refused as refused:
            raise ValueError(f"names a wrong place for the LoRA {name}: {refused}") from None
        if reference is None:
            forms = "https://…, hf://org/repo/file.safetensors or civitai: and the number of a model version"
            raise ValueError(f"needs a place for the LoRA {name}: {forms}")
    return table


def is_reference(value: object) -> bool:
    """Whether a key of `[loras]` names a LoRA, rightly or wrongly, and is no misspelled setting."""
    try:
        return isinstance(value, str) and parse_reference(value) is not None
    except Refused:
        return True


def split_table(text: str) -> dict[str, str] | None:
    """`name=reference,name=reference` as a table; commas inside a URL are kept. None where it is none."""
    pairs = [part.partition("=") for part in _NEXT.split(text.strip(", ")) if part]
    if not pairs or not all(equals for _, equals, _ in pairs):
        return None
    return {name.strip(): reference.strip() for name, _, reference in pairs}
