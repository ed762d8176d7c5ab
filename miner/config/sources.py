"""Sources of settings: flags, environment, systemd credentials, .env and config.toml.

Each reader returns a `Layer`: values by key, and one line per unknown name. Values are not validated here.
The environment is always an argument.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from types import MappingProxyType

from dotenv.parser import parse_stream

from miner.config.keys import FIELDS, VARIABLES, closest, closest_key, flag, titled, typed
from miner.config.lora_table import is_reference
from miner.config.settings import Settings
from miner.task.errors import ConfigError

CONFIG_VARIABLE = "XALORA_CONFIG"
CREDENTIALS: Mapping[str, str] = MappingProxyType(
    {
        "api_key": "sequencer.api_key",
        "civitai_token": "loras.civitai_token",
        "hf_token": "loras.hf_token",
        "status_token": "status.token",
    }
)
"""systemd credential (`LoadCredential=` in the unit) → key."""

# Kubernetes injects service links: a service named xalora-miner sets XALORA_MINER_PORT=tcp://10.0.0.7:80.
_SERVICE_NAME = re.compile(r"XALORA_\w*(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A value from one source."""

    value: object = field(repr=False)
    origin: str  # the source, for `xalora-miner config`
    place: str  # the same for errors, with a line number if known


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """All values from one source."""

    found: Mapping[str, Found]
    problems: tuple[str, ...] = ()  # one line each
    base: Path  # of relative paths


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A variable from the environment or .env."""

    name: str
    text: str = field(repr=False)
    origin: str
    place: str


def config_places(environ: Mapping[str, str], cwd: Path) -> tuple[Path, ...]:
    """Default locations of config.toml; the first one found wins."""
    folder = environ.get("XDG_CONFIG_HOME", "")
    home = environ.get("HOME", "")
    user = Path(folder) if folder.startswith("/") else Path(home, ".config") if home else None
    own = (user / "xalora-miner" / "config.toml",) if user else ()
    return (cwd / "config.toml", *own, Path("/etc/xalora-miner/config.toml"))


def find_config(config_file: Path | None, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """The absolute path of config.toml, or None. Raises ConfigError if a named file is missing."""
    named = str(config_file) if config_file else environ.get(CONFIG_VARIABLE, "")
    if not named:
        return next((path for path in config_places(environ, cwd) if _is_file(path)), None)
    path = cwd / named
    if not _is_file(path):
        place = "flag --config" if config_file else f"environment {CONFIG_VARIABLE}"
        raise ConfigError(f"{place}: {path} is missing, unreadable or not a file")
    return path


def from_flags(flags: Mapping[str, object], cwd: Path) -> Layer:
    """Command-line flags by key; None means not given."""
    found: dict[str, Found] = {}
    problems: list[str] = []
    for key, value in flags.items():
        place = f"flag {flag(key)}"
        if key not in FIELDS:
            problems.append(_unknown_key(place, key))
        elif value is not None:
            found[key] = Found(value=typed(key, value) if isinstance(value, str) else value, origin=place, place=place)
    return Layer(found=found, problems=tuple(problems), base=cwd)


def from_environment(environ: Mapping[str, str], cwd: Path) -> Layer:
    """The environment. Does not raise: unknown `XALORA_` variables become problems of the layer."""
    words = ((name, text, f"environment {name}") for name, text in environ.items() if name != CONFIG_VARIABLE)
    return _from_variables((Variable(name=n, text=t, origin=at, place=at) for n, t, at in words), cwd)


def from_credentials(environ: Mapping[str, str], cwd: Path) -> Layer:
    """The files of systemd's `LoadCredential=`, in `CREDENTIALS_DIRECTORY`."""
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    paths = {key: Path(folder, name) for name, key in CREDENTIALS.items()} if folder else {}
    found = {
        key: Found(value=_text(path).strip(), origin=f"credential {path}", place=f"credential {path}")
        for key, path in paths.items()
        if _is_file(path)
    }
    return Layer(found=found, base=cwd)


def from_dotenv(path: Path) -> Layer:
    """The .env file at `path`. Ignores variables of other programs, and expands none."""
    if not _is_file(path):
        return Layer(found={}, base=path.parent)
    variables: list[Variable] = []
    problems: list[str] = []
    for binding in parse_stream(StringIO(_text(path))):
        source = binding.original.string  # with the blank lines above
        line = binding.original.line + source[: len(source) - len(source.lstrip())].count("\n")
        place = f"{path}:{line}"
        if binding.key and binding.value is not None:
            variables.append(Variable(name=binding.key, text=binding.value, origin=f".env {path}", place=place))
        elif binding.key or binding.error:
            problems.append(f"{place}: must be NAME=value")
    layer = _from_variables(variables, path.parent)
    return Layer(found=layer.found, problems=(*problems, *layer.problems), base=path.parent)


def from_file(path: Path | None, cwd: Path) -> Layer:
    """The config.toml at `path`. Raises ConfigError if unreadable or invalid TOML."""
    if path is None:
        return Layer(found={}, base=cwd)
    text = _text(path)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from error
    lines = _lines(text)
    found: dict[str, Found] = {}
    problems: list[str] = []
    for key, value in _flat(tables):
        line = lines.get(key) or lines.get(key.partition(".")[0])
        place = f"{path}:{line}" if line else f"{path}"
        if key in FIELDS:
            found[key] = Found(value=value, origin=f"config.toml {path}", place=place)
        else:
            problems.append(_stray(place, key, value))
    return Layer(found=found, problems=tuple(problems), base=path.parent)


def from_defaults(environ: Mapping[str, str]) -> Layer:
    """The only machine-dependent default: the state folder, by the XDG rules."""
    folder = environ.get("XDG_STATE_HOME", "")
    home = environ.get("HOME", "")
    base = Path(folder) if folder.startswith("/") else Path(home, ".local/state") if home else Path("/var/lib")
    state = Found(value=base / "xalora-miner", origin="default", place="default")
    return Layer(found={"state.dir": state}, base=base)


def _from_variables(variables: Iterable[Variable], base: Path) -> Layer:
    found: dict[str, Found] = {}
    problems: list[str] = []
    for variable in variables:
        text = variable.text.strip()
        if not variable.name.startswith("XALORA_") or not text or _is_service_link(variable.name, text):
            continue
        key = VARIABLES.get(variable.name)
        if key is None:
            problems.append(_unknown(variable.place, f"setting {variable.name}", closest(variable.name, VARIABLES)))
        elif key in found and found[key].value != typed(key, text):
            problems.append(f"{variable.place}: {titled(key)} conflicts with {found[key].place}: keep one")
        else:
            found[key] = Found(value=typed(key, text), origin=variable.origin, place=variable.place)
    return Layer(found=found, problems=tuple(problems), base=base)


def _is_service_link(name: str, text: str) -> bool:
    return bool(_SERVICE_NAME.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_URL.match(text)))


def _stray(place: str, key: str, value: object) -> str:
    if key in Settings.model_fields:
        return f"{place}: {key} must be a table, [{key}]"
    if isinstance(value, dict):
        meant = closest(key, Settings.model_fields)
        return _unknown(place, f"section [{key}]", meant and f"[{meant}]")
    return _unknown_key(place, key)


def _unknown_key(place: str, key: str) -> str:
    return _unknown(place, f"key {titled(key)}", closest_key(key))


def _unknown(place: str, what: str, meant: str) -> str:
    step = f"did you mean {meant}?" if meant else "`xalora-miner config` lists all"
    return f"{place}: unknown {what}; {step}"


def _flat(tables: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for section, table in tables.items():
        if section in Settings.model_fields and isinstance(table, dict):
            yield from ((f"{section}.{name}", value) for name, value in _folded(section, table).items())
        else:
            yield section, table


def _folded(section: str, table: dict[str, object]) -> dict[str, object]:
    """`[loras]` with the LoRAs that are keys of it, by their references, in its table `files`."""
    if section != "loras":
        return table
    own = {name: value for name, value in table.items() if f"{section}.{name}" not in FIELDS and is_reference(value)}
    rest = {name: value for name, value in table.items() if name not in own}
    files = rest.get("files", {})
    return {**rest, "files": {**files, **own}} if own and isinstance(files, dict) else rest


def _lines(text: str) -> dict[str, int]:
    """The line number, from 1, of each key and section; a best guess, only for messages."""
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([\w.-]+)", line):
            section = header[1]
            lines.setdefault(section, number)
        elif key := re.match(r"\s*([\w.-]+)\s*=", line):
            lines.setdefault(f"{section}.{key[1]}" if section else key[1], number)
    return lines


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a parent folder is not accessible
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from error
