"""The file of tuned arguments, and when they count."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from miner.config import Settings
from miner.doctor.checks.comfyui import tuning as tuning_marks
from miner.machine import tuning
from miner.machine.gpu import GpuHealth
from miner.machine.software import Basis, basis, card_of, packages_of
from miner.machine.tuning import Choice, Tuned, counting, tuned_for
from miner.worker.layout import layout
from tests.support.testbed import MINER_ID
from tests.support.tuned_engine import tuned_home

HERE = Basis(card="RTX", driver="580.65", comfyui="0.33.0", packages={"torch": "2.11.0+cu130"})
ARGS = ("--use-sage-attention", "--fast", "autotune")
CHOICE = Choice(
    basis=HERE,
    args=ARGS,
    why="faster",
    at=1.0,
    variants={"flux": "fp8"},
    trials=({"args": ["--fast"], "ssim": {"a": 0.9}},),
)
CARDS = [
    GpuHealth(
        index=index, uuid=uuid, name=name, load=None, memory_used=None, memory_total=None, temperature=None, power=None
    )
    for index, (uuid, name) in enumerate([("GPU-aa11", "RTX 4090"), ("GPU-bb22", "RTX 3090"), ("GPU-cc33", "RTX 3090")])
]


@pytest.mark.parametrize(
    ("here", "stale"),
    [
        (HERE, ""),
        (replace(HERE, driver="590.1"), "the driver was 580.65, and is 590.1"),
        (replace(HERE, comfyui="0.34.0"), "ComfyUI was 0.33.0, and is 0.34.0"),
        (replace(HERE, packages={"torch": "2.12.0"}), "torch was 2.11.0+cu130, and is 2.12.0"),
        (replace(HERE, packages={}), "torch was 2.11.0+cu130, and is missing"),
        (
            replace(HERE, packages={**HERE.packages, "sageattention": "2.2"}),
            "sageattention was missing, and is 2.2",
        ),
    ],
)
def test_a_choice_counts_only_with_what_it_was_measured_with(here, stale):
    tuned = counting({"RTX": CHOICE}, here, own=(), on=True)
    assert (tuned.stale, tuned.args) == (stale, () if stale else ARGS)
    assert tuned.variants == ({} if stale else {"flux": "fp8"})
    assert (stale or "faster") in tuned.says()
    (mark,) = tuning_marks([tuned, tuned])
    assert (mark.name, mark.level) == ("Tuning of RTX", "warning" if stale else "good")


def test_another_card_has_no_choice_and_one_that_is_off_is_not_used():
    never = counting({"RTX": CHOICE}, replace(HERE, card="GTX"), own=(), on=True)
    assert never == Tuned()
    assert "bench --tune" in never.cure
    off = counting({"RTX": CHOICE}, HERE, own=(), on=False)
    assert off.args == ()
    assert "tuned is false" in off.says()


def test_the_operators_arguments_win_and_it_says_so():
    tuned = counting({"RTX": CHOICE}, HERE, own=("--use-flash-attention",), on=True)
    assert tuned.args == ("--fast", "autotune")
    assert "--use-sage-attention is left out for your --use-flash-attention" in tuned.says()


@pytest.mark.parametrize(
    ("gpu", "card"),
    [
        ("0", "RTX 4090"),
        ("2", "RTX 3090"),
        ("GPU-bb22", "RTX 3090"),
        ("GPU-bb", "RTX 3090"),  # CUDA takes a prefix
        ("", "RTX 4090 + RTX 3090"),
        ("9", "RTX 4090 + RTX 3090"),
    ],
)
def test_a_card_is_known_by_its_index_or_uuid(gpu, card):
    assert card_of(gpu, CARDS) == card
    assert card_of(gpu, []) == ""


def test_a_choice_replaces_only_its_cards_and_survives_a_restart(tmp_path):
    other = replace(CHOICE, basis=replace(HERE, card="GTX"), args=())
    for one in (CHOICE, other, replace(CHOICE, why="faster still")):
        tuning.write(tmp_path, one)
    assert tuning.read(tmp_path) == {"RTX": replace(CHOICE, why="faster still"), "GTX": other}
    assert [path.name for path in tmp_path.iterdir()] == [tuning.FILE]


@pytest.mark.parametrize(
    "change",
    [
        {"args": "--fast"},
        {"args": [1]},
        {"basis": None},
        {"basis": {"card": "RTX"}},
        {"at": "today"},
        {"trials": None},
        {"variants": None},
    ],
)
def test_an_invalid_choice_is_ignored(tmp_path, change):
    tuning.write(tmp_path, CHOICE)
    document = json.loads((tmp_path / tuning.FILE).read_text())
    document["choices"][0] |= change
    assert tuning.parse(document) == {}


@pytest.mark.parametrize("text", ["", "[]", '{"schema": 2, "choices": []}', '{"schema": 1, "choices": [1]}'])
def test_an_invalid_file_is_ignored(tmp_path, text):
    (tmp_path / tuning.FILE).write_text(text)
    assert tuning.read(tmp_path) == {}


def test_packages_are_those_of_comfyuis_python(tmp_path):
    (tmp_path / "sageattention-2.2.0.dist-info").mkdir()
    (tmp_path / "sageattention-2.2.0.dist-info" / "METADATA").write_text("Name: sageattention\nVersion: 2.2.0\n")
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.11.0+cu130'\n")
    # its folder is on the path of a program that is run there, as ComfyUI's own is
    assert (
        packages_of(tmp_path, Path(sys.executable)).items()
        >= {"sageattention": "2.2.0", "torch": "2.11.0+cu130"}.items()
    )
    assert packages_of(tmp_path, tmp_path / "no-python") == {}


def test_a_managed_comfyui_starts_with_the_tuned_arguments_before_the_operators(tmp_path):
    home, state = tuned_home(tmp_path / "home"), tmp_path / "state"

    def argv(**comfyui):
        sections = {"home": home, "python": sys.executable, "args": ("--cpu",), **comfyui}
        settings = Settings(state={"dir": state}, miner={"id": MINER_ID}, comfyui=sections)
        (placement,) = layout(settings)
        return tuned_for(settings, None), placement.launch.argv

    assert "autotune" not in argv()[1]
    here = basis(home, Path(sys.executable), None)
    assert here.comfyui == "0.33.0"
    tuning.write(state, replace(CHOICE, basis=here))
    assert " ".join((*ARGS, "--cpu")) in " ".join(argv()[1])
    assert "autotune" not in argv(tuned=False)[1]
    assert "autotune" not in argv(args=("--fast",))[1]
    (home / "comfyui_version.py").write_text('__version__ = "0.34.0"\n')
    tuned, words = argv()
    assert (tuned.stale, "autotune" in words) == ("ComfyUI was 0.33.0, and is 0.34.0", False)
