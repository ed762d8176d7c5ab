"""Writes docs/configure.md from the settings: python -m tests.system.shipping.configure"""

from __future__ import annotations

from miner.config.keys import EVERYDAY, FIELDS, expected, shown
from miner.config.settings import Settings
from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "configure.md"

HEAD = """\
# Configure

<!-- Written by `python -m tests.system.shipping.configure` from miner/config/settings.py; a test says when old. -->

Every setting has a key in `config.toml` and a variable. Precedence, key by key: flags of `xalora-miner run`,
environment, systemd credentials (`api_key`, `status_token`), `.env` beside `config.toml`, `config.toml`, default.

The file is `--config FILE` or `XALORA_CONFIG`, else the first of `./config.toml`,
`~/.config/xalora-miner/config.toml` (`$XDG_CONFIG_HOME`) and `/etc/xalora-miner/config.toml`. Its relative paths start
at its folder. The bundled [config.toml](../config.toml) lists every key with its default.

- `xalora-miner config` prints each value and its source, with secrets masked.
- Unknown keys and `XALORA_` variables are errors; the message suggests the closest match. All errors are printed at
  once, one per line, with exit code 78.
- In the environment, lists are comma-separated and empty variables are ignored.
- SIGHUP (`systemctl reload xalora-miner`) reloads. Running tasks finish under the old settings; invalid new settings
  are logged and ignored.

Set `XALORA_MINER_ID`, and where ComfyUI is. Everything else has a sensible default.
"""

AFTER = """
## Other variables

- `XALORA_CONFIG`: path of `config.toml`.
- `CREDENTIALS_DIRECTORY`: folder of credential files, set by systemd's `LoadCredential=`; also works in containers.
- `HF_TOKEN`, `HF_ENDPOINT`: used by huggingface_hub in `xalora-miner models`.
- `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE`, `SSL_CERT_FILE` or `SSL_CERT_DIR`, the first that is set: certificates of the
  authorities to trust instead of the bundled ones; `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`: http or https
  proxies. Both count for hosts that you name: the sequencer, the S3 store, ComfyUI (never on loopback) and downloads of
  models. They never count for inputs and upload URLs of tasks: a proxy would connect to addresses that the miner
  refuses. `xalora-miner doctor` shows what counts.
"""

TABLE = """\
| key and variable | type | default | description |
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
