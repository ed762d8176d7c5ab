"""Each error is one line that names the key and the place."""

from __future__ import annotations

import pytest

from miner.config import load_settings
from miner.task.errors import ConfigError
from tests.unit.config.conftest import Machine

MIXED = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
ID_FORM = "[miner] id must be an EVM address (0x and 40 hex digits), optionally with a -suffix of letters, digits and _"
IDS_FORM = 'must be a table of name lists, such as { 4 = ["upscaler"] }, or 4=upscaler in the environment'
URL_FORM = "must be a URL such as https://host:port"

# What config.toml says, from its second line on, and the one line about it.
IN_FILE = {
    "unknown key": ("[miner]\nprefech = 1", "3: unknown key [miner] prefech; did you mean [miner] prefetch?"),
    "key of another section": (
        '[miner]\napi_key = "k"',
        "3: unknown key [miner] api_key; did you mean [sequencer] api_key?",
    ),
    "key of two other sections": (
        "[miner]\nport = 1",
        "3: unknown key [miner] port; did you mean [comfyui] port or [status] port?",
    ),
    "key of no section": ('miner_id = "x"', "2: unknown key miner_id; did you mean [miner] id?"),
    "key like nothing": ("[log]\nqqq = 1", "3: unknown key [log] qqq; `xalora-miner config` lists all"),
    "unknown section": ("[sequncer]\nurl = 1", "2: unknown section [sequncer]; did you mean [sequencer]?"),
    "section like nothing": ("[q]\n", "2: unknown section [q]; `xalora-miner config` lists all"),
    "section that is no table": ("log = 3", "2: log must be a table, [log]"),
    "section that is a list": ("[[log]]\n", "2: log must be a table, [log]"),
    "text for a number": (
        '[sequencer]\npoll_interval = "fast"',
        '3: [sequencer] poll_interval must be a number greater than 0, not "fast"',
    ),
    "number out of bounds": (
        "[miner]\nprefetch = 9",
        "3: [miner] prefetch must be a whole number from 0 to 8, not 9",
    ),
    "fraction for a whole number": (
        "[state]\nkeep_days = 1.5",
        "3: [state] keep_days must be a whole number from 1 to 3650, not 1.5",
    ),
    "truth for a number": (
        "[miner]\nprefetch = true",
        "3: [miner] prefetch must be a whole number from 0 to 8, not true",
    ),
    "infinity": (
        "[miner]\ndrain_timeout = inf",
        "3: [miner] drain_timeout must be a number of at least 0, not Infinity",
    ),
    "number for a text": ("[upload]\nbucket = 3", "3: [upload] bucket must be a string, not 3"),
    "nothing for a text": ('[upload]\nregion = ""', '3: [upload] region must be a non-empty string, not ""'),
    "text for a truth": ('[miner]\nwarmup = "no"', '3: [miner] warmup must be true or false, not "no"'),
    "number for a path": ("[models]\ndir = 1", "3: [models] dir must be a path, not 1"),
    "text for a list": ('[comfyui]\nargs = "--fast"', '3: [comfyui] args must be a list of strings, not "--fast"'),
    "number in a list": ("[network]\nallow = [1]", "3: [network] allow must be a list of strings; 1 is not"),
    "none enabled": (
        "[workflows]\nenabled = []",
        "3: [workflows] enabled must be a non-empty list of strings, not []",
    ),
    "enabled twice": ('[workflows]\nenabled = ["a", "a"]', '3: [workflows] enabled must name "a" only once'),
    "text for a table": ('[workflows]\nids = "4"', f'3: [workflows] ids {IDS_FORM}, not "4"'),
    "text in a table": ('[workflows.ids]\n4 = "a"', f'2: [workflows] ids {IDS_FORM}; "a" is not'),
    "none of a few": ('[log]\nformat = "xml"', '3: [log] format must be one of auto, console, json, not "xml"'),
    "no port": ('[network]\nallow = ["nas"]', '3: [network] allow must be "host:port", not "nas"'),
    "no GPU": (
        '[comfyui]\ngpus = ["first"]',
        '3: [comfyui] gpus must be numbers or UUIDs of GPUs, such as "0" or "GPU-6f1c…", not "first"',
    ),
    "no URL": ('[comfyui]\nurl = "localhost:8188"', f'3: [comfyui] url {URL_FORM}, not "localhost:8188"'),
    "secret in a wrong URL": (
        '[upload]\nendpoint = "ftp://me:pa/ss w@host/?key=s3cret"',
        f'3: [upload] endpoint {URL_FORM}, not "ftp://***@host/?***"',
    ),
    "number for a secret": ("[sequencer]\napi_key = 1234", "3: [sequencer] api_key must be a string"),
    "secret of two words": (
        '[sequencer]\napi_key = "a b"',
        "3: [sequencer] api_key must be one word of printable ASCII characters",
    ),
    "short address": ('[miner]\nid = "0xabc"', f'3: {ID_FORM}, not "0xabc"'),
    "wrong suffix": (f'[miner]\nid = "{MIXED}-a.b"', f'3: {ID_FORM}, not "{MIXED}-a.b"'),
    "wrong checksum": (
        f'[miner]\nid = "{MIXED[:-1]}D-testbed"',
        f'3: [miner] id has a wrong checksum in "{MIXED[:-1]}D": a digit may be mistyped; '
        f"if every digit is right, EIP-55 spells it {MIXED}",
    ),
    "home without HOME": (
        '[comfyui]\nhome = "~/ComfyUI"',
        '3: [comfyui] home must be a path without ~, since HOME is not set, not "~/ComfyUI"',
    ),
    "control character": ('[log]\nformat = "a\\nb"', '3: [log] format must be one of auto, console, json, not "a\\nb"'),
}

# A variable, and the one line about it.
IN_ENVIRONMENT = {
    ("XALORA_MINER_IDD", "x"): "unknown setting XALORA_MINER_IDD; did you mean XALORA_MINER_ID?",
    ("XALORA_APIKEY", "x"): "unknown setting XALORA_APIKEY; did you mean XALORA_API_KEY?",
    ("XALORA_QUUX", "x"): "unknown setting XALORA_QUUX; `xalora-miner config` lists all",
    (
        "XALORA_SEQUENCER_POLL_INTERVAL",
        "fast",
    ): '[sequencer] poll_interval must be a number greater than 0, not "fast"',
    ("XALORA_MINER_PREFETCH", "1.0"): '[miner] prefetch must be a whole number from 0 to 8, not "1.0"',
    ("XALORA_MINER_WARMUP", "maybe"): '[miner] warmup must be true or false, not "maybe"',
    ("XALORA_WORKFLOWS_IDS", "upscaler"): f'[workflows] ids {IDS_FORM}, not "upscaler"',
    ("XALORA_MINER_ID", "vitalik.eth"): f'{ID_FORM}, not "vitalik.eth"',
}


def problem(machine: Machine, flags: dict[str, object] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        machine.load(flags)
    assert caught.value.exit_code == 78
    return caught.value.message


@pytest.mark.parametrize(("text", "line"), IN_FILE.values(), ids=IN_FILE)
def test_an_error_in_the_file_is_one_line_with_its_number(machine: Machine, text: str, line: str) -> None:
    del machine.environ["HOME"]
    machine.write(f"# mine\n{text}\n")
    assert problem(machine) == f"{machine.config}:{line}"


@pytest.mark.parametrize(("variable", "line"), IN_ENVIRONMENT.items(), ids=["-".join(v) for v in IN_ENVIRONMENT])
def test_an_error_in_the_environment_is_one_line_with_the_variable(
    machine: Machine, variable: tuple[str, str], line: str
) -> None:
    name, text = variable
    machine.environ[name] = text
    assert problem(machine) == f"environment {name}: {line}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n\nXALORA_MINER_PREFETCH=9\n", "3: [miner] prefetch must be a whole number from 0 to 8, not 9"),
        ("A=b\n  XALORA_MINERID=9\n", "2: unknown setting XALORA_MINERID; did you mean XALORA_MINER_ID?"),
        ("A=b\nXALORA_API_KEY\n", "2: must be NAME=value"),
        ("A=b\n'XALORA=3\n", "2: must be NAME=value"),
    ],
)
def test_an_error_in_dotenv_is_one_line_with_its_number(machine: Machine, text: str, line: str) -> None:
    path = machine.write(text, name=".env")
    assert problem(machine) == f"{path}:{line}"


def test_errors_in_flags_and_credentials_name_them(machine: Machine) -> None:
    path = machine.write("two words", name="credentials/api_key")
    machine.environ["CREDENTIALS_DIRECTORY"] = str(path.parent)
    assert problem(machine, {"miner.prefetch": -1, "miner.prefech": 1}).splitlines() == [
        "flag --miner-prefech: unknown key [miner] prefech; did you mean [miner] prefetch?",
        f"credential {path}: [sequencer] api_key must be one word of printable ASCII characters",
        "flag --miner-prefetch: [miner] prefetch must be a whole number from 0 to 8, not -1",
    ]


def test_url_and_home_together_name_both_places(machine: Machine) -> None:
    machine.write('[comfyui]\nhome = "/opt/ComfyUI"\n')
    machine.environ["XALORA_COMFYUI_URL"] = "http://127.0.0.1:8188"
    assert problem(machine) == (
        f"environment XALORA_COMFYUI_URL and {machine.config}:2: [comfyui] url and home are both set: "
        "keep url to use a running ComfyUI, or home to start one"
    )


def test_one_key_under_two_names_has_to_be_the_same(machine: Machine) -> None:
    machine.environ.update(XALORA_API_KEY="a", XALORA_SEQUENCER_API_KEY="b")
    assert problem(machine) == (
        "environment XALORA_SEQUENCER_API_KEY: [sequencer] api_key conflicts with environment XALORA_API_KEY: keep one"
    )
    machine.environ["XALORA_SEQUENCER_API_KEY"] = "a"
    assert machine.load().settings.sequencer.api_key


def test_several_problems_are_a_line_each(machine: Machine) -> None:
    machine.write("[miner]\nprefetch = 9\nwarm = true\n[sequencer]\nwait = -1\n")
    machine.environ["XALORA_LOG_LEVEL"] = "loud"
    assert problem(machine).splitlines() == [
        f"{machine.config}:3: unknown key [miner] warm; did you mean [miner] warmup?",
        f"{machine.config}:5: [sequencer] wait must be a number from 0 to 300, not -1",
        f"{machine.config}:2: [miner] prefetch must be a whole number from 0 to 8, not 9",
        'environment XALORA_LOG_LEVEL: [log] level must be one of DEBUG, INFO, WARNING, ERROR, not "LOUD"',
    ]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"[miner]\nprefetch = = 1\n", " is not valid TOML: Invalid value (at line 2, column 12)"),
        (b"\xff\xfe", " cannot be read: not UTF-8 text"),
        (b"[miner]\n'prefetch' = 9\n", "1: [miner] prefetch must be a whole number from 0 to 8, not 9"),
    ],
    ids=["bad TOML", "not text", "a key without a line of its own"],
)
def test_a_file_that_cannot_be_read_or_placed_is_named(machine: Machine, content: bytes, line: str) -> None:
    machine.config.write_bytes(content)
    assert problem(machine) == f"{machine.config}:{line}"


def test_a_folder_is_not_a_config(machine: Machine) -> None:
    with pytest.raises(ConfigError, match="is missing, unreadable or not a file"):
        load_settings(config_file=machine.folder, environ={})
