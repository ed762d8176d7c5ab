"""Which arguments of ComfyUI are worth a trial on this card, and why the others are not. Pure.

Each only changes how ComfyUI computes; whether its pictures stay the same is for the trial to show. What each needs is
from the sources of ComfyUI 0.3.64 and 0.33.0. Whether a ComfyUI knows a flag, its own `comfy/cli_args.py` says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from miner.comfy.speed_args import excludes, flags
from miner.machine.software import Basis

Vendor = Literal["nvidia", "amd", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What the candidates depend on."""

    vendor: Vendor
    capability: tuple[int, int] | None = None  # compute capability; None: unknown, so the trial shows it
    basis: Basis
    known: str  # the text of ComfyUI's `comfy/cli_args.py`
    own: Sequence[str] = ()  # the operator's arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Arguments for a trial. `skipped`: why there is none, "" for one to try."""

    args: tuple[str, ...]
    skipped: str = ""

    @property
    def name(self) -> str:
        return " ".join(self.args)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Switch:
    args: str
    on: tuple[Vendor, ...] = ("nvidia",)
    capability: tuple[int, int] = (0, 0)  # NVIDIA's lowest
    package: str = ""  # that ComfyUI's Python needs
    torch: tuple[int, int] = (0, 0)
    superseded: str = ""  # a flag of those ComfyUIs that do it by default


_SWITCHES = (
    _Switch(args="--use-pytorch-cross-attention", on=("nvidia", "amd", "cpu")),
    _Switch(args="--use-sage-attention", capability=(8, 0), package="sageattention"),
    _Switch(args="--use-flash-attention", on=("nvidia", "amd"), capability=(8, 0), package="flash-attn"),
    _Switch(args="--use-ck-attention", on=("nvidia", "amd"), capability=(7, 5), package="comfy-kitchen"),
    _Switch(args="--fast fp16_accumulation", on=("nvidia", "amd"), capability=(7, 0), torch=(2, 7)),
    _Switch(args="--fast fp8_matrix_mult", capability=(8, 9)),
    _Switch(args="--fp8_e4m3fn-unet --fast fp8_matrix_mult", capability=(8, 9)),
    _Switch(args="--fast cublas_ops", package="cublas-ops"),
    _Switch(args="--fast autotune", on=("nvidia", "amd")),
    _Switch(args="--enable-triton-backend", capability=(8, 0), package="triton"),
    _Switch(args="--async-offload", superseded="--disable-async-offload"),
)


def candidates(card: Card) -> tuple[Candidate, ...]:
    """Every switch that this ComfyUI knows, in the order of the trials; with the reason where it is skipped."""
    return tuple(
        Candidate(args=tuple(switch.args.split()), skipped=next(_against(switch, card), ""))
        for switch in _SWITCHES
        if _knows(card.known, switch.args.split())
    )


def _knows(text: str, args: Sequence[str]) -> bool:
    """Whether ComfyUI's arguments have the flags, and the values for --fast."""
    return all(f'"{word}"' in text for flag in flags(args) for word in flag)


def _against(switch: _Switch, card: Card) -> Iterator[str]:
    packages, args = card.basis.packages, switch.args.split()
    if won := next(filter(None, (excludes(card.own, flag) for flag, *_ in flags(args))), ""):
        yield f"your own arguments have {won}"
    if card.vendor not in switch.on:
        yield "without effect on the CPU" if card.vendor == "cpu" else "not for this kind of card"
    if card.vendor == "nvidia" and card.capability is not None and card.capability < switch.capability:
        yield "needs compute capability {}.{}".format(*switch.capability)
    if switch.package and switch.package not in packages:
        yield f"{switch.package} is not installed in ComfyUI's Python"
    if switch.torch > (0, 0) and _version(packages.get("torch", "")) < switch.torch:
        yield "needs torch {}.{}".format(*switch.torch)
    if switch.superseded and f'"{switch.superseded}"' in card.known:
        yield "this ComfyUI does it by default"
    if args == ["--use-pytorch-cross-attention"] and card.vendor == "nvidia" and "xformers" not in packages:
        yield "this ComfyUI does it by default"


def _version(text: str) -> tuple[int, int]:
    """The first two numbers of torch's version; an unknown one is new enough."""
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (999, 0)
