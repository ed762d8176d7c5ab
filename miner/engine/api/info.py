"""What the engine is and has: nodes, models, the machine."""

from __future__ import annotations

import os
import sys
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

import miner
from miner.engine.dialect import Dialect
from miner.engine.nodes.base import describe
from miner.engine.state import engine_of


async def root(_request: Request) -> Response:
    return PlainTextResponse("The embedded engine of xalora-miner. It speaks ComfyUI's protocol, and has no pages.\n")


async def system_stats(request: Request) -> Response:
    """ComfyUI's keys. `comfyui_version` is whose behavior is followed; `engine` says what this really is."""
    total, free = _memory()
    memory = {"vram_total": total, "vram_free": free, "torch_vram_total": total, "torch_vram_free": free}
    dialect = engine_of(request).dialect
    system = {
        "os": sys.platform if dialect.os_is_platform else os.name,
        "ram_total": total,
        "ram_free": free,
        "comfyui_version": dialect.version,
        "required_frontend_version": "",
        "installed_templates_version": "",
        "required_templates_version": "",
        "python_version": sys.version,
        "pytorch_version": _torch_version(),
        "embedded_python": False,
        "argv": sys.argv,
        "engine": f"xalora-miner {miner.__version__}",
    }
    return JSONResponse({"system": system, "devices": [{"name": "cpu", "type": "cpu", "index": None, **memory}]})


def _memory() -> tuple[int, int]:
    """Total and available bytes of this machine's memory; 0 if unknown."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # noqa: PTH123
            sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    except OSError:
        return 0, 0
    return sizes.get("MemTotal", 0), sizes.get("MemAvailable", 0)


def _torch_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # 12 ms of the start saved

    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def server_features(dialect: Dialect, max_upload: int) -> dict[str, Any]:
    """What the server understands, for /features and for a websocket's first message."""
    features: dict[str, Any] = {"supports_preview_metadata": True, "max_upload_size": max_upload}
    return features | ({"node_replacements": False, "assets": False} if dialect.jobs_api else {})


async def features(request: Request) -> Response:
    engine = engine_of(request)
    return JSONResponse(server_features(engine.dialect, engine.max_upload))


async def object_info(request: Request) -> Response:
    engine = engine_of(request)
    wanted = request.path_params.get("name")
    return JSONResponse(
        {
            name: describe(node, engine.folders, engine.dialect)
            for name, node in engine.nodes.items()
            if wanted in (None, name)
        }
    )


async def model_folders(request: Request) -> Response:
    return JSONResponse(list(engine_of(request).folders.models))


async def models(request: Request) -> Response:
    folders, wanted = engine_of(request).folders, request.path_params["folder"]
    if wanted not in folders.models:
        return Response(status_code=404)
    return JSONResponse(folders.model_names(wanted))


ROUTES = (
    Route("/", root),
    Route("/system_stats", system_stats),
    Route("/features", features),
    Route("/object_info", object_info),
    Route("/object_info/{name}", object_info),
    Route("/models", model_folders),
    Route("/models/{folder}", models),
)
