"""The settings that no other check covers."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from miner.config.address import checksummed
from miner.dashboard import require_token
from miner.doctor.facts import Facts
from miner.doctor.report import bad, good, note, of_error, warning
from miner.task.errors import ConfigError
from miner.telemetry.health import Mark

NOBODY = "0x" + 40 * "0"


def configuration(facts: Facts) -> Iterator[Mark]:
    """The file, the address, and whether a worker would start with them."""
    file = facts.loaded.file
    yield good("Configuration", f"{file} is valid" if file else "no config.toml: environment and defaults")
    yield address(facts.settings.miner.id)
    try:
        require_token(facts.settings.status)
    except ConfigError as error:
        yield of_error("Dashboard", error)
    unasked = sorted(workflow.name for workflow in facts.enabled if not facts.library.ids_of([workflow.name]))
    if unasked:
        them = "it" if len(unasked) == 1 else "them"
        says = f"no workflow id is mapped to {', '.join(unasked)}, so no tasks come for {them}"
        yield note("Workflow ids", says, f"map an id to {them} under [workflows] ids, or remove {them} from enabled")


def address(miner_id: str) -> Mark:
    """Where the earnings go. Pure."""
    name, whole = "Address", miner_id.partition("-")[0]
    if not miner_id:
        cure = "set XALORA_MINER_ID=0x…, or id under [miner] in config.toml"
        return bad(name, "[miner] id is not set: it is the EVM address for your earnings", cure)
    if whole.lower() == NOBODY:
        return bad(name, f"{miner_id} is nobody's: its earnings are lost", "set XALORA_MINER_ID to your own address")
    if whole[2:] in (whole[2:].lower(), whole[2:].upper()):
        cure = f"compare it digit by digit, then write it as {checksummed(whole)}"
        return note(name, f"{miner_id} has no checksum (all one case), so a typo goes unnoticed", cure)
    return good(name, f"{miner_id}, with a valid checksum")


def permissions(facts: Facts) -> Iterator[Mark]:
    """Files with secrets that other users can read."""
    name, settings = "Permissions", facts.settings
    wrong = [warning(name, *_halves(line)) for line in facts.loaded.warnings]
    state = settings.state.dir
    for path in (state, state / "journal.db"):
        if path.exists() and (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
            says = f"other users can read {path} (mode {mode:04o}), which holds upload targets and prompts"
            wrong.append(warning(name, says, f"chmod go= {path}"))
    yield from wrong or [good(name, "other users cannot read the miner's secrets")]


def _halves(line: str) -> tuple[str, str]:
    """A warning of the configuration, `what is wrong: the command that fixes it`."""
    says, _, cure = line.rpartition(": ")
    return says, cure
