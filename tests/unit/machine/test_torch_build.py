"""Which build of torch fits which driver and cards: fake cards, no GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from miner.machine.gpu import Gpu, Gpus
from miner.machine.torch_build import advice, complaint, driver_cuda, fit, runs, tag_of

CU130 = ("2.14.1+cu130", "13.0", ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"))
CU126 = ("2.8.0+cu126", "12.6", ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"))
CU128 = ("2.9.1+cu128", "12.8", ("sm_70", "sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"))

KEPLER, MAXWELL, PASCAL, VOLTA = (3, 7), (5, 2), (6, 1), (7, 0)
TURING, AMPERE, RTX_30, ADA, HOPPER = (7, 5), (8, 0), (8, 6), (8, 9), (9, 0)
BLACKWELL, RTX_50 = (10, 0), (12, 0)
OLD, R525, R535, R570, R580, R590 = "470.256.02", "525.60.13", "535.288.01", "570.133.20", "580.65.06", "590.44.01"


def machine(build, driver, *capabilities, works=True, cuda=""):
    """A machine with cards, and a torch; `works`: torch could start CUDA."""
    cards = tuple(
        Gpu(index=index, name=f"card {index}", memory_bytes=24 * 10**9, compute_capability=capability)
        for index, capability in enumerate(capabilities)
    )
    torch, torch_cuda, arches = build
    return Gpus(
        gpus=cards,
        source="torch" if works else "nvml",
        driver=driver,
        cuda=cuda,
        torch=torch,
        torch_cuda=torch_cuda,
        torch_arches=arches,
        problem="" if works else f"torch {torch} cannot use them: CUDA does not start",
    )


@pytest.mark.parametrize(
    ("driver", "cuda"), [(OLD, 11), (R525, 12), (R535, 12), (R570, 12), (R580, 13), (R590, 13), ("", None)]
)
def test_a_driver_runs_one_major_release_of_cuda_and_those_before(driver, cuda):
    assert driver_cuda(machine(CU130, driver)) == cuda


def test_what_the_driver_says_of_itself_counts_before_its_number():
    assert driver_cuda(machine(CU130, R535, cuda="13.0")) == 13  # NVIDIA's package for forward compatibility


@pytest.mark.parametrize("capability", [TURING, AMPERE, RTX_30, ADA, HOPPER])
def test_cards_from_turing_to_hopper_have_a_build_for_each_driver(capability):
    assert [tag_of(cuda, capability) for cuda in (11, 12, 13, None)] == [None, "cu126", "cu130", "cu130"]


@pytest.mark.parametrize("capability", [MAXWELL, PASCAL, VOLTA])
def test_cards_before_turing_have_no_build_for_cuda_13(capability):
    assert [tag_of(cuda, capability) for cuda in (11, 12, 13)] == [None, "cu126", "cu126"]


@pytest.mark.parametrize("capability", [BLACKWELL, (10, 3), RTX_50, (12, 1)])
def test_blackwell_has_no_build_for_cuda_12_6(capability):
    assert [tag_of(cuda, capability) for cuda in (12, 13)] == [None, "cu130"]


@pytest.mark.parametrize("capability", [KEPLER, (13, 0)])
def test_a_card_before_maxwell_or_after_blackwell_has_no_build(capability):
    assert [tag_of(cuda, capability) for cuda in (12, 13)] == [None, None]


# ---- the installed one ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "driver", "cards", "works", "level", "words"),
    [
        (CU130, R580, (ADA,), True, "good", ()),
        (CU130, R590, (TURING, RTX_50), True, "good", ()),
        (CU130, "", (ADA,), True, "good", ()),
        (CU130, R570, (ADA,), False, "unusable", ("driver 570.133.20 runs CUDA up to 12", "tagged cu126")),
        (CU130, OLD, (ADA,), False, "unusable", ("update NVIDIA's driver to 580",)),
        (CU130, R570, (RTX_50,), False, "unusable", ("update NVIDIA's driver to 580", "tagged cu130")),
        (CU130, R580, (VOLTA,), True, "unusable", ("GPU 0 (card 0, sm_70)", "only sm_75", "tagged cu126")),
        (CU130, R580, (ADA, PASCAL), True, "unusable", ("GPU 1 (card 1, sm_61)", "tagged cu126")),
        (CU130, R580, (RTX_50, VOLTA), True, "unusable", ("a miner for each kind", "cu130", "cu126")),
        (CU130, R580, (KEPLER,), True, "unusable", ("leave GPU 0", "neither build has kernels")),
        (CU126, R570, (VOLTA,), True, "good", ()),
        (CU126, R580, (PASCAL,), True, "good", ()),
        (CU126, R580, (HOPPER,), True, "slow", ("fast kernels", "use the image tagged cu130")),
        (CU126, R535, (ADA,), True, "slow", ("update NVIDIA's driver to 580", "tagged cu130")),
        (CU126, R580, (ADA, VOLTA), True, "slow", ("a miner of its own", "GPU 0 (card 0, sm_89)")),
        (CU126, R580, (RTX_50,), True, "unusable", ("sm_120", "tagged cu130")),
        (CU126, OLD, (VOLTA,), False, "unusable", ("runs CUDA up to 11", "driver to 525", "tagged cu126")),
        (CU128, R580, (ADA,), True, "slow", ("CUDA 12.8", "tagged cu130")),
        (CU128, R580, (PASCAL,), True, "unusable", ("tagged cu126",)),
        (CU130, R535, (ADA,), True, "good", ()),  # torch started CUDA: that counts more than a table
        (("2.9.1+cpu", "", ()), R580, (ADA,), False, "good", ()),  # the probe has said that it is for the CPU
        (CU130, R580, (None,), True, "good", ()),
    ],
)
def test_the_installed_torch_is_judged_by_driver_and_cards(build, driver, cards, works, level, words):
    found = fit(machine(build, driver, *cards, works=works))
    assert found.level == level
    assert [word for word in words if word not in f"{found.says}: {found.cure}"] == []
    assert bool(found.cure) == (level != "good")


def test_a_torchaudio_that_does_not_load_is_named():
    """PyPI's newest pair: ComfyUI 0.33.0 does not start with it."""
    said = "Detected that PyTorch and TorchAudio were compiled with different CUDA versions."
    found = fit(replace(machine(("2.15.0+cu132", "13.2", CU130[2]), R580, ADA), torchaudio=said))
    assert (found.level, said in found.says, "torch 2.14.1" in found.cure) == ("unusable", True, True)


@pytest.mark.parametrize(
    ("arches", "capability", "expected"),
    [
        (("sm_86",), (8, 9), True),
        (("sm_89",), (8, 6), False),
        (("sm_86",), (9, 0), False),
        (("sm_80", "compute_80"), (12, 0), True),
        (("sm_90a",), (9, 0), True),
        (("sm_100a",), (10, 3), False),
        (("sm_100f",), (10, 3), True),
        (("sm_120",), (12, 1), True),
        (("compute_120",), (10, 0), False),
        ((), (7, 0), True),
        (("gfx1100",), (7, 0), True),
        (("sm_75",), None, True),
    ],
)
def test_kernels_run_on_the_cards_that_cuda_promises(arches, capability, expected):
    assert runs(arches, capability) is expected


def test_every_advice_ends_in_a_build_that_fits_or_a_new_driver():
    """Over all pairs of cards and drivers: what is advised is not refused again."""
    for driver in (OLD, R525, R570, R580, R590):
        for capability in (MAXWELL, PASCAL, VOLTA, TURING, AMPERE, ADA, HOPPER, BLACKWELL, RTX_50):
            said = advice(machine(CU130, driver, capability))
            if "update" not in said:
                build = CU126 if "tagged cu126" in said else CU130
                assert fit(machine(build, driver, capability)).level != "unusable"


# ---- the line for a container's log -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "code", "start"),
    [
        (machine(CU130, R580, ADA), 0, ""),
        (machine(CU126, R580, ADA), 0, ""),
        (machine(CU130, R570, ADA, works=False), 2, "error: torch 2.14.1+cu130 is built for CUDA 13.0; driver 570"),
        (machine(CU130, R580, VOLTA), 2, "error: torch 2.14.1+cu130 has no kernels for GPU 0"),
        (machine(CU130, R580, ADA, works=False), 1, "warning: torch 2.14.1+cu130 cannot use them"),
        (Gpus(problem="no GPU was found: no driver"), 1, "warning: no GPU was found"),
    ],
)
def test_one_line_tells_why_torch_cannot_use_the_gpu(found, code, start):
    line, ended = complaint(found)
    assert ended == code
    assert line.startswith(start)
    assert bool(line) == bool(start)
    assert "\n" not in line
