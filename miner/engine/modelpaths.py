"""Reads ComfyUI's extra_model_paths.yaml: sections of folder names, each with one path or a block of paths.

    shared:
        base_path: /models
        is_default: true
        loras: loras
        diffusion_models: |
            unet
            diffusion_models

Such a file needs no more of YAML, and the base install has no YAML library. Anything else is refused with the file and
the line, never guessed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


class ModelPathsError(ValueError):
    """The file cannot be read; the message names it and the line."""


def read_extra_paths(config: Path) -> Iterator[tuple[str, Path, bool]]:
    """Each (folder name, path, whether it comes before the default folders). ModelPathsError if it cannot be read."""
    try:
        lines = config.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ModelPathsError(f"{config}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ModelPathsError(f"{config}: not UTF-8: {error.reason}") from error
    for section in _sections(config, lines):
        base = os.path.expandvars(os.path.expanduser(section.pop("base_path", "")))  # noqa: PTH111  # never raises
        first = section.pop("is_default", "false").lower() in ("true", "yes", "on")
        for folder, paths in section.items():
            for path in filter(None, paths.split("\n")):
                yield folder, Path(os.path.normpath(config.parent / base / path)), first


def _sections(config: Path, lines: list[str]) -> list[dict[str, str]]:
    sections: list[dict[str, str]] = []
    block = ""  # the key whose indented lines are being read
    depth = 0  # that key's indentation
    for number, line in enumerate(lines, 1):
        text = line.split(" #")[0].rstrip()
        indent = len(text) - len(text.lstrip())
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        if block and indent > depth:
            sections[-1][block] += text.strip() + "\n"
            continue
        key, colon, value = text.strip().partition(":")
        if not colon or (indent and not sections) or (not indent and value.strip()):
            raise ModelPathsError(f"{config}:{number}: expected 'name:' or, indented, 'name: path'")
        value, block = value.strip().strip("'\""), ""
        if not indent:
            sections.append({})
        elif value in ("|", "|-", "|+"):
            block, depth, sections[-1][key] = key, indent, ""
        else:
            sections[-1][key] = value
    return sections
