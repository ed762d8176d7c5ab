"""Arguments of ComfyUI's main.py that change how fast it renders: how they combine, and which exclude each other. Pure.

The exclusions are those of `comfy/cli_args.py` in ComfyUI 0.3.64 and 0.33.0, and what an operator's own argument means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

ATTENTION = frozenset(f"--use-{kind}" for kind in ("split-cross-attention", "quad-cross-attention", "ck-attention")) | {
    "--use-pytorch-cross-attention",
    "--use-sage-attention",
    "--use-flash-attention",
}
_UNET = frozenset(
    {
        *("--fp32-unet", "--fp64-unet", "--bf16-unet", "--fp16-unet"),
        *("--fp8_e4m3fn-unet", "--fp8_e5m2-unet", "--fp8_e8m0fnu-unet"),
    }
)
_EXCLUDED_BY = {
    "--fast": frozenset({"--fast", "--deterministic"}),  # argparse keeps the last --fast only
    **dict.fromkeys(ATTENTION, ATTENTION),
    **dict.fromkeys(_UNET, _UNET | {"--force-fp32", "--force-fp16"}),
    "--async-offload": frozenset({"--async-offload", "--disable-async-offload"}),
    "--enable-triton-backend": frozenset({"--enable-triton-backend", "--disable-triton-backend"}),
}


def flags(args: Sequence[str]) -> list[tuple[str, ...]]:
    """Each flag with its values: `--fast a b --cpu` is (--fast, a, b), (--cpu)."""
    found: list[tuple[str, ...]] = []
    for arg in args:
        if arg.startswith("--") or not found:
            found.append((arg,))
        else:
            found[-1] = (*found[-1], arg)
    return found


def excludes(own: Sequence[str], flag: str) -> str:
    """The argument of `own` that `flag` cannot join, or "". An abbreviation counts, as in argparse."""
    against = _EXCLUDED_BY.get(flag, frozenset({flag}))
    names = (arg.partition("=")[0] for arg in own if arg.startswith("--") and len(arg) > len("--"))
    return next((name for name in names if any(full.startswith(name) for full in against)), "")


def beside(own: Sequence[str], added: Sequence[str]) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The part of `added` that may join `own`; and each flag that may not, with the argument of `own` that wins."""
    kept: list[str] = []
    dropped: list[tuple[str, str]] = []
    for flag, *values in flags(added):
        if reason := excludes(own, flag):
            dropped.append((" ".join((flag, *values)), reason))
        else:
            kept += [flag, *values]
    return tuple(kept), tuple(dropped)


def joined(parts: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """All of `parts` as one list: the values of a flag that comes again are added to the first one's."""
    together: dict[str, list[str]] = {}
    for part in parts:
        for flag, *values in flags(part):
            known = together.setdefault(flag, [])
            known += [value for value in values if value not in known]
    return tuple(word for flag, values in together.items() for word in (flag, *values))
