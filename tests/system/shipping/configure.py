"""Writes docs/configure.md from the settings: python -m tests.system.shipping.configure"""

from __future__ import annotations

from miner.config.keys import EVERYDAY, FIELDS, expected, shown
from miner.config.settings import Settings
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "configure.md"

HEAD = """\
# Configure

<!-- Written by `python -m tests.system.shipping.configure` from miner/config/settings.py; a test says when old. -->

Every setting has a key in `config.toml` and a variable. What wins, key by key: a flag of `xalora-miner run`, the
environment, a systemd credential (`api_key`, `status_token`), `.env` beside `config.toml`, `config.toml`, the default.

`config.toml` is looked for at `--config FILE` or `XALORA_CONFIG`; else it is the first of `./config.toml`,
`~/.config/xalora-miner/config.toml` (`$XDG_CONFIG_HOME`) and `/etc/xalora-miner/config.toml`. Relative paths in it
start at its folder. The [config.toml](../config.toml) of this tree has every key with its default.

- `xalora-miner config` prints every setting in force, and where it comes from; secrets are masked.
- A key or a `XALORA_` variable that there is not is an error that names the one which was probably meant. All that is
  wrong is said at once, a line each, and the exit code is 78.
- In the environment lists are comma-separated, and an empty variable counts as not set.
- SIGHUP (`systemctl reload xalora-miner`) reads all of it again. What is in hand is finished under the old settings;
  wrong new ones change nothing, and the log says why.

The least that it takes is `XALORA_MINER_ID`, and where ComfyUI is. Everything else has a default that is meant to stay.
"""

AFTER = """
## Other variables

`XALORA_CONFIG` names the `config.toml`. `CREDENTIALS_DIRECTORY` is where systemd puts `LoadCredential=`'s files; a
container can be given such a folder, too. `HF_TOKEN` and `HF_ENDPOINT` are huggingface_hub's own, and count for
`xalora-miner models`.
"""

TABLE = """\
| key and variable | takes | default | what it is |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The whole page."""
    settings = Settings(state={"dir": "/"})  # the one that depends on the machine; its row says how
    parts = [HEAD]
    for section, info in Settings.model_fields.items():
        kind = info.annotation
        assert kind is not None
        about = " ".join((kind.__doc__ or "").split())
        parts += [f"\n## [{section}]\n\n{about}\n\n", TABLE]
        values = getattr(settings, section)
        parts += [_row(key, getattr(values, key.partition(".")[2])) for key in FIELDS if key.startswith(f"{section}.")]
    return "".join([*parts, AFTER])


def _row(key: str, value: object) -> str:
    """A line of a section's table."""
    own = f"XALORA_{key.replace('.', '_').upper()}"
    names = [f"`{key.partition('.')[2]}`", *(f"`{name}`" for name, of in EVERYDAY.items() if of == key), f"`{own}`"]
    default = "`~/.local/state/xalora-miner`" if key == "state.dir" else _default(key, value)
    return f"| {'<br>'.join(names)} | {expected(key)} | {default} | {FIELDS[key].description} |\n"


def _default(key: str, value: object) -> str:
    return f"`{shown(key, value)}`" if value not in (None, "", (), {}) else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
