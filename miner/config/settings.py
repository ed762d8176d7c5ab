"""Every setting of the miner: its type, bounds, default and unit.

A `Settings` is valid and frozen. Creating one reads no file and no environment: `load_settings` does that.
Tests keep these keys, config.toml and the variables `XALORA_<SECTION>_<KEY>` in step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, Strict, model_validator

from miner.config.address import host_pattern, host_port, http_url, http_urls, miner_id, quoted
from miner.config.lora_table import lora_references

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


References = Annotated[Mapping[str, str], Strict(False), AfterValidator(lora_references)]
HostPattern = Annotated[str, AfterValidator(host_pattern)]
LORA_HOSTS = (
    "huggingface.co",
    "*.huggingface.co",
    "hf.co",
    "*.hf.co",  # Hugging Face's storage: https://huggingface.co/.well-known/meta.json
    "civitai.com",
    "*.civitai.com",
    "civitai.red",
    "*.civitai.red",
    "civitai-delivery-worker-prod.5ac0637cfd0766c97916cefa3764fbdf.r2.cloudflarestorage.com",  # Civitai's storage
)


class Section(BaseModel):
    """A table of config.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Sequencer(Section):
    """The server that leases tasks, and how often to ask it."""

    url: Url = Field(default="https://sequencer-v2.xalora.xyz", min_length=1, description="base URL")
    api_key: Secret = Field(default=None, description="API key, if you have one")
    poll_interval: Seconds = Field(default=1.0, description="seconds between lease requests while idle")
    heartbeat: Seconds = Field(default=10.0, description="seconds between heartbeats while a task runs")
    wait: float = Field(
        default=20.0, ge=0, le=300, description="seconds the sequencer may hold an idle request open; 0: off"
    )
    timeout: Seconds = Field(default=30.0, description="request timeout in seconds, plus `wait` for a held one")


class Miner(Section):
    """This miner's identity, and how it works."""

    id: Annotated[str, AfterValidator(miner_id)] = Field(
        default="", description="your EVM address, optionally with a -suffix"
    )
    suffixes: Annotated[tuple[Suffix, ...], Strict(False), AfterValidator(_once)] = Field(
        default=(), description="miner id suffixes, one per lane; default: from GPU UUIDs"
    )
    prefetch: int = Field(default=1, ge=0, le=8, description="tasks to lease ahead, where the sequencer allows it")
    drain_timeout: float = Field(
        default=300.0, ge=0, allow_inf_nan=False, description="seconds for running tasks to finish on shutdown"
    )
    prefer_warm: bool = Field(default=True, description="ask first for the workflow ComfyUI has in memory")
    warmup: bool = Field(default=False, description="render one small prompt per workflow at startup")
    min_free_disk_gb: float = Field(
        default=5.0, ge=0, allow_inf_nan=False, description="GB of free disk below which leasing stops"
    )


class Workflows(Section):
    """Which workflows run here, and their ids."""

    enabled: Names = Field(
        default=("upscaler", "flux-lora", "hunyuan-fp8", "mochi-fp8", "wan22-5b", "wan22-5b-img2vid", "flux-img2img"),
        min_length=1,
        description="workflows that may run",
    )
    folders: Annotated[tuple[Folder, ...], Strict(False)] = Field(
        default=(), description="folders of your own workflows"
    )
    ids: Ids = Field(default={}, description="workflow id → workflows, preferred first")
    variants: Ids = Field(
        default={}, description="workflow → its variants to use, preferred first; default: by the GPU"
    )
    on_cpu: Names = Field(default=(), description="workflows that may run without the GPU that they need, slowly")
    unknown_parameters: Literal["ignore", "refuse"] = Field(
        default="ignore", description="what to do with unknown task parameters"
    )


class ComfyUI(Section):
    """The ComfyUI that renders: a running one (`url`), or one that the miner starts (`home`)."""

    url: Urls = Field(default="", description="running ComfyUIs, comma-separated: one lane each")
    home: OptionalPath = Field(default=None, description="ComfyUI folder; the miner starts one process per GPU")
    python: OptionalPath = Field(default=None, description="its Python; default: home's venv or .venv")
    port: int = Field(default=8188, ge=1, le=65535, description="port on the first GPU; others count up")
    args: Annotated[tuple[str, ...], Strict(False)] = Field(default=(), description="extra arguments for main.py")
    tuned: bool = Field(default=True, description="add the arguments that `xalora-miner bench --tune` chose")
    start_timeout: Seconds = Field(default=180.0, description="seconds to start up")
    give_up_after: Seconds = Field(
        default=1800.0, description="seconds without a ready ComfyUI of the miner's own until it exits, to be restarted"
    )
    interrupt_grace: Seconds = Field(default=15.0, description="seconds to obey an interrupt before a restart")
    stall_timeout: Seconds = Field(
        default=900.0,
        description="seconds of silence before a restart, past a workflow's time limit",
    )
    max_rss_gb: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="GB of RAM before a restart between tasks; 0: no limit"
    )
    output_dir: OptionalPath = Field(default=None, description="output folder of a local url")
    input_dir: OptionalPath = Field(default=None, description="input folder of a local url")
    gpus: Annotated[tuple[Annotated[str, BeforeValidator(_gpu)], ...], Strict(False), AfterValidator(_once)] = Field(
        default=(), description="GPU numbers or UUIDs; default: all"
    )

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs in `url`."""
        return tuple(url for url in self.url.split(",") if url)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.url and self.home:
            raise ChooseOne(
                "url and home are both set: keep url to use a running ComfyUI, or home to start one",
                keys=("url", "home"),
            )
        return self


class Models(Section):
    """Model weights."""

    dir: OptionalPath = Field(default=None, description="ComfyUI's models folder; default: home/models")


class Loras(Section):
    """LoRAs: those that this miner keeps under names of yours, and those that tasks name by reference."""

    files: References = Field(
        default={}, description="name → reference: hf://, civitai: or https://; in config.toml, keys"
    )
    on_demand: bool = Field(default=False, description="fetch a LoRA that a task names by reference")
    hosts: Annotated[tuple[HostPattern, ...], Strict(False)] = Field(
        default=LORA_HOSTS, description="hosts of such references, their CDNs included; *.example.com, or * for all"
    )
    max_mb: int = Field(default=2000, ge=1, le=100_000, description="largest such LoRA in MB (10**6 bytes)")
    quota_gb: float = Field(
        default=20.0, gt=0, allow_inf_nan=False, description="GB of disk for them; the least recently used go first"
    )
    hf_endpoint: Url = Field(default="https://huggingface.co", min_length=1, description="Hugging Face, or a mirror")
    hf_token: Secret = Field(default=None, description="token for such LoRAs on Hugging Face; HF_TOKEN is not used")
    civitai_endpoint: Url = Field(default="https://civitai.com", min_length=1, description="Civitai, or a mirror")
    civitai_token: Secret = Field(default=None, description="API key for LoRAs on Civitai")


class State(Section):
    """Persistent state."""

    dir: Folder = Field(description="state folder, with the journal")
    keep_days: int = Field(default=7, ge=1, le=3650, description="days to keep answered tasks in the history")


class Network(Section):
    """Limits on what tasks can make this machine fetch."""

    allow: Annotated[tuple[HostPort, ...], Strict(False)] = Field(
        default=(), description="private host:port that inputs and uploads may reach"
    )
    input_max_mb: int = Field(default=50, ge=1, le=1024, description="largest input in MB (10**6 bytes)")
    input_timeout: Seconds = Field(default=30.0, description="seconds to fetch one input, plus one per 250 KB")


class Upload(Section):
    """Where tasks with temporary credentials put results: an S3 store, or the network's gateway."""

    bucket: str = Field(default="", description="bucket name; also no part of keys in presigned URLs")
    endpoint: Url = Field(default="", description="store URL; default: AWS")
    region: str = Field(default="auto", min_length=1, description="bucket region")
    prefix: str = Field(default="", description="prefix of object keys")
    gateway: Url = Field(default="", description="URL of an upload gateway, used instead of the bucket; at most 7 MB")
    timeout: Seconds = Field(default=300.0, description="seconds that an upload may stand still")


class Log(Section):
    """Logging."""

    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = Field(
        default="INFO", description="minimum level"
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console in a terminal, else json"
    )


class Status(Section):
    """The dashboard, /metrics, /healthz and /readyz."""

    enabled: bool = Field(default=True, description="serve the dashboard")
    host: str = Field(default="127.0.0.1", min_length=1, description="listen address")
    port: int = Field(default=8199, ge=0, le=65535, description="listen port; 0: any free port")
    token: Secret = Field(default=None, description="access token, required unless host is loopback")


class Settings(Section):
    """All settings. In code, `Settings(state={"dir": path}, …)` takes the defaults for the rest."""

    sequencer: Sequencer = Sequencer()
    miner: Miner = Miner()
    workflows: Workflows = Workflows()
    comfyui: ComfyUI = ComfyUI()
    models: Models = Models()
    loras: Loras = Loras()
    state: State
    network: Network = Network()
    upload: Upload = Upload()
    log: Log = Log()
    status: Status = Status()
