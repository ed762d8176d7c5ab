"""Every setting of the miner: its type, bounds, default and unit.

A `Settings` that exists is valid, and frozen. Making one reads no file and no environment: `load_settings` does that.
The keys here, config.toml and the variables `XALORA_<SECTION>_<KEY>` are the same set; the tests hold them together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, Strict, model_validator

from miner.config.address import host_port, http_url, http_urls, miner_id, quoted

GPU = re.compile(r"\d+|(GPU|MIG)-[0-9A-Za-z/-]+")


class ChooseOne(ValueError):
    """Settings that exclude each other. `keys` are their names in the section."""

    def __init__(self, reason: str, *, keys: tuple[str, ...]) -> None:
        super().__init__(reason)
        self.keys = keys


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _no_space(secret: SecretStr | None) -> SecretStr | None:
    if secret and not re.fullmatch(r"[!-~]+", secret.get_secret_value()):
        raise ValueError("must be one word of printable ASCII characters")
    return secret


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"must name {quoted(value)} only once")
    return values


def _expanded(path: Path) -> Path:
    if path.parts[:1] == ("~",):
        raise ValueError(f"must be a path without ~, since HOME is not set, not {quoted(str(path))}")
    return path


def _gpu(value: object) -> object:
    text = str(value) if type(value) is int else value
    if isinstance(text, str) and not GPU.fullmatch(text):
        raise ValueError(f'must be numbers or UUIDs of GPUs, such as "0" or "GPU-6f1c…", not {quoted(value)}')
    return text


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Url = Annotated[str, AfterValidator(http_url)]
Urls = Annotated[str, AfterValidator(http_urls)]
Suffix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")]
HostPort = Annotated[str, AfterValidator(host_port)]
Secret = Annotated[SecretStr | None, BeforeValidator(_none_if_empty), AfterValidator(_no_space)]
Folder = Annotated[Path, Strict(False), AfterValidator(_expanded)]
OptionalPath = Annotated[Folder | None, BeforeValidator(_none_if_empty)]
Names = Annotated[tuple[str, ...], Strict(False), AfterValidator(_once)]
Ids = Annotated[Mapping[str, Names], Strict(False)]


class Section(BaseModel):
    """A table of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Sequencer(Section):
    """Who gives out the tasks, and how often it is asked."""

    url: Url = Field(default="https://sequencer-v2.xalora.xyz", min_length=1, description="its base URL")
    api_key: Secret = Field(default=None, description="the key that it gave to you")
    poll_interval: Seconds = Field(default=1.0, description="seconds between two requests while there is nothing to do")
    heartbeat: Seconds = Field(default=10.0, description="seconds between two signs of life while a task runs")
    wait: float = Field(
        default=20.0, ge=0, le=300, description="seconds it may hold a request open until a task is there"
    )
    timeout: Seconds = Field(default=30.0, description="seconds until a request without an answer is given up")


class Miner(Section):
    """Who this miner is, and how it works through its tasks."""

    id: Annotated[str, AfterValidator(miner_id)] = Field(
        default="", description="your EVM address, perhaps with a -suffix"
    )
    suffixes: Annotated[tuple[Suffix, ...], Strict(False), AfterValidator(_once)] = Field(
        default=(), description="one a lane, to tell the ids of several lanes apart; from the GPUs' UUIDs if empty"
    )
    prefetch: int = Field(
        default=1, ge=0, le=8, description="tasks taken ahead of the one that runs, where it is allowed"
    )
    drain_timeout: float = Field(
        default=300.0, ge=0, allow_inf_nan=False, description="seconds to finish in when stopped"
    )
    prefer_warm: bool = Field(default=True, description="ask first for what ComfyUI has in memory already")
    warmup: bool = Field(default=False, description="render one small prompt of each workflow at the start")
    min_free_disk_gb: float = Field(
        default=5.0, ge=0, allow_inf_nan=False, description="GB; with less free, no task is taken"
    )


class Workflows(Section):
    """Which workflows run here, and which ids they answer to."""

    enabled: Names = Field(
        default=("upscaler", "flux-lora", "hunyuan-fp8", "mochi-fp8", "wan22-5b"),
        min_length=1,
        description="names of those that may run",
    )
    folders: Annotated[tuple[Folder, ...], Strict(False)] = Field(
        default=(), description="folders with workflows of your own"
    )
    ids: Ids = Field(default={}, description="the sequencer's workflow id → names, the preferred first")
    unknown_parameters: Literal["ignore", "refuse"] = Field(
        default="ignore", description="what a task's unknown ones meet"
    )


class ComfyUI(Section):
    """The ComfyUI that renders: one that runs already (`url`), or one that the miner starts (`home`)."""

    url: Urls = Field(default="", description="a ComfyUI that runs already, or several, comma-separated: a lane each")
    home: OptionalPath = Field(default=None, description="folder of a ComfyUI that the miner starts, one process a GPU")
    python: OptionalPath = Field(
        default=None, description="the Python that runs it; found in home's venv or .venv if not set"
    )
    port: int = Field(default=8188, ge=1, le=65535, description="port of the first GPU's; the next ones count up")
    args: Annotated[tuple[str, ...], Strict(False)] = Field(default=(), description="further arguments of its main.py")
    start_timeout: Seconds = Field(default=180.0, description="seconds until it has to answer")
    interrupt_grace: Seconds = Field(default=15.0, description="seconds until an ignored interrupt means a restart")
    stall_timeout: Seconds = Field(
        default=900.0, description="seconds without any sign of progress that mean a restart"
    )
    max_rss_gb: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="GB of RAM that mean a restart between tasks"
    )
    output_dir: OptionalPath = Field(default=None, description="its output folder, if url is on this machine")
    input_dir: OptionalPath = Field(default=None, description="its input folder, if url is on this machine")
    gpus: Annotated[tuple[Annotated[str, BeforeValidator(_gpu)], ...], Strict(False), AfterValidator(_once)] = Field(
        default=(), description="numbers or UUIDs of the GPUs to use; all if empty"
    )

    @property
    def urls(self) -> tuple[str, ...]:
        """Each ComfyUI that runs already."""
        return tuple(url for url in self.url.split(",") if url)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.url and self.home:
            raise ChooseOne(
                "url and home are both set: choose url for a ComfyUI that runs already, or home for one to be started",
                keys=("url", "home"),
            )
        return self


class Models(Section):
    """The weights."""

    dir: OptionalPath = Field(default=None, description="ComfyUI's models folder; home/models if not set")


class State(Section):
    """What the miner must not forget."""

    dir: Folder = Field(description="folder of the journal")
    keep_days: int = Field(default=7, ge=1, le=3650, description="days that answered tasks stay in the history")


class Network(Section):
    """What a task may make this machine fetch."""

    allow: Annotated[tuple[HostPort, ...], Strict(False)] = Field(
        default=(), description="host:port of the private network that inputs and uploads may reach"
    )
    input_max_mb: int = Field(default=50, ge=1, le=1024, description="MB; a larger input is refused")
    input_timeout: Seconds = Field(default=30.0, description="seconds for the whole of one input")


class Upload(Section):
    """The S3 store for tasks that come with temporary credentials; presigned uploads need none of it."""

    bucket: str = Field(default="", description="name of the bucket")
    endpoint: Url = Field(default="", description="URL of the store; AWS if empty")
    region: str = Field(default="auto", min_length=1, description="region of the bucket")
    prefix: str = Field(default="", description="what every object's key starts with")
    timeout: Seconds = Field(default=300.0, description="seconds for one upload")


class Log(Section):
    """What is written to the terminal or the journal."""

    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = Field(
        default="INFO", description="the least that is logged"
    )
    format: Literal["auto", "console", "json"] = Field(default="auto", description="console in a terminal, else json")


class Status(Section):
    """The dashboard, /metrics, /healthz and /readyz."""

    enabled: bool = Field(default=True, description="serve them")
    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(default=8199, ge=0, le=65535, description="port to listen on; 0 is any free one")
    token: Secret = Field(default=None, description="what a caller has to show where host is not loopback")


class Settings(Section):
    """All that is configured. In code, `Settings(state={"dir": path}, …)` takes the defaults for the rest."""

    sequencer: Sequencer = Sequencer()
    miner: Miner = Miner()
    workflows: Workflows = Workflows()
    comfyui: ComfyUI = ComfyUI()
    models: Models = Models()
    state: State
    network: Network = Network()
    upload: Upload = Upload()
    log: Log = Log()
    status: Status = Status()
