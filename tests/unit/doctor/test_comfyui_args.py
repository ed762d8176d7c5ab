"""The operator's own arguments of a managed ComfyUI, as its own parser understands them."""

from __future__ import annotations

import sys

import pytest

from miner.doctor.checks.comfyui_args import comfyui_args, judged

# as in ComfyUI: argparse, enumerations, and a module that says whether to parse
OPTIONS = "args_parsing = False\ndef enable_args_parsing():\n    global args_parsing\n    args_parsing = True\n"
CLI_ARGS = """
import argparse, enum
import comfy.options
class Fast(enum.Enum):
    A = "a"
    B = "b"
parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, default=8188)
parser.add_argument("--fast", nargs="*", type=Fast)
parser.add_argument("--reserve-vram", type=float)
group = parser.add_mutually_exclusive_group()
group.add_argument("--gpu-only", action="store_true")
group.add_argument("--novram", action="store_true")
args = parser.parse_args() if comfy.options.args_parsing else parser.parse_args([])
args.fast = set() if args.fast is None else set(args.fast or Fast)
"""


@pytest.mark.parametrize(
    ("args", "level", "words"),
    [
        (("--gpu-only",), "warning", "--gpu-only turns ComfyUI's dynamic memory off"),
        (("--gpu",), "warning", "--gpu-only turns"),  # an abbreviation
        (("--reserve-vram=9",), "warning", "keeps 9 GB"),
        (("--reserve-vram", "2"), "good", "none of"),
        (("--fast",), "note", "--fast a b"),
        (("--fast", "b"), "note", "--fast b can change"),
        (("--port", "1"), "note", "the miner sets it"),
        (("--foo",), "bad", "unrecognized arguments: --foo"),
        (("--gpu-only", "--novram"), "bad", "not allowed with"),
        (("--help",), "bad", "print something"),
    ],
)
def test_an_argument_counts_as_comfyui_understands_it(facts_of, tmp_path, args, level, words):
    home = tmp_path / "home"
    (home / "comfy").mkdir(parents=True)
    (home / "main.py").touch()
    (home / "comfy" / "options.py").write_text(OPTIONS)
    (home / "comfy" / "cli_args.py").write_text(CLI_ARGS)
    (mark,) = comfyui_args(facts_of(comfyui={"home": home, "python": sys.executable, "args": args}))
    assert mark.level == level
    assert words in mark.says
    assert mark.level == "good" or mark.cure


@pytest.mark.parametrize(
    "comfyui",
    [{"args": ()}, {"args": ("--novram",)}, {"args": ("--novram",), "python": "/nonexistent/python"}],
)
def test_one_that_cannot_be_asked_or_has_none_is_not_judged(facts_of, tmp_path, comfyui):
    (tmp_path / "main.py").touch()
    assert list(comfyui_args(facts_of(comfyui={"home": tmp_path, "python": sys.executable, **comfyui}))) == []


@pytest.mark.parametrize(
    ("found", "limited", "levels"),
    [
        ({}, True, ["good"]),
        ({"fast": [], "cache_lru": 5}, False, ["good"]),
        ({"cache_lru": 5}, True, ["warning"]),
        ({"high_ram": True, "cache_classic": True}, True, ["warning", "warning"]),
        ({"highvram": True, "disable_smart_memory": True}, False, ["warning", "warning"]),
        ({"cuda_device": 0}, False, ["warning"]),
        ({"tls_keyfile": "a", "tls_certfile": "b"}, False, ["bad", "bad"]),
        ({"enable_cors_header": "*"}, False, ["warning"]),
        ({"fp16_vae": True}, False, ["warning"]),
        ({"verbose": "DEBUG"}, False, ["good"]),  # 0.3.64
        ({"verbose": [["DEBUG", None]]}, False, ["good"]),
        ({"verbose": [["DEBUG", None], ["INFO", "/tmp/log"]]}, False, ["warning"]),
        ({"max_upload_size": 8.0}, False, ["warning"]),
        ({"max_upload_size": 500.0}, False, ["good"]),
        ({"use_sage_attention": True, "preview_method": "taesd", "lots_to_come": 1}, False, ["good"]),
    ],
)
def test_what_is_found_is_judged(found, limited, levels):
    assert [mark.level for mark in judged(found, limited=limited)] == levels
