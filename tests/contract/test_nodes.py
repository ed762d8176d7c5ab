"""What the nodes make."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image, ImageChops

from .graphs import Graph, color, empty, encoded, node, picture, prefix
from .wire import Comfy, Ran


def save(last: str = "2", **nodes: dict[str, Any]) -> Graph:
    """Nodes named n1, n2 … as 1, 2 …, and a node that saves one of them."""
    graph = {name.removeprefix("n"): found for name, found in nodes.items()}
    return {**graph, "save": node("SaveImage", images=[last, 0], filename_prefix=prefix())}


def pictures(comfy: Comfy, graph: Graph) -> list[Image.Image]:
    return [comfy.image(file).convert("RGB") for file in comfy.run(graph).files]


def loaded(comfy: Comfy, data: bytes, name: str) -> list[Image.Image]:
    where = comfy.upload(name, data, subfolder="contract", overwrite="true")
    return pictures(comfy, save("1", n1=node("LoadImage", image=where)))


def need(comfy: Comfy, name: str) -> None:
    if not comfy.has(name):
        pytest.skip(f"{name} is not there: the extra `engine` is not installed")


def test_an_empty_image_has_size_color_and_number(comfy: Comfy) -> None:
    shade = color()
    found = pictures(comfy, save("1", n1=empty(width=5, height=7, batch_size=3, color=shade)))
    expected = Image.new("RGB", (5, 7), (shade >> 16, shade >> 8 & 255, shade & 255))
    assert [image.tobytes() for image in found] == [expected.tobytes()] * 3
    assert found[0].size == (5, 7)


@pytest.mark.parametrize(("method", "size", "resampling"), [("lanczos", (33, 71), 1), ("nearest-exact", (150, 120), 0)])
def test_scaling_is_exact(comfy: Comfy, method: str, size: tuple[int, int], resampling: int) -> None:
    source = picture((50, 40))
    name = comfy.upload("source.png", encoded(source), subfolder="contract", overwrite="true")
    scale = node("ImageScale", image=["1", 0], upscale_method=method, width=size[0], height=size[1], crop="disabled")
    (found,) = pictures(comfy, save(n1=node("LoadImage", image=name), n2=scale))
    assert found.tobytes() == source.resize(size, Image.Resampling(resampling)).tobytes()


@pytest.mark.parametrize("method", ["bilinear", "bicubic", "area"])
def test_every_method_scales(comfy: Comfy, method: str) -> None:
    scale = node("ImageScaleBy", image=["1", 0], upscale_method=method, scale_by=2)
    (found,) = pictures(comfy, save(n1=empty(width=20, height=10, color=0x102030), n2=scale))
    assert (found.size, found.getpixel((5, 5))) == ((40, 20), (16, 32, 48))


@pytest.mark.parametrize(("size", "box"), [((40, 20), (0, 10, 40, 30)), ((20, 40), (10, 0, 30, 40))])
def test_scaling_can_crop_to_the_centre(comfy: Comfy, size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    source = picture((40, 40))
    name = comfy.upload("source.png", encoded(source), subfolder="contract", overwrite="true")
    scale = node("ImageScale", image=["1", 0], upscale_method="lanczos", width=size[0], height=size[1], crop="center")
    (found,) = pictures(comfy, save(n1=node("LoadImage", image=name), n2=scale))
    assert found.tobytes() == source.crop(box).resize(size, Image.Resampling.LANCZOS).tobytes()


@pytest.mark.parametrize(("asked", "given"), [((80, 0), (80, 60)), ((0, 60), (80, 60)), ((0, 0), (40, 30))])
def test_a_side_of_nought_follows_the_other(comfy: Comfy, asked: tuple[int, int], given: tuple[int, int]) -> None:
    scale = node(
        "ImageScale", image=["1", 0], upscale_method="lanczos", width=asked[0], height=asked[1], crop="disabled"
    )
    (found,) = pictures(comfy, save(n1=empty(width=40, height=30), n2=scale))
    assert found.size == given


def test_alpha_is_a_mask_that_can_be_scaled_and_joined_again(comfy: Comfy) -> None:
    source = picture((20, 10)).convert("RGBA")
    source.putalpha(Image.linear_gradient("L").resize((20, 10)))
    name = comfy.upload("source.png", encoded(source), subfolder="contract", overwrite="true")
    graph = save(
        "5",
        n1=node("LoadImage", image=name),
        n2=node("MaskToImage", mask=["1", 1]),
        n3=node("ImageScaleBy", image=["2", 0], upscale_method="lanczos", scale_by=1),
        n4=node("ImageToMask", image=["3", 0], channel="red"),
        n5=node("JoinImageWithAlpha", image=["1", 0], alpha=["4", 0]),
    )
    found = comfy.image(comfy.run(graph).files[0])
    assert found.mode == "RGBA"
    assert found.convert("RGB").tobytes() == source.convert("RGB").tobytes()
    difference = ImageChops.difference(found.getchannel("A"), source.getchannel("A"))
    assert difference.getextrema()[1] <= 1


def test_a_mask_of_another_size_is_scaled_when_it_is_joined(comfy: Comfy) -> None:
    name = comfy.upload("opaque.png", encoded(picture((70, 90))), subfolder="contract", overwrite="true")
    join = node("JoinImageWithAlpha", image=["1", 0], alpha=["1", 1])  # of 64 x 64
    found = comfy.image(comfy.run(save(n1=node("LoadImage", image=name), n2=join)).files[0])
    assert (found.mode, found.size, found.getchannel("A").getextrema()) == ("RGBA", (70, 90), (255, 255))


def test_inverting_inverts(comfy: Comfy) -> None:
    source = picture()
    name = comfy.upload("source.png", encoded(source), subfolder="contract", overwrite="true")
    (found,) = pictures(comfy, save(n1=node("LoadImage", image=name), n2=node("ImageInvert", image=["1", 0])))
    difference = ImageChops.difference(found, ImageChops.invert(source))
    assert max(high for _, high in difference.getextrema()) <= 1  # ComfyUI rounds its floats down


def test_a_batch_is_repeated_in_order(comfy: Comfy) -> None:
    graph = save(n1=empty(batch_size=2), n2=node("RepeatImageBatch", image=["1", 0], amount=3))
    assert len(comfy.run(graph).files) == 6


def test_a_loaded_png_is_what_it_was(comfy: Comfy) -> None:
    source = picture()
    (found,) = loaded(comfy, encoded(source), "exact.png")
    assert found.tobytes() == source.tobytes()


def test_transparency_is_left_out(comfy: Comfy) -> None:
    source = picture(mode="RGBA")
    (found,) = loaded(comfy, encoded(source), "alpha.png")
    assert found.tobytes() == source.convert("RGB").tobytes()


def test_a_picture_that_lies_on_its_side_is_put_up(comfy: Comfy) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    (found,) = loaded(comfy, encoded(picture((40, 20)), "JPEG", exif=exif), "turned.jpg")
    assert found.size == (20, 40)


def test_every_frame_of_an_animation_is_loaded(comfy: Comfy) -> None:
    frames = [Image.new("RGB", (16, 16), shade) for shade in ("red", "green", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert len(loaded(comfy, data, "moving.gif")) == 3


def video(comfy: Comfy, saver: dict[str, Any], **extra: dict[str, Any]) -> Ran:
    graph = {"1": empty(batch_size=4), **extra, "3": saver}
    return comfy.run(graph)


def test_an_animated_webp_has_every_frame_and_the_graph(comfy: Comfy) -> None:
    name = comfy.upload("source.png", encoded(picture((20, 10))), subfolder="contract", overwrite="true")
    inputs = {"fps": 10.0, "lossless": True, "quality": 80, "method": "fastest", "filename_prefix": prefix()}
    graph = {
        "1": node("LoadImage", image=name),
        "2": node("RepeatImageBatch", image=["1", 0], amount=2),
        "3": node("SaveAnimatedWEBP", images=["2", 0], **inputs),
    }
    ran = comfy.run(graph)
    (shown,) = ran.entry["outputs"].values()
    assert shown["animated"] == [True]
    with comfy.image(shown["images"][0]) as found:
        assert (found.format, found.size) == ("WEBP", (20, 10))
        assert found.getexif()[0x0110].startswith('prompt:{"1"')


def test_a_single_frame_is_not_called_animated(comfy: Comfy) -> None:
    inputs = {"fps": 10.0, "lossless": False, "quality": 80, "method": "default", "filename_prefix": prefix()}
    ran = comfy.run({"1": empty(), "2": node("SaveAnimatedWEBP", images=["1", 0], **inputs)})
    assert ran.entry["outputs"]["2"].get("animated") == (None if comfy.newer else [False])


def decoded(data: bytes) -> dict[str, Any]:
    av = pytest.importorskip("av")
    with av.open(io.BytesIO(data)) as container:
        (stream,) = container.streams.video
        frames = list(container.decode(stream))
        return {
            "codec": stream.codec_context.name,
            "size": (frames[0].width, frames[0].height),
            "frames": len(frames),
            "fps": float(stream.average_rate),
            "metadata": {key.lower(): value for key, value in container.metadata.items()},
        }


@pytest.mark.parametrize("choice", [{"format": "mp4", "codec": "h264"}, {"format": "auto", "codec": "auto"}])
def test_a_video_is_h264_in_mp4(comfy: Comfy, choice: dict[str, str]) -> None:
    need(comfy, "SaveVideo")
    create = node("CreateVideo", images=["1", 0], fps=12.0)
    ran = video(comfy, node("SaveVideo", video=["2", 0], filename_prefix=prefix(), **choice), **{"2": create})
    (shown,) = ran.entry["outputs"].values()
    (file,) = shown["images"]
    assert (file["filename"], file["type"], shown["animated"]) == ("out_00001_.mp4", "output", [True])
    answer = comfy.view(file)
    assert answer.headers["content-type"] == "video/mp4"
    found = decoded(answer.content)
    assert (found["codec"], found["size"], found["frames"], found["fps"]) == ("h264", (64, 48), 4, 12.0)
    assert "CreateVideo" in found["metadata"]["prompt"]


def test_the_newer_versions_way_to_name_a_codec(comfy: Comfy) -> None:
    need(comfy, "SaveVideo")
    create = node("CreateVideo", images=["1", 0], fps=12.0)
    inputs = {"video": ["2", 0], "filename_prefix": prefix(), "format": "mp4", "format.codec": "h264"}
    graph = {"1": empty(batch_size=2), "2": create, "3": node("SaveVideo", **inputs)}
    if comfy.newer:
        assert comfy.run(graph).files[0]["filename"] == "out_00001_.mp4"
    else:
        assert comfy.prompt(graph).json()["node_errors"]["3"]["errors"][0]["details"] == "codec"


def test_a_side_of_odd_length_cannot_be_h264(comfy: Comfy) -> None:
    need(comfy, "SaveVideo")
    inputs = {"video": ["2", 0], "filename_prefix": prefix(), "format": "mp4", "codec": "h264"}
    create = node("CreateVideo", images=["1", 0], fps=12.0)
    ran = comfy.run({"1": empty(width=63), "2": create, "3": node("SaveVideo", **inputs)})
    assert ran.event("execution_error")["exception_type"].startswith("av.")


def test_a_webm_is_vp9(comfy: Comfy) -> None:
    need(comfy, "SaveWEBM")
    inputs = {"images": ["1", 0], "filename_prefix": prefix(), "codec": "vp9", "fps": 12.0, "crf": 32.0}
    ran = video(comfy, node("SaveWEBM", **inputs))
    (file,) = ran.files
    found = decoded(comfy.view(file).content)
    assert file["filename"] == "out_00001_.webm"
    assert (found["size"], found["frames"], found["fps"]) == ((64, 48), 4, 12.0)
    assert found["codec"].endswith("vp9")
    assert "SaveWEBM" in found["metadata"]["prompt"]


def upscaled(comfy: Comfy, model: str) -> Graph:
    """An empty image that a model of that name makes larger, saved."""
    need(comfy, "ImageUpscaleWithModel")
    load = node("UpscaleModelLoader", model_name=model)
    scale = node("ImageUpscaleWithModel", upscale_model=["2", 0], image=["1", 0])
    return save("3", n1=empty(width=600, height=40), n2=load, n3=scale)


def test_a_model_upscales_in_tiles_and_tells_each(comfy: Comfy) -> None:
    models = comfy.get("/models/upscale_models").json()
    if not models:
        pytest.skip("there is no model in upscale_models")
    graph = upscaled(comfy, models[0])
    ran = comfy.run(graph)
    steps = [event.data for event in ran.events if event.outline == "progress"]
    assert (steps[-1]["value"], steps[-1]["max"], steps[-1]["node"]) == (2, 2, "3")
    width, height = comfy.image(ran.files[0]).size
    assert (width % 600, width // 600) == (0, height // 40)


def test_a_model_that_is_not_there(comfy: Comfy) -> None:
    graph = upscaled(comfy, "missing.safetensors")
    if comfy.newer:
        assert comfy.prompt(graph).json()["node_errors"]["2"]["errors"][0]["type"] == "value_not_in_list"
    else:
        error = comfy.run(graph).event("execution_error")
        message = "Model in folder 'upscale_models' with filename 'missing.safetensors' not found.\n"
        assert (error["exception_type"], error["exception_message"]) == ("FileNotFoundError", message)
