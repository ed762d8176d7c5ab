"""The command line: ComfyUI's own flags, so that the engine can be started in ComfyUI's place, and a few of ours.

Flags for a GPU, a browser or custom nodes are accepted and ignored; unknown flags are errors, as in argparse. Only
loopback addresses are served.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import miner
from miner.engine import ignored
from miner.engine.dialect import DIALECTS, NEWEST, Dialect

PREVIEW_METHODS = ("none", "auto", "latent2rgb", "taesd")
LEVELS = ("DEBUG", "DETAIL", "INFO", "WARNING", "ERROR", "CRITICAL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The parsed flags. A folder of None has its default under `base`; `base` None means a temporary folder."""

    host: str
    port: int  # 0: any free one
    base: Path | None
    input: Path | None
    output: Path | None
    temp: Path | None
    user: Path | None
    models: Path | None
    extra_model_paths: tuple[Path, ...]
    metadata: bool  # embed the graph in what is saved
    previews: bool
    preview_size: int  # longest side, pixels
    max_upload: int  # bytes, for any request's body
    cache: bool  # keep the last prompt's results
    dialect: Dialect
    parent: int | None  # end when this process is no longer the parent
    level: str
    log_to_stdout: bool


def parse(arguments: Sequence[str]) -> Flags:
    """Flags from a command line. For a wrong one, writes the reason to stderr and exits with 2, as argparse does."""
    found = _parser().parse_args(arguments)
    return Flags(
        host=found.listen,
        port=found.port,
        base=found.base_directory,
        input=found.input_directory,
        output=found.output_directory,
        temp=found.temp_directory,
        user=found.user_directory,
        models=found.models_directory,
        extra_model_paths=tuple(path for group in found.extra_model_paths_config for path in group),
        metadata=not found.disable_metadata,
        previews=found.preview_method != "none",
        preview_size=found.preview_size,
        max_upload=round(found.max_upload_size * 1024 * 1024),
        cache=not found.cache_none,
        dialect=DIALECTS[found.like],
        parent=found.parent_pid,
        level=_level(found.verbose),
        log_to_stdout=found.log_stdout,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="miner.engine", description="Speaks ComfyUI's protocol, on the CPU.")
    parser.add_argument("--version", action="version", version=miner.__version__)
    parser.add_argument("--listen", type=_loopback, default="127.0.0.1", metavar="IP", help="a loopback address")
    parser.add_argument("--port", type=int, default=8188, help="0: any free one")
    for name in ("base", "output", "input", "temp"):
        parser.add_argument(f"--{name}-directory", type=_absolute, metavar="DIR")
    for name in ("user", "models"):
        parser.add_argument(f"--{name}-directory", type=_existing, metavar="DIR", help="has to exist")
    parser.add_argument("--extra-model-paths-config", type=_absolute, nargs="+", action="append", default=[])
    parser.add_argument("--disable-metadata", action="store_true", help="do not embed the graph in saved files")
    parser.add_argument("--preview-method", choices=PREVIEW_METHODS, default="none")
    parser.add_argument("--preview-size", type=int, default=512, metavar="PIXELS")
    parser.add_argument("--max-upload-size", type=float, default=100, metavar="MB")
    parser.add_argument("--cache-none", action="store_true", help="run every node every time")
    parser.add_argument("--verbose", nargs="*", default=None, metavar="LEVEL")
    parser.add_argument("--log-stdout", action="store_true")
    ours = parser.add_argument_group("not in ComfyUI")
    ours.add_argument("--like", choices=tuple(DIALECTS), default=NEWEST, help="the ComfyUI whose behavior to follow")
    ours.add_argument("--parent-pid", type=int, metavar="PID", help="end when PID is no longer the parent")
    _accept_ignored(parser.add_argument_group("accepted and ignored"))
    return parser


def _accept_ignored(group: argparse._ArgumentGroup) -> None:
    for flag in ignored.SWITCHES:
        group.add_argument(flag, action="store_true", help=argparse.SUPPRESS)
    for flag in ignored.VALUES:
        group.add_argument(flag, action="append", help=argparse.SUPPRESS)
    for flag in ignored.OPTIONAL_VALUES:
        group.add_argument(flag, nargs="?", help=argparse.SUPPRESS)
    for flag in ignored.LISTS:
        group.add_argument(flag, nargs="*", help=argparse.SUPPRESS)


def _loopback(text: str) -> str:
    try:
        local = ipaddress.ip_address(text).is_loopback
    except ValueError:
        local = text == "localhost"
    if not local:
        raise argparse.ArgumentTypeError(f"{text!r} is not a loopback address, and the engine serves nothing else")
    return "127.0.0.1" if text == "localhost" else text


def _absolute(text: str) -> Path:
    return Path(os.path.abspath(text))  # noqa: PTH100 - resolve() would follow links, and so change what ComfyUI prints


def _existing(text: str) -> Path:
    path = _absolute(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"'{path}' is not a directory.")  # ComfyUI's own words
    return path


def _level(verbose: list[str] | None) -> str:
    """ComfyUI's `--verbose`: absent, bare (DEBUG), or LEVEL [FILE]. A file is not written here."""
    if verbose is None:
        return "INFO"
    return verbose[0] if verbose and verbose[0] in LEVELS else "DEBUG"
