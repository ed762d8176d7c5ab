"""workflow.toml: a workflow's id, output, requirements and parameters.

Promises: a Manifest from `read_manifest` is complete and consistent; otherwise ConfigError names the file, the key and
the reason. `library` checks it against the graph.
Never: code. A new workflow needs no Python.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from miner.task.errors import ConfigError
from miner.task.stages import Value
from miner.workflows.graph import Place
from miner.workflows.parameters import (
    EnumParameter,
    ImageParameter,
    IntParameter,
    Names,
    Parameter,
    ParameterName,
    Plain,
    Refused,
)

MANIFEST = "workflow.toml"

Gigabytes = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # 10**9 bytes
Version = Annotated[str, Field(pattern=r"^\d{1,4}\.\d{1,4}\.\d{1,4}$")]
Capability = Annotated[str, Field(pattern=r"^\d{1,2}\.\d$")]
WEIGHTS = (".safetensors", ".sft", ".gguf")
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+ -]*$", max_length=255)]
HttpsUrl = Annotated[str, Field(pattern=r"^https://[^\s]+$", max_length=2048)]


Take = Literal["only", "first", "last"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Output(_Section):
    """The node whose files are the result, and their format."""

    node: str
    format: Literal["png", "jpg", "webp", "mp4", "webm"]  # of the upload; ComfyUI's PNG is converted to JPEG
    quality_parameter: str = ""  # the int parameter with the conversion quality
    max_pixels: Annotated[int, Field(ge=1)] = 1 << 28  # of a PNG to convert: 16384 x 16384, 2.4 GB of RAM
    take: Take = "only"  # which of the node's files is the result; "only": it writes one
    mark: bool | None = None  # whether the file says that a model made it; None: unless it upscales


class Needs(_Section):
    """Minimum machine. Node classes follow from the graph, files from [[models]]."""

    vram_gb: Gigabytes  # total of the GPU; ComfyUI moves the rest to RAM, slowly
    disk_gb: Gigabytes = 0.0  # free while a task runs
    comfyui: Version  # minimum version
    compute_capability: Capability = ""  # minimum of an NVIDIA GPU: "8.9" is Ada
    torch_cuda: Capability = ""  # minimum CUDA that torch is built for: "13.0"
    max_pixels: Annotated[int, Field(ge=1)] | None = None  # of an input image: width x height


def weights_file(name: str) -> str:
    """Allow only formats without code: ComfyUI unpickles others."""
    if not name.endswith(WEIGHTS):
        raise ValueError(f"must end in {' or '.join(WEIGHTS)}: other weight files can run code")
    return name


class Model(_Section):
    """A weights file in ComfyUI's models folder."""

    folder: Annotated[str, Field(pattern=r"^[a-z0-9_]+(/[A-Za-z0-9_-]+)*$")]
    name: Annotated[FileName, AfterValidator(weights_file)]
    url: HttpsUrl
    size: Annotated[int, Field(ge=1)] | None = None  # bytes, where known
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None  # where known
    licence: Annotated[str, Field(min_length=1)]
    gated: HttpsUrl | None = None  # the page to accept its license

    @property
    def listed(self) -> str:
        """Its name as ComfyUI lists it, and as a graph has it: with the folders below the kind of model."""
        return f"{self.folder.partition('/')[2]}/{self.name}".lstrip("/")


class VariantNeeds(_Section):
    """What a variant needs beyond the workflow's own [needs]."""

    vram_gb: Gigabytes | None = None
    comfyui: Version | None = None
    compute_capability: Capability | None = None
    torch_cuda: Capability | None = None


class Variant(_Section):
    """Other weights for the same graph, or another type for them. Its files are those of [[models]] that it loads."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    description: Annotated[str, Field(min_length=1)]  # when it is the right one
    needs: VariantNeeds = VariantNeeds()
    sets: dict[str, dict[str, Value]] = {}  # node → input → constant, in place of the graph's

    @property
    def places(self) -> dict[Place, Value]:
        """What `sets` says, by place."""
        return {(node, name): value for node, inputs in self.sets.items() for name, value in inputs.items()}


class Limit(_Section):
    """An upper bound on a product of parameters, such as the pixels of all frames, to bound memory."""

    product: Annotated[Names[str], Field(min_length=2)]
    max: Annotated[int, Field(ge=1)]


def exceeded_limit(limits: tuple[Limit, ...], values: Mapping[str, Value]) -> str:
    """A sentence on the first limit that `values` exceed, or an empty string."""
    for limit in limits:
        factors = [int(values.get(name, 1)) for name in limit.product]
        if (total := math.prod(factors)) > limit.max:
            names, numbers = " x ".join(limit.product), " x ".join(map(str, factors))
            return f"{names} is {numbers} = {total}; at most {limit.max} is allowed"
    return ""


class Manifest(_Section):
    """One workflow.toml."""

    id: Annotated[str, Field(max_length=100)] = ""  # empty: off until config maps an id to it
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    task_type: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]
    description: Annotated[str, Field(min_length=1)]
    timeout_seconds: Annotated[float, Field(gt=0, le=86_400)]  # default for tasks
    output: Output
    needs: Needs
    models: Names[Model] = ()
    variants: Annotated[Names[Variant], Field(min_length=1)] = ()  # best first
    limits: Names[Limit] = ()
    parameters: dict[ParameterName, Parameter]

    @property
    def marked(self) -> bool:
        """Whether results say that a model made them."""
        return self.task_type != "upscaler" if self.output.mark is None else self.output.mark

    def of(self, variant: Variant, models: tuple[Model, ...]) -> Manifest:
        """This manifest with one variant's needs, and `models` alone."""
        own = {key: value for key, value in variant.needs.model_dump().items() if value is not None}
        needs = self.needs.model_copy(update=own)
        return self.model_copy(update={"models": models, "needs": needs, "variants": ()})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for flaw in (*_parameter_flaws(self), *_limit_flaws(self), *_variant_flaws(self)):
            raise ValueError(flaw)
        return self


def _parameter_flaws(manifest: Manifest) -> Iterator[str]:
    """Flaws across parameters, as `key: reason`."""
    taken = dict.fromkeys(manifest.parameters, "a parameter")
    for name, parameter in manifest.parameters.items():
        key = f"parameters.{name}"
        for alias in parameter.aliases:
            if alias in taken:
                yield f"{key}.aliases: '{alias}' is already {taken[alias]}"
            taken[alias] = f"another name of {name}"
        if not (parameter.bind or parameter.description or getattr(parameter, "sets", None)):
            yield f"{key}.bind: is empty; if intended, say why in its description"
        if isinstance(parameter, ImageParameter) and manifest.needs.max_pixels is None:
            yield f"needs.max_pixels: is missing, but {key} takes an image"
        if isinstance(parameter, Plain) and parameter.default is not None:
            if parameter.required:
                yield f"{key}.default: not allowed on a required parameter"
            yield from _fixed_flaws(f"{key}.default", parameter, parameter.default)
        if isinstance(parameter, EnumParameter):
            yield from _sets_flaws(f"{key}.sets", parameter, manifest.parameters)


def _sets_flaws(key: str, enum: EnumParameter, parameters: dict[str, Parameter]) -> Iterator[str]:
    for value, settings in enum.sets.items():
        for target, setting in settings.items():
            parameter = parameters.get(target)
            if isinstance(parameter, Plain) and parameter is not enum:
                yield from _fixed_flaws(f"{key}.{value}.{target}", parameter, setting)
            else:
                yield f"{key}.{value}.{target}: is not another settable parameter"


def _fixed_flaws(key: str, parameter: Plain, value: Value) -> Iterator[str]:
    """A value in the manifest must be valid for a task, without rounding."""
    try:
        parsed = parameter.parse(value)
    except Refused as error:
        yield f"{key}: {error}"
    else:
        if parsed != value:
            yield f"{key}: is {value}, which rounds to {parsed}"


def _limit_flaws(manifest: Manifest) -> Iterator[str]:
    parameters, quality = manifest.parameters, manifest.output.quality_parameter
    if quality and not isinstance(parameters.get(quality), IntParameter):
        yield f"output.quality_parameter: '{quality}' is not an int parameter of this workflow"
    for number, limit in enumerate(manifest.limits):
        for name in limit.product:
            factor = parameters.get(name)
            if not isinstance(factor, IntParameter) or (factor.default is None and not factor.required):
                yield f"limits.{number}.product: '{name}' is not an int parameter that always has a value"
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if isinstance(parameter, Plain) and parameter.default is not None
    }
    enums = [parameter for parameter in parameters.values() if isinstance(parameter, EnumParameter)]
    for values in (defaults, *(defaults | settings for enum in enums for settings in enum.sets.values())):
        if exceeded := exceeded_limit(manifest.limits, values):
            yield f"limits: default values exceed one: {exceeded}"


def _variant_flaws(manifest: Manifest) -> Iterator[str]:
    names = [variant.name for variant in manifest.variants]
    for number, variant in enumerate(manifest.variants):
        key = f"variants.{number}"
        if variant.name in names[:number]:
            yield f"{key}.name: another variant is called '{variant.name}', too"
        if (variant.needs.vram_gb or math.inf) < manifest.needs.vram_gb:
            yield f"{key}.needs.vram_gb: is less than the workflow's own, {manifest.needs.vram_gb:g}"
    places = [(model.folder, model.name) for model in manifest.models]
    for number, place in enumerate(places):
        if place in places[:number]:
            yield f"models.{number}: {'/'.join(place)} is listed twice"


def read_manifest(path: Path) -> Manifest:
    """Read the manifest in `path`. Raises ConfigError naming file, key and reason."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: invalid TOML: {error}") from error
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first, *others = error.errors(include_url=False, include_context=False, include_input=False)
        more = f" (and {len(others)} more)" if others else ""
        raise ConfigError(f"{path}: {_key_and_reason(first)}{more}") from error


def _key_and_reason(error: Any) -> str:
    """A pydantic error as `key: reason`."""
    location = [str(part) for part in error["loc"]]
    if location[:1] == ["parameters"] and len(location) > 2:
        del location[2]  # the parameter type, added by pydantic
    reason = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        reason = "unknown key"
    return ": ".join(filter(None, [".".join(location), reason]))
