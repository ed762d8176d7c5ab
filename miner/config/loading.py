"""Merges the sources of settings, and reports each problem in one line.

Flags override the environment, then systemd credentials, .env, config.toml and the defaults, key by key.
"""

from __future__ import annotations

import os
import stat
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError

from miner.config.address import quoted
from miner.config.keys import FIELDS, expected, is_secret, located, shown, titled
from miner.config.settings import Settings
from miner.config.sources import (
    Found,
    Layer,
    find_config,
    from_credentials,
    from_defaults,
    from_dotenv,
    from_environment,
    from_file,
    from_flags,
)
from miner.task.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings in force."""

    settings: Settings
    file: Path | None  # the config.toml in use
    origin: Mapping[str, str]  # key → source of its value, in words
    warnings: tuple[str, ...]  # one line each


class Row(NamedTuple):
    """A line of `xalora-miner config`."""

    key: str
    value: str
    origin: str


def load_settings(
    *,
    config_file: Path | None = None,
    flags: Mapping[str, object] = MappingProxyType({}),
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Read every source once and check the result.

    `flags` are by key (`{"miner.id": "0x…"}`); None means not given, and strings are parsed as in the environment.
    `environ` defaults to the process's own. Blocks for a few file reads.
    Raises ConfigError, one line per problem.
    """
    environ = os.environ if environ is None else environ
    home = Path(environ["HOME"]) if environ.get("HOME") else None
    cwd = Path.cwd()
    file = find_config(config_file, environ, cwd)
    dotenv = (file.parent if file else cwd) / ".env"
    file_layer, dotenv_layer = from_file(file, cwd), from_dotenv(dotenv)
    layers = (
        from_flags(flags, cwd),
        from_environment(environ, cwd),
        from_credentials(environ, cwd),
        dotenv_layer,
        file_layer,
        from_defaults(environ),
    )
    found = ChainMap(*(dict(layer.found) for layer in layers))
    settings = _checked(layers, found, home)
    origin = {key: found[key].origin if key in found else "default" for key in FIELDS}
    warnings = (*_open_to_others(file, file_layer), *_open_to_others(dotenv, dotenv_layer))
    return Loaded(settings=settings, file=file, origin=MappingProxyType(origin), warnings=warnings)


def render_settings(loaded: Loaded) -> tuple[Row, ...]:
    """Every key, its value with secrets masked, and its source, in the order of config.toml."""
    sections = {name: getattr(loaded.settings, name) for name in Settings.model_fields}
    names = ((key, *key.split(".")) for key in FIELDS)
    return tuple(
        Row(key, shown(key, getattr(sections[section], name)), loaded.origin[key]) for key, section, name in names
    )


def _checked(layers: Sequence[Layer], found: Mapping[str, Found], home: Path | None) -> Settings:
    problems = [problem for layer in layers for problem in layer.problems]
    try:
        settings = Settings.model_validate(_merged(layers, home))
    except ValidationError as error:
        problems += [_line(detail, found) for detail in error.errors(include_url=False)]
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def _merged(layers: Sequence[Layer], home: Path | None) -> dict[str, dict[str, object]]:
    """Section → name → value, each from the first layer that has the key; a table is one value."""
    sections: dict[str, dict[str, object]] = {}
    for layer in reversed(layers):
        for key, found in layer.found.items():
            section, _, name = key.partition(".")
            sections.setdefault(section, {})[name] = located(key, found.value, base=layer.base, home=home)
    return sections


def _line(error: Mapping[str, Any], found: Mapping[str, Found]) -> str:
    section, *rest = (str(part) for part in error["loc"])
    keys = [f"{section}.{name}" for name in (rest[:1] or error["ctx"]["error"].keys)]
    places = " and ".join(dict.fromkeys(found[key].place if key in found else "default" for key in keys))
    return f"{places}: {titled(keys[0]) if rest else f'[{section}]'} {_reason(error, keys[0], inside=len(rest) > 1)}"


def _reason(error: Mapping[str, Any], key: str, *, inside: bool) -> str:
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if is_secret(key):
        return f"must be {expected(key)}"
    value = quoted(error["input"])
    return f"must be {expected(key)}{f'; {value} is not' if inside else f', not {value}'}"


def _open_to_others(path: Path | None, layer: Layer) -> Iterator[str]:
    secrets = [key for key in layer.found if is_secret(key)]
    if path and secrets and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        yield f"{path}: contains {titled(secrets[0])} and is readable by others (mode {mode:04o}): chmod 600 {path}"
