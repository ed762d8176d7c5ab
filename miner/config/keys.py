"""For every key: its names, its type in words, parsing and display. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from miner.config.address import mask_url
from miner.config.lora_table import split_table
from miner.config.settings import Section, Settings


def _fields() -> Iterator[tuple[str, FieldInfo]]:
    for section, info in Settings.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from ((f"{section}.{name}", field) for name, field in info.annotation.model_fields.items())


FIELDS: Mapping[str, FieldInfo] = MappingProxyType(dict(_fields()))
"""Every key, `section.name`, in the order of config.toml."""

EVERYDAY: Mapping[str, str] = MappingProxyType(
    {
        "XALORA_API_KEY": "sequencer.api_key",
        "XALORA_LORAS": "loras.files",
        "XALORA_WORKFLOW_URL": "sequencer.url",
        "XALORA_WORKFLOWS": "workflows.enabled",
    }
)
"""Short names of environment variables."""

VARIABLES: Mapping[str, str] = MappingProxyType(
    {**EVERYDAY, **{f"XALORA_{key.replace('.', '_').upper()}": key for key in FIELDS}}
)
"""Environment variable → key; short names first."""

_YES_NO = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def flag(key: str) -> str:
    """The key's command-line flag, from its shortest variable: `--workflow-url`, `--miner-id`."""
    variable = next((name for name, known in VARIABLES.items() if known == key), key)
    return "--" + variable.removeprefix("XALORA_").replace(".", "-").replace("_", "-").lower()


def titled(key: str) -> str:
    """The key as in config.toml: `[section] name`."""
    section, _, name = key.rpartition(".")
    return f"[{section}] {name}" if section else name


def closest(name: str, names: Iterable[str]) -> str:
    """The closest match in `names`, or an empty string."""
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.7)), "")


def closest_key(key: str) -> str:
    """Suggested keys, in words: those of that name in other sections, else the closest match."""
    name = key.rpartition(".")[2]
    elsewhere = [known for known in FIELDS if known.rpartition(".")[2] == name]
    return " or ".join(titled(known) for known in elsewhere or [closest(key, FIELDS)])


def is_secret(key: str) -> bool:
    """Whether to mask the key's value."""
    return _mentions(FIELDS[key].annotation, SecretStr)


def expected(key: str) -> str:
    """The key's type, to follow "must be"."""
    field = FIELDS[key]
    kind = field.annotation
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return f"a {'whole ' if kind is int else ''}number{_bounds(field)}"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if key == "loras.files":
        return "a table of names and references, or name=reference,… in the environment"
    if get_origin(kind) is Mapping:
        return 'a table of name lists, such as { 4 = ["upscaler"] }, or 4=upscaler in the environment'
    noun = "list of strings" if get_origin(kind) is tuple else "path" if _mentions(kind, Path) else "string"
    return f"a non-empty {noun}" if _limit(field, "min_length") is not None else f"a {noun}"


def typed(key: str, text: str) -> object:
    """Parse text from outside config.toml; return it unchanged if it is not of the key's type.

    Lists are comma-separated. The table `workflows.ids` is `id=name,id=name`; repeat an id for several names, the
    preferred one first.
    """
    kind = FIELDS[key].annotation
    if kind is bool:
        return _YES_NO.get(text.lower(), text)
    if kind is int or kind is float:
        try:
            return kind(text)
        except ValueError:
            return text
    if key == "loras.files":
        return split_table(text) or text
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if get_origin(kind) is tuple:
        return parts
    if get_origin(kind) is Mapping and all("=" in part for part in parts):
        return _table(parts)
    return text


def located(key: str, value: object, *, base: Path, home: Path | None) -> object:
    """The value with absolute paths: `~` is `home`, relative ones start at `base`."""
    if isinstance(value, list | tuple):
        return tuple(located(key, item, base=base, home=home) for item in value)
    if not isinstance(value, str | Path) or not str(value) or not _mentions(FIELDS[key].annotation, Path):
        return value
    path = Path(value)
    if home and path.parts[0] == "~":
        path = home.joinpath(*path.parts[1:])
    return path if path.parts[0] == "~" else base / path


def shown(key: str, value: object) -> str:
    """The value for display: secrets masked, lists comma-separated, `-` if unset."""
    if value is None or value in ("", (), {}):
        return "-"
    if is_secret(key):
        return "********"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(mask_url(str(item)) for item in value)
    if key == "loras.files" and isinstance(value, Mapping):
        return ", ".join(f"{name}={mask_url(place)}" for name, place in value.items())
    if isinstance(value, Mapping):
        return ", ".join(f"{id_}={name}" for id_, names in value.items() for name in names)
    return mask_url(str(value))


def _table(parts: Iterable[str]) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for part in parts:
        id_, _, name = part.partition("=")
        table.setdefault(id_.strip(), []).append(name.strip())
    return table


def _mentions(annotation: object, wanted: object) -> bool:
    return annotation is wanted or any(_mentions(part, wanted) for part in get_args(annotation))


def _bounds(field: FieldInfo) -> str:
    low, high, above = (_limit(field, name) for name in ("ge", "le", "gt"))
    if above is not None:
        return f" greater than {above}"
    if high is not None:
        return f" from {low} to {high}"
    return "" if low is None else f" of at least {low}"


def _limit(field: FieldInfo, name: str) -> object:
    """A limit that a `Field` was given, by its argument's name (pydantic keeps each in an object of its own)."""
    return next((getattr(limit, name) for limit in field.metadata if hasattr(limit, name)), None)
