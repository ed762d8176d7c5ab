"""What a task may say: the kinds of parameter that a manifest can declare, and how a value of each is taken.

Promises: `parse` gives a checked value of the kind's own type, or raises Refused with a reason that names the allowed
range. Every input is bounded before it is looked at; nothing of it is evaluated, opened or fetched here.
Never: I/O, a value outside the declared bounds, or a type that the manifest did not ask for (no `true` for 1).
"""

from __future__ import annotations

import math
import re
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from miner.task.stages import Value

T = TypeVar("T")
Names = Annotated[tuple[T, ...], Field(strict=False)]  # TOML has arrays, not tuples; the items stay strict
Number = TypeVar("Number", int, float)

LONGEST_URL = 8_192  # characters
LONGEST_DATA_URI = 70_000_000  # characters: 50 MB in base64, and room for its header
LONGEST_NAME = 255  # characters of an enum's or a LoRA's name
SEEDS = 2**63  # seeds are below this; ComfyUI takes them below 2**64
DRAWN_SEEDS = 2**53  # those that we draw also survive a consumer that reads JSON numbers as doubles

LONGEST_SHOWN = 30  # characters of a value that a message repeats

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_DECIMAL = re.compile(r"-?[0-9]{1,20}\.[0-9]{1,20}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all of category Cc but tab and newline
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f-\xa0\ud800-\udfff\ufffe\uffff]")


class Refused(ValueError):
    """A value will not do. The message follows the parameter's name: `is 7; it must be …`."""


def shown(value: object) -> str:
    """`value` for a message: at most 50 characters on one line.

    A longer text may be a prompt in a wrong field; it is not repeated, since messages are logged and kept.
    """
    match value:
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case int() if abs(value) >= 10**18:
            return "a number of 19 digits or more"
        case int() | float():
            return str(value)
        case str() if len(value) > LONGEST_SHOWN:
            return f"a text of {len(value):,} characters"
        case str():
            return f"'{printable(value)}'"
        case Mapping():
            return "an object"
    return "an array"


def printable(text: str) -> str:
    """`text` with `?` for what would break a line or a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def clean_text(text: str, *, longest: int) -> str:
    """`text` in Unicode NFC with `\\n` line ends. Raises Refused: too long, control characters, lone surrogates."""
    if len(text) > longest:
        raise Refused(f"is {len(text)} characters long; {longest} are allowed")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if found := _CONTROL.search(text):
        raise Refused(f"holds the control character U+{ord(found[0]):04X}; only newlines and tabs are allowed")
    if _SURROGATE.search(text):
        raise Refused("holds half of a surrogate pair; send valid Unicode")
    text = unicodedata.normalize("NFC", text)
    if len(text) > longest:
        raise Refused(f"is {len(text)} characters long in Unicode's NFC; {longest} are allowed")
    return text


def number_of(value: object) -> int | float | None:
    """The finite number that `value` is, or spells plainly (`12`, `-0.5`); None for anything else."""
    if isinstance(value, str):
        if _INTEGER.fullmatch(value):
            return int(value)
        return float(value) if _DECIMAL.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def on_grid(value: Number, *, start: Number, step: Number | None) -> Number:
    """The number `start + k * step` that is nearest to `value`; the greater one of two. No step: `value` itself."""
    if step is None:
        return value
    nearest = start + (2 * (value - start) + step) // (2 * step) * step
    return round(nearest, 9) if isinstance(nearest, float) else nearest


def _check_range(low: Number, high: Number, step: Number | None) -> None:
    if low > high:
        raise ValueError(f"min is {low}, which is more than max, {high}")
    if on_grid(high, start=low, step=step) != high:  # so that rounding never leaves the bounds
        raise ValueError(f"max is {high}, which is not min + k * step ({low} + k * {step})")


class _Kind(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    required: bool = False
    bind: Names[str] = ()  # "node.input" places; none: accepted, and without effect
    description: str = ""


class StringParameter(_Kind):
    """Text. A required one must say something."""

    type: Literal["string"]
    default: str | None = None
    max_length: Annotated[int, Field(ge=1, le=100_000)]  # characters (code points)
    refuse: Names[Annotated[str, Field(min_length=1)]] = ()  # what a node would act upon, rather than read

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise Refused(f"is {shown(value)}; it must be a string of at most {self.max_length} characters")
        text = clean_text(value, longest=self.max_length)
        if self.required and not text.strip():
            raise Refused("is empty; it must say something")
        if forbidden := [piece for piece in self.refuse if piece in text]:
            raise Refused(f"holds '{forbidden[0]}', which is not allowed")
        return text


class IntParameter(_Kind):
    """A whole number. With a step it is rounded to the nearest of min, min + step, min + 2 * step …"""

    type: Literal["int"]
    default: int | None = None
    min: int
    max: int
    step: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        _check_range(self.min, self.max, self.step)
        return self

    def parse(self, value: object) -> int:
        number = number_of(value)
        if number is None or number != math.floor(number) or not self.min <= number <= self.max:
            raise Refused(f"is {shown(value)}; it must be a whole number from {self.min} to {self.max}")
        return on_grid(int(number), start=self.min, step=self.step)


class FloatParameter(_Kind):
    """A number. With a step it is rounded as an int's is."""

    type: Literal["float"]
    default: float | None = None
    min: Annotated[float, Field(allow_inf_nan=False)]
    max: Annotated[float, Field(allow_inf_nan=False)]
    step: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        _check_range(self.min, self.max, self.step)
        return self

    def parse(self, value: object) -> float:
        number = number_of(value)
        if number is None or not self.min <= number <= self.max:
            raise Refused(f"is {shown(value)}; it must be a number from {self.min:g} to {self.max:g}")
        return on_grid(float(number), start=self.min, step=self.step) + 0.0  # never -0.0


class BoolParameter(_Kind):
    """`true` or `false` as JSON has them: ComfyUI takes the string "false" for true."""

    type: Literal["bool"]
    default: bool | None = None

    def parse(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise Refused(f"is {shown(value)}; it must be true or false")
        return value


class EnumParameter(_Kind):
    """One of a list. A value can set other parameters, whatever the task says of them.

    With `first_word`, what follows a value and a space is ignored: `16:9 landscape 1344x768` is `16:9`.
    """

    type: Literal["enum"]
    default: str | None = None
    values: Annotated[Names[str], Field(min_length=1)]
    first_word: bool = False
    sets: dict[str, dict[str, Value]] = {}

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        if strangers := [value for value in self.sets if value not in self.values]:
            raise ValueError(f"sets names '{strangers[0]}', which is none of its values")
        if len(set(self.values)) < len(self.values):
            raise ValueError("values holds one value twice")
        return self

    def parse(self, value: object) -> str:
        if isinstance(value, str) and len(value) <= LONGEST_NAME:
            if value in self.values:
                return value
            word = value.partition(" ")[0]
            if self.first_word and word in self.values and value.isprintable():
                return word
        raise Refused(f"is {shown(value)}; it must be one of {', '.join(self.values)}")


class SeedParameter(_Kind):
    """Where a random start comes from: drawn where the task gives none, and always reported."""

    type: Literal["seed"]
    default: None = None
    min: Annotated[int, Field(ge=0)] = 0
    max: Annotated[int, Field(lt=SEEDS)] = SEEDS - 1

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        _check_range(self.min, self.max, None)
        return self

    def parse(self, value: object) -> int:
        number = number_of(value)
        if number is None or number != math.floor(number) or not self.min <= number <= self.max:
            raise Refused(f"is {shown(value)}; it must be a whole number from {self.min} to {self.max}, or left out")
        return int(number)

    def draw(self) -> int:
        """A seed that nobody can guess, below 2**53 where the bounds let it be."""
        return self.min + secrets.randbelow(min(self.max - self.min + 1, DRAWN_SEEDS))


class ImageParameter(_Kind):
    """A picture's address: http, https or data. Only its spelling is checked here; `inputs` fetches it."""

    type: Literal["image"]
    default: None = None

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise Refused(f"is {shown(value)}; it must be the URL of an image")
        start = value[:8].lower()
        if not start.startswith(("https://", "http://", "data:")):
            raise Refused("is no URL of an image; it must begin with https://, http:// or data:")
        longest = LONGEST_DATA_URI if start.startswith("data:") else LONGEST_URL
        if len(value) > longest:
            raise Refused(f"is {len(value)} characters long; {longest} are allowed")
        if _NOT_IN_URL.search(value):
            raise Refused("holds a space or a control character; encode them as a URL does")
        return value


class LoraParameter(_Kind):
    """One of the LoRAs that ComfyUI lists, with or without `.safetensors`.

    One in a sub-folder answers only to its full listed name (`sub/name.safetensors`), so that a plain name has one
    meaning. A name that is listed as it stands comes before one that is listed with `.safetensors` added.
    """

    type: Literal["lora"]
    default: None = None

    def pick(self, value: object, loras: Sequence[str]) -> str:
        """The name in `loras` that `value` stands for. Raises Refused."""
        if isinstance(value, str) and len(value) <= LONGEST_NAME:
            for name in (value, f"{value}.safetensors"):
                if name in loras:
                    return name
        known = [name.removesuffix(".safetensors") for name in loras if name.isprintable()]
        offer = f"one of {', '.join(known[:8])}{' …' if len(known) > 8 else ''}" if known else "left out: none is here"
        raise Refused(f"is {shown(value)}; it must be {offer}")


Plain = StringParameter | IntParameter | FloatParameter | BoolParameter | EnumParameter  # those with defaults
Parameter = Annotated[Plain | SeedParameter | ImageParameter | LoraParameter, Field(discriminator="type")]


def place_of(bind: str) -> tuple[str, str]:
    """`node.input` as (node, input). Node ids hold no dot; an input's name may (`format.codec`)."""
    node, _, name = bind.partition(".")
    return node, name
