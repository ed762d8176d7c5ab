"""What is worth a trial on a card, what a trial means, and how alike two pictures are."""

from __future__ import annotations

import sys

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from miner.doctor.selftest import random_picture
from miner.doctor.similarity import FRAMES, frames_of, similarity
from miner.doctor.tune_candidates import Card, candidates
from miner.doctor.tune_plan import capability, vendor
from miner.doctor.tune_policy import Limits, Trial, noise_of, objection, together, verdict, worth_adding
from miner.machine.gpu import Gpu, Gpus
from miner.machine.software import Basis
from miner.task.errors import MachineFault

OLD = (
    "--use-pytorch-cross-attention --use-sage-attention --use-flash-attention --async-offload --fp8_e4m3fn-unet --fast"
)
FAST = "fp16_accumulation fp8_matrix_mult cublas_ops autotune"
NEW = f"{OLD} --use-ck-attention --enable-triton-backend --disable-async-offload"
ALL = {"torch": "2.11.0+cu130", "sageattention": "2.2", "flash-attn": "2.8", "comfy-kitchen": "0.2", "triton": "3.5"}


def tried(vendor="nvidia", sm=(8, 9), packages=ALL, words=f"{NEW} {FAST}", own=()):
    known = "\n".join(f'parser.add_argument("{word}")' for word in words.split())
    card = Card(vendor=vendor, capability=sm, basis=Basis(packages=packages), known=known, own=own)
    return [one.name.removeprefix("--") for one in candidates(card) if not one.skipped]


ATTENTION = ["use-sage-attention", "use-flash-attention", "use-ck-attention"]
FP8 = ["fast fp8_matrix_mult", "fp8_e4m3fn-unet --fast fp8_matrix_mult"]


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ({}, [*ATTENTION, "fast fp16_accumulation", *FP8, "fast autotune", "enable-triton-backend"]),
        ({"sm": (12, 0), "packages": {"torch": "2.11.0"}}, ["fast fp16_accumulation", *FP8, "fast autotune"]),
        ({"sm": (8, 6)}, [*ATTENTION, "fast fp16_accumulation", "fast autotune", "enable-triton-backend"]),
        ({"sm": (7, 5)}, ["use-ck-attention", "fast fp16_accumulation", "fast autotune"]),
        ({"sm": (6, 1)}, ["fast autotune"]),
        ({"sm": None, "packages": {}}, ["fast fp16_accumulation", *FP8, "fast autotune"]),
        ({"sm": (8, 6), "packages": {"torch": "2.6.0+cu126"}}, ["fast autotune"]),
        (
            {"sm": (8, 6), "packages": {"torch": "2.9.1", "xformers": "0.0.33", "cublas-ops": "0.1"}},
            ["use-pytorch-cross-attention", "fast fp16_accumulation", "fast cublas_ops", "fast autotune"],
        ),
        (
            {"sm": (8, 6), "packages": {"torch": "2.9.1"}, "words": f"{OLD} {FAST}"},
            ["fast fp16_accumulation", "fast autotune", "async-offload"],
        ),
        ({"words": f"{OLD} fp16_accumulation", "packages": {}}, ["fast fp16_accumulation", "async-offload"]),
        ({"words": "--lowvram"}, []),
        ({"own": ("--fast",)}, [*ATTENTION, "enable-triton-backend"]),
        (
            {"own": ("--use-quad-cross-attention", "--bf16-unet")},
            ["fast fp16_accumulation", "fast fp8_matrix_mult", "fast autotune", "enable-triton-backend"],
        ),
        (
            {"vendor": "amd", "sm": (11, 0), "packages": {"torch": "2.9.1+rocm6.4"}},
            ["use-pytorch-cross-attention", "fast fp16_accumulation", "fast autotune"],
        ),
        ({"vendor": "cpu", "sm": None}, ["use-pytorch-cross-attention"]),
    ],
)
def test_what_fits_the_card_and_this_comfyui_is_tried(card, expected):
    assert tried(**card) == expected


def test_whatever_is_skipped_has_a_reason():
    known = " ".join(f'"{word}"' for word in f"{NEW} {FAST}".split())
    found = candidates(Card(vendor="nvidia", capability=(7, 0), basis=Basis(), known=known))
    assert {one.name: one.skipped for one in found if one.skipped}["--use-sage-attention"] == (
        "needs compute capability 8.0"
    )


@pytest.mark.parametrize(
    ("gpus", "here", "own", "expected"),
    [
        ((), Basis(), (), ("cpu", None)),
        ((("A", (8, 9)),), Basis(card="A"), (), ("nvidia", (8, 9))),
        ((("A", (8, 9)),), Basis(card="A"), ("--cpu",), ("cpu", (8, 9))),
        ((("A", (8, 9)), ("B", (8, 6))), Basis(card="B"), (), ("nvidia", (8, 6))),
        ((("A", (8, 9)), ("B", (8, 6))), Basis(card="A + B"), (), ("nvidia", (8, 6))),
        ((("A", (11, 0)),), Basis(packages={"torch": "2.9+rocm6.4"}), (), ("amd", (11, 0))),
        ((), Basis(card="A"), (), ("nvidia", None)),
    ],
)
def test_the_kind_of_card(gpus, here, own, expected):
    cards = tuple(
        Gpu(index=index, name=name, memory_bytes=1, compute_capability=sm) for index, (name, sm) in enumerate(gpus)
    )
    found = Gpus(gpus=cards)
    assert (vendor(found, here, own), capability(found, here)) == expected


# ---- what a trial means -----------------------------------------------------------------------------------------

LIMITS = Limits()


def trial(args="--fast autotune", ssim=0.95, failure="", **seconds):
    warm = {name: tuple(each) if isinstance(each, list) else (each,) for name, each in seconds.items()}
    return Trial(args=tuple(args.split()), warm=warm, ssim=dict.fromkeys(warm, ssim), failure=failure)


REFERENCE = trial("", ssim=1.0, picture=2.0, video=100.0)


@pytest.mark.parametrize(
    ("tuned", "noise", "expected"),
    [
        (trial(picture=1.0, video=80.0), 0.0, ""),
        (trial(picture=1.0), 0.0, ""),  # not finished
        (trial(picture=[9.0, 1.0, 1.0]), 0.0, ""),  # one slow render of three
        (trial(picture=1.0, ssim=0.899), 0.0, "picture looks different: SSIM 0.899, below 0.9"),
        (trial(picture=2.2, video=50.0), 0.0, "picture takes 10% longer"),  # whatever the video gains
        (trial(picture=2.2, video=50.0), 0.2, ""),
        (trial(picture=1.0, failure="out of memory"), 0.0, "out of memory"),
        (Trial(args=("--fast",), warm={"picture": ()}, ssim={"picture": 0.1}), 0.0, "picture looks different"),
    ],
)
def test_what_rules_arguments_out(tuned, noise, expected):
    found = objection(tuned, REFERENCE, LIMITS, noise=noise)
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


def test_the_faster_ones_are_combined_best_first():
    slow, some, most = trial(picture=2.0, video=101.0), trial(picture=2.0, video=99.0), trial(picture=1.0, video=70.0)
    assert worth_adding([slow, some, most], REFERENCE) == [most, some]


@pytest.mark.parametrize(
    ("best", "more", "expected"),
    [
        ("--use-sage-attention", "--use-flash-attention", None),
        ("--use-sage-attention", "--fast autotune", "--use-sage-attention --fast autotune"),
        ("--fast autotune", "--fast cublas_ops", "--fast autotune cublas_ops"),
        ("--fast autotune", "--fast autotune", None),
        ("--fp8_e4m3fn-unet --fast fp8_matrix_mult", "--fast fp8_matrix_mult", None),
        (
            "--fast fp8_matrix_mult",
            "--fp8_e4m3fn-unet --fast fp8_matrix_mult",
            "--fast fp8_matrix_mult --fp8_e4m3fn-unet",
        ),
    ],
)
def test_arguments_are_put_together(best, more, expected):
    assert together(best.split(), more.split()) == (tuple(expected.split()) if expected else None)


GOOD = (REFERENCE, trial(picture=1.0, video=70.0))


@pytest.mark.parametrize(
    ("rounds", "args", "why"),
    [
        ([], "", "nothing that was tried"),
        ([GOOD, GOOD], "--fast autotune", "picture + video in 30% less time than ComfyUI's defaults, SSIM 0.950"),
        ([GOOD, (REFERENCE, REFERENCE)], "", "(0.0% to 30.4%"),  # not in each round
        ([(REFERENCE, trial(picture=2.0, video=98.0))] * 2, "", "saves 2.0% (2.0% to 2.0% in 2 rounds), too little"),
        ([GOOD, (REFERENCE, trial(picture=1.0, video=70.0, ssim=0.5))], "", "not in round 2: picture looks different"),
        ([GOOD, (REFERENCE, trial(failure="out of memory"))], "", "not in round 2: out of memory"),
        (
            [(Trial(args=(), ssim={"picture": 0.5}, warm={"picture": ()}), GOOD[1])],
            "",
            "defaults picture looks different",
        ),
        (
            [(trial("", failure="ComfyUI died"), GOOD[1])],
            "",
            "round 1: it cannot be compared, since with ComfyUI's defaults ComfyUI died",
        ),
    ],
)
def test_the_verdict(rounds, args, why):
    found = verdict(rounds, LIMITS, noise=0.0)
    assert (found.best.args if found.best else ()) == tuple(args.split())
    assert why in found.why


def test_the_noise_is_that_of_the_workflow_that_differs_most():
    assert noise_of(REFERENCE, trial("", picture=2.5, video=100.0)) == pytest.approx(0.25)
    assert noise_of(REFERENCE, REFERENCE) == 0.0


# ---- pictures ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "one.png"
    path.write_bytes(random_picture((256, 256), seed=1))
    with Image.open(path) as image:
        return image.convert("RGB")


def scene(shift=0, circle="white"):
    image = Image.linear_gradient("L").resize((256, 256)).convert("RGB")
    ImageDraw.Draw(image).ellipse((40 + shift, 60, 160 + shift, 180), fill=circle)
    return image


@pytest.mark.parametrize(
    ("change", "low", "high"),
    [
        (lambda image: image, 1.0, 1.0),
        (lambda image: image.point(lambda level: min(level + 1, 255)), 0.99, 1.0),
        (lambda image: image.filter(ImageFilter.GaussianBlur(1)), 0.8, 1.0),
        (ImageChops.invert, -1.0, 0.3),
        (lambda image: image.transpose(Image.Transpose.ROTATE_180), -0.2, 0.3),
        (lambda image: Image.new("RGB", image.size), -0.1, 0.1),  # black
        (lambda image: Image.merge("RGB", image.split()[::-1]), -0.2, 0.3),  # red for blue
    ],
)
def test_how_alike_pictures_are(picture, change, low, high):
    assert low <= similarity([picture], [change(picture)]) <= high


def test_another_place_of_the_subject_is_another_picture():
    assert similarity([scene()], [scene(shift=60)]) < 0.9 < similarity([scene()], [scene()])


def test_what_cannot_be_compared_is_not_alike(picture):
    assert similarity([], []) == similarity([picture], [picture, picture]) == 0.0
    assert similarity([picture], [picture.resize((8, 8))]) == 0.0
    assert similarity([picture.resize((3, 5))], [picture.resize((3, 5))]) == 1.0  # smaller than a block


def test_the_worst_frame_of_an_animation_counts(picture, tmp_path):
    frames = [picture.rotate(7 * number) for number in range(20)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[10] = frames[0]
    frames[0].save(tmp_path / "b.webp", save_all=True, append_images=frames[1:], lossless=True)
    one, other = (frames_of(tmp_path / name, sys.executable) for name in ("a.webp", "b.webp"))
    assert len(one) == FRAMES
    assert similarity(one, one) == 1.0
    assert similarity(one, other) < 0.6


def test_a_video_is_decoded_by_comfyuis_python(picture, tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "x.mp4"), "w") as out:
        stream = out.add_stream("h264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        for number in range(3):
            frame = av.VideoFrame.from_image(picture.rotate(30 * number))
            out.mux(stream.encode(frame.reformat(format="yuv420p")))
        out.mux(stream.encode())
    frames = frames_of(tmp_path / "x.mp4", sys.executable)
    assert len(frames) == 3
    assert similarity(frames[:1], [picture]) > 0.8 > similarity(frames[:1], frames[1:2])
    (tmp_path / "x.mp4").write_bytes(b"no video")
    with pytest.raises(MachineFault, match="cannot decode"):
        frames_of(tmp_path / "x.mp4", sys.executable)


def test_seeded_pictures_are_the_same_every_time():
    assert random_picture((8, 8), seed=3) == random_picture((8, 8), seed=3) != random_picture((8, 8), seed=4)
