"""The types of parameters, and how to parse a task's values.

Promises: `parse` returns a valid value of the declared type, or raises Refused with the allowed range. Input sizes are
limited first; nothing is evaluated, opened or fetched here.
Never: I/O, a value out of bounds, or another type (no `true` for 1).
"""

from __future__ import annotations

import math
import re
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from miner.net.addresses import Refused as NotAReference
from miner.net.references import Reference, parse_reference
from miner.task.stages import Value
from miner.workflows.lora_names import NOWHERE, Elsewhere, LoraBase, find_lora

T = TypeVar("T")
Names = Annotated[tuple[T, ...], Field(strict=False)]  # TOML has arrays, not tuples; the items stay strict
Number = TypeVar("Number", int, float)

ParameterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]

BLANKS = " \t\r\n\f"  # around a URL, where they never belong to it
LONGEST_URL = 8_192  # characters
LONGEST_DATA_URI = 70_000_000  # characters: 50 MB in base64, plus its header
LONGEST_NAME = 255  # characters of an enum value or a LoRA name
SEEDS = 2**64  # exclusive; ComfyUI's limit
DRAWN_SEEDS = 2**53  # random seeds are exact as JSON doubles, too

LONGEST_SHOWN = 30  # characters of a value in a message

_INTEGER = re.compile(r"-?[0-9]{1,20}")
_DECIMAL = re.compile(r"-?[0-9]{1,20}\.[0-9]{1,20}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all of category Cc but tab and newline
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f-\xa0\ud800-\udfff\ufffe\uffff]")


class Refused(ValueError):
    """An invalid value. The message follows the parameter's name: `is 7; it must be …`."""


def shown(value: object) -> str:
    """`value` for a message: at most 50 characters on one line.

    Longer text, perhaps a prompt in a wrong field, is left out: messages are logged and stored.
    """
    match value:
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case int() if abs(value) >= 10**18:
            return "a number of 19 digits or more"
        case int() | float():
            return str(value)
        case str() if len(value) > LONGEST_SHOWN:
            return f"a string of {len(value):,} characters"
        case str():
            return quoted(value)
        case Mapping():
            return "an object"
    return "an array"


def quoted(text: str) -> str:
    """A task's text in a message, so that log and history can leave it out: no quote in it looks like its end."""
    return "'" + printable(text).replace("'", '"') + "'"


def printable(text: str) -> str:
    """`text` with `?` for line breaks and control characters."""
    return "".join(c if c.isprintable() else "?" for c in text)


def clean_text(text: str, *, longest: int) -> str:
    """`text` in Unicode NFC with `\\n` line ends. Raises Refused: too long, control characters, lone surrogates."""
    if len(text) > longest:
        raise Refused(f"is {len(text)} characters long; at most {longest} are allowed")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if found := _CONTROL.search(text):
        raise Refused(f"contains the control character U+{ord(found[0]):04X}; only newlines and tabs are allowed")
    if _SURROGATE.search(text):
        raise Refused("contains a lone surrogate; send valid Unicode")
    text = unicodedata.normalize("NFC", text)
    if len(text) > longest:
        raise Refused(f"is {len(text)} characters long in Unicode NFC; at most {longest} are allowed")
    return text


def number_of(value: object) -> int | float | None:
    """`value` as a finite number, also from plain text (`12`, `-0.5`); else None."""
    if isinstance(value, str):
        if _INTEGER.fullmatch(value):
            return int(value)
        return float(value) if _DECIMAL.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) or math.isfinite(value) else None


def on_grid(value: Number, *, start: Number, step: Number | None, down: bool = False) -> Number:
    """Round `value` to `start + k * step`, ties up; or `down`. Without a step, return it."""
    if step is None:
        return value
    if down:
        return start + (value - start) // step * step
    nearest = start + (2 * (value - start) + step) // (2 * step) * step
    return round(nearest, 9) if isinstance(nearest, float) else nearest


def _check_range(low: Number, high: Number, step: Number | None) -> None:
    if low > high:
        raise ValueError(f"min ({low}) is greater than max ({high})")
    if on_grid(high, start=low, step=step) != high:  # keep rounding within bounds
        raise ValueError(f"max ({high}) is not min + k * step ({low} + k * {step})")


class _Kind(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    required: bool = False
    aliases: Names[ParameterName] = ()  # further names in a task
    bind: Names[str] = ()  # "node.input" places; empty: no effect
    description: str = ""


class StringParameter(_Kind):
    """Text. If required, not blank."""

    type: Literal["string"]
    default: str | None = None
    max_length: Annotated[int, Field(ge=1, le=100_000)]  # characters (code points)
    refuse: Names[Annotated[str, Field(min_length=1)]] = ()  # text that a node would act upon

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise Refused(f"is {shown(value)}; it must be a string of at most {self.max_length} characters")
        text = clean_text(value, longest=self.max_length)
        if self.required and not text.strip():
            raise Refused("is empty; it must contain text")
        if forbidden := [piece for piece in self.refuse if piece in text]:
            raise Refused(f"contains '{forbidden[0]}', which is not allowed")
        return text


class IntParameter(_Kind):
    """A whole number, rounded to min + k * step."""

    type: Literal["int"]
    default: int | None = None
    min: int
    max: int
    step: Annotated[int, Field(ge=1)] | None = None
    round: Literal["nearest", "down"] = "nearest"  # down: as a node that divides by the step

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        _check_range(self.min, self.max, self.step)
        return self

    def parse(self, value: object) -> int:
        number = number_of(value)
        if number is None or number != math.floor(number) or not self.min <= number <= self.max:
            raise Refused(f"is {shown(value)}; it must be a whole number from {self.min} to {self.max}")
        return on_grid(int(number), start=self.min, step=self.step, down=self.round == "down")


class FloatParameter(_Kind):
    """A number, rounded to min + k * step."""

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
    """A JSON `true` or `false`: to ComfyUI, the string "false" is true."""

    type: Literal["bool"]
    default: bool | None = None

    def parse(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise Refused(f"is {shown(value)}; it must be true or false")
        return value


class EnumParameter(_Kind):
    """One of a list. A value can set other parameters, overriding the task.

    `first_word` ignores text after a space: `16:9 landscape 1344x768` is `16:9`.
    """

    type: Literal["enum"]
    default: str | None = None
    values: Annotated[Names[str], Field(min_length=1)]
    first_word: bool = False
    sets: dict[str, dict[str, Value]] = {}

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        if strangers := [value for value in self.sets if value not in self.values]:
            raise ValueError(f"sets '{strangers[0]}' is not in values")
        if len(set(self.values)) < len(self.values):
            raise ValueError("values contains a duplicate")
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
    """A random seed: drawn if the task has none or asks for one (-1, `random`), and always reported."""

    type: Literal["seed"]
    default: None = None
    min: Annotated[int, Field(ge=0)] = 0
    max: Annotated[int, Field(lt=SEEDS)] = SEEDS - 1

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        _check_range(self.min, self.max, None)
        return self

    def is_left_open(self, value: object) -> bool:
        """Whether a task leaves it to the miner, as clients write that: null, -1, `random`, or nothing."""
        if isinstance(value, str) and value.strip().lower() in ("", "random"):
            return True
        return value is None or number_of(value) == -1

    def parse(self, value: object) -> int:
        """The seed that `value` is. Raises Refused, also for one that is left open."""
        number = number_of(value)
        if number is None or number != math.floor(number) or not self.min <= number <= self.max:
            allowed = f"a whole number from {self.min} to {self.max}, or -1 for a random one"
            raise Refused(f"is {shown(value)}; it must be {allowed}")
        return int(number)

    def draw(self) -> int:
        """An unpredictable seed, below 2**53 if the bounds allow."""
        return self.min + secrets.randbelow(min(self.max - self.min + 1, DRAWN_SEEDS))


class ImageParameter(_Kind):
    """A picture's http, https or data URL. Only its form is checked here; `media.inputs` fetches it."""

    type: Literal["image"]
    default: None = None
    max_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None  # of the longer side to the shorter

    def parse(self, value: object) -> str:
        if not isinstance(value, str):
            raise Refused(f"is {shown(value)}; it must be an image URL")
        value = value.strip(BLANKS)
        start = value[:8].lower()
        if not start.startswith(("https://", "http://", "data:")):
            raise Refused("is not an image URL; it must start with https://, http:// or data:")
        longest = LONGEST_DATA_URI if start.startswith("data:") else LONGEST_URL
        if len(value) > longest:
            raise Refused(f"is {len(value)} characters long; at most {longest} are allowed")
        if _NOT_IN_URL.search(value):
            raise Refused("contains a space or a control character; percent-encode it")
        return value

    def judge_size(self, size: tuple[int, int]) -> None:
        """Refuse a picture that is too narrow for the graph; `size` is in pixels. Raises Refused."""
        if self.max_ratio is not None and max(size) > self.max_ratio * min(size):
            width, height = size
            raise Refused(
                f"is {width}x{height} pixels; its longer side may be at most {self.max_ratio:g} times the shorter one"
            )


class LoraParameter(_Kind):
    """A LoRA that ComfyUI lists (see `lora_names.find_lora`), or the reference of one elsewhere.

    Subfolders need the full listed name (`sub/name`), so that plain names are unambiguous.
    """

    type: Literal["lora"]
    default: None = None
    base: LoraBase | None = None  # the base model that it has to be for
    bypass: Names[str] = ()  # without a LoRA, its nodes are left out: their output k is what arrives at input bypass[k]

    @model_validator(mode="after")
    def _bypass_fits(self) -> Self:
        if self.bypass and self.required:
            raise ValueError("bypass is never used, since it is required")
        return self

    @property
    def is_expected(self) -> bool:
        """Whether a miner without any LoRA would refuse most tasks: the network's SDK names one in each."""
        return self.required or bool(self.bypass)

    def pick(self, value: object, loras: Sequence[str], elsewhere: Elsewhere = NOWHERE) -> str:
        """The matching name in `loras`, or the text of a reference to fetch. Raises Refused."""
        if isinstance(value, str) and len(value) <= LONGEST_NAME and (name := find_lora(value, loras)) is not None:
            return name
        known = [name.removesuffix(".safetensors") for name in loras if name.isprintable()]
        names = f"it must be one of {', '.join(known[:8])}{' …' if len(known) > 8 else ''}"
        names = names if known else "no LoRA is installed"
        if isinstance(value, str) and (reference := _reference(value)) is not None:
            named = elsewhere.named.get(reference.key)
            if named is not None and named in loras:
                return named
            if not elsewhere.fetched:
                raise Refused(f"is a reference, and this miner fetches no LoRAs; {names}")
            return reference.text
        raise Refused(f"is {shown(value)}; {names}")


def _reference(text: str) -> Reference | None:
    try:
        return parse_reference(text)
    except NotAReference as wrong:
        raise Refused(f"is refused: {wrong}") from None


Plain = StringParameter | IntParameter | FloatParameter | BoolParameter | EnumParameter  # with defaults
Parameter = Annotated[Plain | SeedParameter | ImageParameter | LoraParameter, Field(discriminator="type")]


def place_of(bind: str) -> tuple[str, str]:
    """Split `node.input`. Node ids contain no dots; input names may (`format.codec`)."""
    node, _, name = bind.partition(".")
    return node, name
