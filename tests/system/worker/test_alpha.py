"""Transparent pictures on their whole way: kept for a graph that uses the mask, and enlarged by the upscalers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.testbed import Testbed
from tests.support.transparent import cut_out, encoded

MASK = {
    "image": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "m": {"class_type": "MaskToImage", "inputs": {"mask": ["image", 1]}},
    "save": {"class_type": "SaveImage", "inputs": {"images": ["m", 0], "filename_prefix": "x"}},
}
IMAGE = '[parameters.image]\ntype = "image"\nrequired = true\nbind = ["image.image"]\n'


@pytest.fixture(scope="module")
def testbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Testbed]:
    with Testbed(Path(tmp_path_factory.mktemp("alpha"))) as testbed:
        testbed.start_devnet()
        testbed.add_workflow("mask", MASK, parameters=IMAGE)
        testbed.start_worker(testbed.start_engine(), workflows={"4": ["upscaler-lanczos"], "22": ["mask"]})
        yield testbed


def rendered(testbed: Testbed, picture: Image.Image, *, workflow_id: str = "4") -> Image.Image:
    url = testbed.store_input("in.png", encoded(picture, "PNG"))
    (task,) = testbed.ended(testbed.create(workflow_id=workflow_id, parameters={"image": url}))
    assert task["status"] == "finished", task["msg"]
    return Image.open(io.BytesIO(testbed.result(task)))


def test_the_mask_is_what_alpha_leaves_out(testbed: Testbed) -> None:
    result = rendered(testbed, cut_out(), workflow_id="22")
    assert (np.asarray(result.convert("L")) == 255 - np.asarray(cut_out().getchannel("A"))).all()


def test_an_upscaler_keeps_alpha_smooth_and_shows_nothing_hidden(testbed: Testbed) -> None:
    result = rendered(testbed, cut_out())
    assert (result.mode, result.size) == ("RGBA", (256, 256))
    matte = np.asarray(result.getchannel("A")).astype(int)
    expected = np.asarray(cut_out().getchannel("A").resize((256, 256), Image.Resampling.LANCZOS)).astype(int)
    assert abs(matte - expected).max() <= 1
    for ground in ((255, 255, 255), (0, 0, 0), (0, 255, 0)):
        shown = Image.new("RGB", result.size, ground)
        shown.paste(result, mask=result)
        green = np.asarray(shown)[..., 1].astype(int)
        assert (green <= np.round(ground[1] * (255 - matte) / 255) + 4).all()


def test_a_picture_without_alpha_stays_rgb(testbed: Testbed) -> None:
    opaque = cut_out()
    opaque.putalpha(255)
    for picture in (opaque, opaque.convert("RGB")):
        result = rendered(testbed, picture)
        assert result.mode == "RGB"
        assert result.tobytes() == opaque.convert("RGB").resize((256, 256), Image.Resampling.LANCZOS).tobytes()
