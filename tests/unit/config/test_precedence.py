"""Which source wins, and the name of each key in each."""

from __future__ import annotations

from pathlib import Path

import pytest

from miner.config.keys import FIELDS, VARIABLES
from tests.unit.config.conftest import Machine

PLACES = ("flag", "environment", "credential", ".env", "config.toml", "default")


def set_in(machine: Machine, places: tuple[str, ...]) -> dict[str, object]:
    """Set the API key to the source's name in each source; return the flags."""
    if "environment" in places:
        machine.environ["XALORA_API_KEY"] = "environment"
    if "credential" in places:
        machine.write("credential\n", name="credentials/api_key")
        machine.environ["CREDENTIALS_DIRECTORY"] = str(machine.folder / "credentials")
    if ".env" in places:
        machine.write("XALORA_API_KEY=.env", name=".env")
    if "config.toml" in places:
        machine.write('[sequencer]\napi_key = "config.toml"')
    return {"sequencer.api_key": "flag" if "flag" in places else None}


@pytest.mark.parametrize("highest", range(len(PLACES)), ids=PLACES)
def test_each_place_wins_over_all_below_it(machine: Machine, highest: int) -> None:
    loaded = machine.load(set_in(machine, PLACES[highest:]))
    key = loaded.settings.sequencer.api_key
    assert (key.get_secret_value() if key else "default") == PLACES[highest]
    assert loaded.origin["sequencer.api_key"].startswith(PLACES[highest])


def test_places_are_merged_key_by_key(machine: Machine) -> None:
    machine.write("[sequencer]\npoll_interval = 2.0\nheartbeat = 20.0\n")
    machine.environ["XALORA_SEQUENCER_HEARTBEAT"] = "5"
    sequencer = machine.load({"sequencer.timeout": 7.0}).settings.sequencer
    assert (sequencer.poll_interval, sequencer.heartbeat, sequencer.timeout, sequencer.wait) == (2.0, 5.0, 7.0, 20.0)


def test_a_table_of_a_higher_place_replaces_the_lower_one_whole(machine: Machine) -> None:
    machine.write('[workflows.ids]\n1 = ["hunyuan-fp8"]\n')
    machine.environ["XALORA_WORKFLOWS_IDS"] = "4=upscaler"
    assert machine.load().settings.workflows.ids == {"4": ("upscaler",)}


def test_origins_name_flag_variable_and_file(machine: Machine) -> None:
    machine.write("[miner]\nprefetch = 2\n")
    dotenv = machine.write("XALORA_LOG_FORMAT=json\n", name=".env")
    machine.environ["XALORA_LOG_LEVEL"] = "debug"
    flags = {"status.port": 0, "miner.drain_timeout": 1.0, "sequencer.url": "http://h", "workflows.enabled": "a,b"}
    origin = machine.load(flags).origin
    assert origin["sequencer.url"] == "flag --workflow-url"
    assert origin["workflows.enabled"] == "flag --workflows"
    assert origin["status.port"] == "flag --status-port"
    assert origin["miner.drain_timeout"] == "flag --miner-drain-timeout"
    assert origin["log.level"] == "environment XALORA_LOG_LEVEL"
    assert origin["log.format"] == f".env {dotenv}"
    assert origin["miner.prefetch"] == f"config.toml {machine.config}"
    assert origin["miner.warmup"] == "default"
    assert set(origin) == set(FIELDS)


ADDRESS = "0x" + "ab" * 20
EVERYDAY = [
    ("XALORA_API_KEY", "consumer#key", "sequencer.api_key", None),
    ("XALORA_WORKFLOW_URL", "http://127.0.0.1:8080/", "sequencer.url", "http://127.0.0.1:8080"),
    ("XALORA_MINER_ID", f"{ADDRESS}-gpu_0", "miner.id", f"{ADDRESS}-gpu_0"),
    ("XALORA_WORKFLOWS", "upscaler, flux-lora", "workflows.enabled", ("upscaler", "flux-lora")),
    ("XALORA_COMFYUI_URL", "http://127.0.0.1:8188", "comfyui.url", "http://127.0.0.1:8188"),
    ("XALORA_COMFYUI_HOME", "/opt/ComfyUI", "comfyui.home", Path("/opt/ComfyUI")),
    ("XALORA_MODELS_DIR", "/models", "models.dir", Path("/models")),
    ("XALORA_STATE_DIR", "/state", "state.dir", Path("/state")),
    ("XALORA_NETWORK_ALLOW", "NAS:9000,[fd00::1]:80", "network.allow", ("nas:9000", "[fd00::1]:80")),
]


@pytest.mark.parametrize("place", ["environment", ".env"])
@pytest.mark.parametrize(("name", "text", "key", "value"), EVERYDAY, ids=[row[0] for row in EVERYDAY])
def test_everyday_names_are_read(machine: Machine, place: str, name: str, text: str, key: str, value: object) -> None:
    if place == ".env":
        machine.write(f"{name}={text}\n", name=".env")
    else:
        machine.environ[name] = text
    loaded = machine.load()
    section, _, field = key.partition(".")
    got = getattr(getattr(loaded.settings, section), field)
    assert loaded.origin[key].startswith(place)
    assert got.get_secret_value() == text if value is None else got == value


@pytest.mark.parametrize("key", FIELDS)
def test_every_key_has_a_variable(key: str) -> None:
    assert VARIABLES[f"XALORA_{key.replace('.', '_').upper()}"] == key


@pytest.mark.parametrize(
    ("name", "text", "key", "value"),
    [
        ("XALORA_MINER_WARMUP", "Yes", "miner.warmup", True),
        ("XALORA_MINER_PREFER_WARM", "off", "miner.prefer_warm", False),
        ("XALORA_MINER_PREFETCH", " 3 ", "miner.prefetch", 3),
        ("XALORA_SEQUENCER_WAIT", "0", "sequencer.wait", 0.0),
        ("XALORA_COMFYUI_GPUS", "0,GPU-6f1c2d34", "comfyui.gpus", ("0", "GPU-6f1c2d34")),
        ("XALORA_COMFYUI_ARGS", "--fast, --cache-lru=3", "comfyui.args", ("--fast", "--cache-lru=3")),
        ("XALORA_WORKFLOWS_IDS", "1=b,4=a,1=c", "workflows.ids", {"1": ("b", "c"), "4": ("a",)}),
        ("XALORA_LOG_LEVEL", "warning", "log.level", "WARNING"),
    ],
)
def test_texts_become_values_of_the_keys_type(machine: Machine, name: str, text: str, key: str, value: object) -> None:
    machine.environ[name] = text
    section, _, field = key.partition(".")
    assert getattr(getattr(machine.load().settings, section), field) == value


def test_an_empty_variable_is_ignored(machine: Machine) -> None:
    machine.write("XALORA_MINER_PREFETCH=4\n", name=".env")
    machine.environ.update(XALORA_MINER_PREFETCH="", XALORA_MINER_ID="")
    loaded = machine.load()
    assert (loaded.settings.miner.prefetch, loaded.settings.miner.id) == (4, "")


def test_service_links_of_kubernetes_are_ignored(machine: Machine) -> None:
    machine.environ.update(
        {
            "XALORA_STATUS_PORT": "tcp://10.0.0.7:80",
            "XALORA_MINER_SERVICE_HOST": "10.0.0.7",
            "XALORA_MINER_SERVICE_PORT_HTTP": "8199",
            "XALORA_MINER_PORT_8199_TCP_ADDR": "10.0.0.7",
        }
    )
    assert machine.load().settings.status.port == 8199


def test_dotenv_leaves_other_programs_variables_alone_and_expands_nothing(machine: Machine) -> None:
    machine.environ["SECRET"] = "expanded"
    machine.write("# ours\n\nHF_TOKEN=x\nexport XALORA_API_KEY='a${SECRET}b'\n", name=".env")
    key = machine.load().settings.sequencer.api_key
    assert key
    assert key.get_secret_value() == "a${SECRET}b"
