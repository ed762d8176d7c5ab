"""The checks, in the order in which an operator reads them."""

from __future__ import annotations

from miner.doctor.checks.comfyui import comfyui
from miner.doctor.checks.comfyui_args import comfyui_args
from miner.doctor.checks.configuration import configuration, permissions
from miner.doctor.checks.decoder import decoder
from miner.doctor.checks.gpu import gpu
from miner.doctor.checks.machine import disk, disk_speed, memory, ports
from miner.doctor.checks.models import models
from miner.doctor.checks.network import environment, name_lookup, sequencer
from miner.doctor.checks.state import journal, state_folder
from miner.doctor.checks.worker import worker
from miner.doctor.checks.workflows import workflows
from miner.doctor.runner import Check

PROBE_LIMIT = 150.0  # seconds; for a cold import of torch from a slow disk, or the nodes of a new ComfyUI

CHECKS = (
    Check(name="configuration", title="Configuration", run=configuration),
    Check(name="permissions", title="Permissions", run=permissions),
    Check(name="environment", title="Environment", run=environment),
    Check(name="name_lookup", title="DNS", run=name_lookup),
    Check(name="sequencer", title="Sequencer", run=sequencer, limit=45.0),
    Check(name="gpu", title="GPU", run=gpu, limit=PROBE_LIMIT),
    Check(name="comfyui", title="ComfyUI", run=comfyui, limit=PROBE_LIMIT),
    Check(name="comfyui_args", title="ComfyUI's arguments", run=comfyui_args, limit=PROBE_LIMIT),
    Check(name="models", title="Models", run=models, limit=60.0),
    Check(name="workflows", title="Workflows", run=workflows, limit=PROBE_LIMIT),
    Check(name="decoder", title="Picture decoder", run=decoder, limit=45.0),
    Check(name="memory", title="RAM", run=memory),
    Check(name="disk", title="Disk", run=disk),
    Check(name="disk_speed", title="Disk speed", run=disk_speed),
    Check(name="state_folder", title="State folder", run=state_folder),
    Check(name="journal", title="Journal", run=journal, limit=60.0),
    Check(name="ports", title="Ports", run=ports),
    Check(name="worker", title="Worker", run=worker),
)
