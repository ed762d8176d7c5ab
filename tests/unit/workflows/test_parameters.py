"""What `check` accepts, rounds and refuses. None in a row: left to the graph."""

from __future__ import annotations

import math
from typing import Any

import pytest

from miner.task.errors import JobFault
from miner.workflows import Workflow
from tests.support.sample_workflow import LORAS

HUGE = 10**400
GIGANTIC = 1 << 40_000  # more digits than Python turns into a string

REFUSED: list[tuple[dict[str, Any], str]] = [
    # strings
    ({"prompt": None}, "prompt is missing"),
    ({"prompt": ""}, "prompt is empty"),
    ({"prompt": " \n\t"}, "prompt is empty"),
    ({"prompt": 5}, "prompt is 5; it must be a string of at most 40 characters"),
    ({"prompt": True}, "prompt is true; it must be a string"),
    ({"prompt": ["text", 0]}, "prompt is an array; it must be a string"),
    ({"prompt": {"__value__": ["text", 0]}}, "prompt is an object; it must be a string"),
    ({"prompt": "x" * 41}, "prompt is 41 characters long; at most 40 are allowed"),
    ({"prompt": "\N{HEBREW LETTER SHIN}\N{HEBREW POINT SHIN DOT}" * 20 + "x"}, "prompt is 41 characters long"),
    ({"prompt": "\ufb2c" * 40}, "prompt is 120 characters long in Unicode NFC"),
    ({"prompt": "a\x00b"}, "prompt contains the control character U+0000"),
    ({"prompt": "a\x1b[31mb"}, "prompt contains the control character U+001B"),
    ({"prompt": "a\x7fb"}, "prompt contains the control character U+007F"),
    ({"prompt": "a\x85b"}, "prompt contains the control character U+0085"),
    ({"prompt": "a\x0bb"}, "prompt contains the control character U+000B"),
    ({"prompt": "a\ud800b"}, "prompt contains a lone surrogate"),
    ({"prompt": "a\udfff"}, "prompt contains a lone surrogate"),
    ({"prompt": "(embedding:../../secret:1.2)"}, "prompt contains 'embedding:', which is not allowed"),
    ({"style": 1.5}, "style is 1.5; it must be a string"),
    # whole numbers
    ({"width": True}, "width is true; it must be a whole number from 64 to 1024"),
    ({"width": False}, "width is false"),
    ({"width": 63}, "width is 63; it must be a whole number from 64 to 1024"),
    ({"width": 1025}, "width is 1025"),
    ({"width": -64}, "width is -64"),
    ({"width": 100.5}, "width is 100.5"),
    ({"width": math.nan}, "width is nan"),
    ({"width": math.inf}, "width is inf"),
    ({"width": -math.inf}, "width is -inf"),
    ({"width": 1e308}, "width is 1e+308"),
    ({"width": HUGE}, "width is a number of 19 digits or more"),
    ({"width": -HUGE}, "width is a number of 19 digits or more"),
    ({"width": GIGANTIC}, "width is a number of 19 digits or more"),
    ({"width": "1e2"}, "width is '1e2'"),
    ({"width": "0x80"}, "width is '0x80'"),
    ({"width": " 128"}, "width is ' 128'"),
    ({"width": "128\n"}, "width is '128?'"),
    ({"width": "+128"}, "width is '+128'"),
    ({"width": "1_28"}, "width is '1_28'"),
    ({"width": "128."}, "width is '128.'"),
    ({"width": ".5"}, "width is '.5'"),
    ({"width": "١٢٨"}, "width is '١٢٨'"),
    ({"width": "１２８"}, "width is '１２８'"),
    ({"width": "1²"}, "width is '1²'"),
    ({"width": "9" * 21}, "width is '999999999999999999999'"),
    ({"width": "9" * 5000}, "width is a string of 5,000 characters; it must be a whole number"),
    ({"width": ""}, "width is ''"),
    ({"width": "NaN"}, "width is 'NaN'"),
    ({"width": "Infinity"}, "width is 'Infinity'"),
    ({"width": [64]}, "width is an array"),
    ({"width": {}}, "width is an object"),
    ({"width": "\ud800"}, "width is '?'"),
    ({"width": 1024, "height": 1024}, "width x height is 1024 x 1024 = 1048576; at most 500000 is allowed"),
    ({"width": 504, "height": 985}, "width x height is 512 x 992 = 507904; at most 500000 is allowed"),
    # numbers
    ({"strength": True}, "strength is true; it must be a number from 0 to 2"),
    ({"strength": 2.0000001}, "strength is 2.0000001"),
    ({"strength": -1e-9}, "strength is -1e-09"),
    ({"strength": math.nan}, "strength is nan"),
    ({"strength": math.inf}, "strength is inf"),
    ({"strength": HUGE}, "strength is a number of 19 digits or more"),
    ({"strength": -GIGANTIC}, "strength is a number of 19 digits or more"),
    ({"strength": "1.5e0"}, "strength is '1.5e0'"),
    ({"strength": "1,5"}, "strength is '1,5'"),
    ({"strength": "nan"}, "strength is 'nan'"),
    ({"strength": "1.5.5"}, "strength is '1.5.5'"),
    # booleans
    ({"tile": "false"}, "tile is 'false'; it must be true or false"),
    ({"tile": 1}, "tile is 1"),
    ({"tile": 0.0}, "tile is 0.0"),
    ({"tile": []}, "tile is an array"),
    # enums
    ({"shape": "Wide"}, "shape is 'Wide'; it must be one of custom, wide"),
    ({"shape": "wider"}, "shape is 'wider'"),
    ({"shape": " wide"}, "shape is ' wide'"),
    ({"shape": "wide\n800x400"}, "shape is 'wide?800x400'"),
    ({"shape": "wide 800\n400"}, "shape is 'wide 800?400'"),
    ({"shape": "wide " + "x" * 1000}, "shape is a string of 1,005 characters"),
    ({"shape": 1}, "shape is 1"),
    ({"shape": ["wide"]}, "shape is an array"),
    ({"shape": True}, "shape is true"),
    # seeds
    ({"seed": -2}, "seed is -2; it must be a whole number from 0 to 18446744073709551615, or -1 for a random one"),
    ({"seed": 2**64}, "seed is a number of 19 digits or more"),
    ({"seed": 1.5}, "seed is 1.5"),
    ({"seed": True}, "seed is true"),
    ({"seed": "abc"}, "seed is 'abc'"),
    ({"seed": math.nan}, "seed is nan"),
    ({"seed": GIGANTIC}, "seed is a number of 19 digits or more"),
    # LoRAs
    ({"lora_name": "c"}, "lora_name is 'c'; it must be one of a, b, sub/c"),
    ({"lora_name": "c.safetensors"}, "lora_name is 'c.safetensors'"),
    ({"lora_name": "A"}, "lora_name is 'A'"),
    ({"lora_name": ""}, "lora_name is ''"),
    ({"lora_name": "./a"}, "lora_name is './a'"),
    ({"lora_name": "../loras/a.safetensors"}, "lora_name is '../loras/a.safetensors'"),
    ({"lora_name": "/etc/passwd"}, "lora_name is '/etc/passwd'"),
    ({"lora_name": "sub/../a"}, "lora_name is 'sub/../a'"),
    ({"lora_name": "sub\\..\\a"}, "lora_name is 'sub\\..\\a'"),
    ({"lora_name": "a\x00"}, "lora_name is 'a?'"),
    ({"lora_name": "a" * 10_000}, "lora_name is a string of 10,000 characters; it must be one of"),
    ({"lora_name": ["a"]}, "lora_name is an array"),
    ({"lora_name": 1}, "lora_name is 1"),
    # images
    ({"image": 5}, "image is 5; it must be an image URL"),
    ({"image": ""}, "image is not an image URL"),
    ({"image": "photo.png"}, "image is not an image URL"),
    ({"image": "/etc/passwd"}, "image is not an image URL"),
    ({"image": "file:///etc/passwd"}, "it must start with https://, http:// or data:"),
    ({"image": "ftp://example.org/a.png"}, "image is not an image URL"),
    ({"image": "https:example.org"}, "image is not an image URL"),
    ({"image": "data"}, "image is not an image URL"),
    ({"image": "https://example.org/a b.png"}, "image contains a space or a control character"),
    ({"image": "https://example.org/a\r\nHost: evil"}, "image contains a space or a control character"),
    ({"image": "https://example.org/\ud800"}, "image contains a space or a control character"),
    ({"image": "https://example.org/" + "a" * 8_192}, "image is 8212 characters long; at most 8192 are allowed"),
]


@pytest.mark.parametrize(("parameters", "reason"), REFUSED)
def test_a_hostile_value_is_refused_with_its_name_and_what_is_allowed(
    sample: Workflow, parameters: dict[str, Any], reason: str
) -> None:
    with pytest.raises(JobFault) as caught:
        sample.check({"prompt": "a cat", **parameters}, loras=LORAS)

    message = caught.value.message
    assert reason in message
    assert message.isprintable()
    assert len(message) < 200


TAKEN: list[tuple[str, Any, Any]] = [
    ("prompt", "a cat", "a cat"),
    ("prompt", "one\r\ntwo\rthree\tfour", "one\ntwo\nthree\tfour"),
    ("prompt", "cafe\u0301", "caf\u00e9"),
    ("prompt", "👩‍🚀 in space", "👩‍🚀 in space"),
    ("prompt", "  kept as it is ", "  kept as it is "),
    ("prompt", '", "inputs": {}}', '", "inputs": {}}'),
    ("style", "", ""),
    ("style", None, "plain"),
    ("width", 128, 128),
    ("width", 128.0, 128),
    ("width", "128", 128),
    ("width", "128.0", 128),
    ("width", "0128", 128),
    ("width", 71, 64),
    ("width", 72, 80),
    ("width", 135, 128),
    ("width", 1023, 1024),
    ("width", None, 400),
    ("length", 1, 1),
    ("length", 2, 1),
    ("length", 3, 5),
    ("length", 24, 25),
    ("length", 128, 129),
    ("strength", 1, 1.0),
    ("strength", "1.25", 1.25),
    ("strength", "2", 2.0),
    ("strength", -0.0, 0.0),
    ("blur", 0.1, 0.0),
    ("blur", 0.13, 0.25),
    ("blur", 0.9, 1.0),
    ("blur", None, None),
    ("tile", True, True),
    ("tile", None, False),
    ("shape", "custom", "custom"),
    ("shape", "custom 400x400", "custom"),
    ("shape", "wide 800x400", "wide"),
    ("seed", 0, 0),
    ("seed", 2**64 - 1, 2**64 - 1),
    ("seed", "18446744073709551615", 2**64 - 1),
    ("lora_name", "b", "b.safetensors"),
    ("lora_name", "b.safetensors", "b.safetensors"),
    ("lora_name", "a", "a.safetensors"),
    ("lora_name", "a.safetensors", "a.safetensors"),  # as it is listed, not with a second .safetensors
    ("lora_name", "a.safetensors.safetensors", "a.safetensors.safetensors"),
    ("lora_name", "sub/c", "sub/c.safetensors"),
    ("lora_name", "sub/c.safetensors", "sub/c.safetensors"),
    ("lora_name", "sub\\c", "sub/c.safetensors"),  # as on Windows
    ("lora_name", "sub\\d.safetensors", "sub\\d.safetensors"),
    ("lora_name", None, None),
    ("quality", 50, 50),
    ("quality", None, None),
]


@pytest.mark.parametrize(("name", "value", "expected"), TAKEN)
def test_a_good_value_is_taken_rounded_and_of_its_own_type(
    sample: Workflow, name: str, value: Any, expected: Any
) -> None:
    values = sample.check({"prompt": "a cat", name: value}, loras=LORAS).values
    assert values.get(name) == expected
    assert type(values.get(name)) is type(expected)
    assert math.copysign(1, float(values["strength"])) == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a.png?sig=%20x#y",
        "HTTP://EXAMPLE.ORG/a",
        "https://bücher.example/ü.png",
        "data:image/png;base64," + "A" * 1_000_000,
    ],
)
def test_an_image_is_kept_apart_exactly_as_it_was_sent(sample: Workflow, url: str) -> None:
    checked = sample.check({"prompt": "a cat", "image": url}, loras=LORAS)
    assert checked.images == {"image": url}
    assert "image" not in checked.values
    assert "a cat" not in repr(checked)
    assert url not in repr(checked)


@pytest.mark.parametrize("url", ["https://example.org/a.png", "data:image/png;base64,AAAA"])
def test_white_space_around_an_image_does_not_count(sample: Workflow, url: str) -> None:
    checked = sample.check({"prompt": "a cat", "image": f" \t{url}\r\n"}, loras=LORAS)
    assert checked.images == {"image": url}


def test_a_data_uri_is_bounded(sample: Workflow) -> None:
    with pytest.raises(JobFault, match="70000000 are allowed"):
        sample.check({"prompt": "a cat", "image": "data:" + "A" * 70_000_000}, loras=LORAS)


def test_an_enum_sets_other_parameters_whatever_the_task_says_of_them(sample: Workflow) -> None:
    asked = {"prompt": "a cat", "shape": "wide 800x400", "width": 64, "height": 64}
    values = sample.check(asked, loras=LORAS).values
    assert (values["width"], values["height"]) == (800, 400)
    values = sample.check({**asked, "shape": "custom"}, loras=LORAS).values
    assert (values["width"], values["height"]) == (64, 64)


def test_a_seed_is_drawn_and_reported_where_none_is_given(sample: Workflow) -> None:
    seeds = {sample.check({"prompt": "a cat"}, loras=LORAS).values["seed"] for _ in range(20)}
    assert len(seeds) == 20
    assert all(isinstance(seed, int) and 0 <= seed < 2**53 for seed in seeds)


def test_without_loras_the_error_says_so(sample: Workflow) -> None:
    with pytest.raises(JobFault, match="lora_name is 'a'; no LoRA is installed"):
        sample.check({"prompt": "a cat", "lora_name": "a"}, loras=())


def test_a_long_list_of_loras_is_cut(sample: Workflow) -> None:
    with pytest.raises(JobFault, match=r"one of l0, l1, l2, l3, l4, l5, l6, l7 …$"):
        sample.check({"prompt": "a cat", "lora_name": "x"}, loras=[f"l{n}.safetensors" for n in range(500)])


def test_unknown_parameters_are_ignored_and_reported_or_refused(sample: Workflow) -> None:
    asked = {"prompt": "a cat", "color": "red", "\x1b" + "k" * 500: 1, "": None}
    checked = sample.check(asked, loras=LORAS)
    assert checked.ignored == ("color", "?" + "k" * 59, "")
    assert set(checked.values) <= set(sample.manifest.parameters)
    with pytest.raises(JobFault, match="unknown parameter 'color'; sample takes prompt, style"):
        sample.check(asked, loras=LORAS, refuse_unknown=True)


def test_a_flood_of_unknown_parameters_is_reported_in_part(sample: Workflow) -> None:
    assert len(sample.check({"prompt": "x"} | {f"p{n}": n for n in range(10_000)}, loras=()).ignored) == 20
