"""Which file ComfyUI takes for a model, by its own files and flags."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from miner.config import Settings
from miner.models.catalogue import ModelFile
from miner.models.folders import ModelFolders, folders_of
from miner.models.hash_db import HashDatabase
from miner.models.store import store_of
from tests.unit.models.samples import safetensors

CONFIG = """
# Where they are
comfyui:
    base_path: ../nas
    is_default: true
    loras: |
        Lora
        LyCORIS
    clip: text
other:
    base_path: ~/more
    vae: VAE
empty:
alone:
    vae: beside
    unet: /somewhere/unet
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    (tmp_path / "ComfyUI" / "models").mkdir(parents=True)
    (tmp_path / "ComfyUI" / "main.py").touch()
    (tmp_path / "elsewhere.yaml").write_text("a:\n  vae: last\n", encoding="utf-8")
    return tmp_path / "ComfyUI"


def folders(home: Path, *args: str, config: str = "", **models: Any) -> ModelFolders:
    if config:
        (home / "extra_model_paths.yaml").write_text(config, encoding="utf-8")
    return folders_of(Settings(state={"dir": home.parent}, comfyui={"home": home, "args": args}, models=models))


def relative(home: Path, folder: str, found: ModelFolders) -> list[str]:
    return [os.path.relpath(path, home.parent) for path in found.places(folder, "")]


@pytest.mark.parametrize(
    ("folder", "places"),
    [
        ("loras", ["nas/LyCORIS", "nas/Lora", "ComfyUI/models/loras"]),
        ("loras/style", ["nas/LyCORIS/style", "nas/Lora/style", "ComfyUI/models/loras/style"]),
        ("text_encoders", ["nas/text", "ComfyUI/models/text_encoders", "ComfyUI/models/clip"]),
        ("clip", ["nas/text", "ComfyUI/models/text_encoders", "ComfyUI/models/clip"]),
        ("vae", ["ComfyUI/models/vae", "me/more/VAE", "ComfyUI/beside", "last"]),
        ("diffusion_models", ["ComfyUI/models/unet", "ComfyUI/models/diffusion_models", "../somewhere/unet"]),
        ("controlnet", ["ComfyUI/models/controlnet", "ComfyUI/models/t2i_adapter"]),
        ("new_in_a_later_version", ["ComfyUI/models/new_in_a_later_version"]),
    ],
)
def test_comfyuis_own_file_is_read_in_its_order(home: Path, folder: str, places: list[str]) -> None:
    args = ("--lowvram", "--extra-model-paths-config", "../elsewhere.yaml", "--preview-method", "none")
    found = relative(home, folder, folders(home, *args, config=CONFIG))
    assert [place.removeprefix("../" * (len(home.parent.parts) - 2)) for place in found] == places


def test_a_byte_order_mark_is_no_key(home: Path) -> None:
    found = folders(home, config="\ufeff" + CONFIG.lstrip())
    assert relative(home, "loras", found)[0] == "nas/LyCORIS"


@pytest.mark.parametrize(
    ("args", "own"),
    [
        (("--base-directory", "/data"), "/data/models"),
        (("--base-directory=/data",), "/data/models"),
        (("--base-directory", "/data", "--models-directory", "/nas"), "/nas"),
        (("--models-directory",), "ComfyUI/models"),  # ComfyUI refuses it at its start
        (("--cpu",), "ComfyUI/models"),
    ],
)
def test_folders_in_the_arguments_count(home: Path, args: tuple[str, ...], own: str) -> None:
    assert folders(home, *args).own == home.parent / own


def test_models_dir_comes_before_all(home: Path, tmp_path: Path) -> None:
    found = folders(home, config=CONFIG, dir=tmp_path / "mine")
    assert relative(home, "loras", found)[:2] == ["mine/loras", "nas/LyCORIS"]
    assert relative(home, "text_encoders", found)[:2] == ["mine/text_encoders", "mine/clip"]


def test_a_file_that_cannot_be_read_is_told_and_left_out(home: Path) -> None:
    with capture_logs() as lines:
        found = folders(home, config="a:\n  - list\n")
    assert relative(home, "vae", found) == ["ComfyUI/models/vae"]
    (line,) = lines
    assert line["event"] == "model_paths_unreadable"
    assert "extra_model_paths.yaml:2" in line["reason"]


def test_of_an_external_comfyui_only_named_folders_are_known(home: Path) -> None:
    (home / "extra_model_paths.yaml").write_text(CONFIG, encoding="utf-8")
    comfyui = {"url": "http://127.0.0.1:1"}
    nothing = folders_of(Settings(state={"dir": home}, comfyui=comfyui))
    assert (nothing.own, nothing.roots, nothing.find("vae", "x.pth")) == (None, (), None)
    named = folders_of(Settings(state={"dir": home}, comfyui=comfyui, models={"dir": home / "models"}))
    assert relative(home, "loras", named) == ["nas/LyCORIS", "nas/Lora", "ComfyUI/models/loras"]


# ---- files ------------------------------------------------------------------------------------------------------


def put(path: Path, data: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data or safetensors())
    return path


def test_the_first_file_of_a_name_is_the_one_that_counts(home: Path, tmp_path: Path) -> None:
    found = folders(home, config=CONFIG)
    own = put(home / "models" / "loras" / "a" / "x.safetensors")
    assert (seen := found.find("loras", "a/x.safetensors")) is not None
    assert (seen.path, seen.flaw) == (own, "")
    assert found.find("loras", "a\\x.safetensors") == seen  # by a ComfyUI on Windows
    broken = put(tmp_path / "nas" / "Lora" / "a" / "x.safetensors", b"<html>")
    assert (seen := found.find("loras", "a/x.safetensors")) is not None
    assert (seen.path, seen.flaw) == (broken, "is a web page, not weights")
    broken.unlink()
    broken.symlink_to("nowhere")  # ComfyUI skips it
    assert (seen := found.find("loras", "a/x.safetensors")) is not None
    assert seen.path == own
    own.unlink()
    assert (seen := found.find("loras", "a/x.safetensors")) is not None
    assert seen.flaw == "is a link to nothing"


def test_a_model_where_comfyuis_own_file_says_is_not_downloaded_again(home: Path, tmp_path: Path) -> None:
    (home / "extra_model_paths.yaml").write_text(CONFIG, encoding="utf-8")
    settings = Settings(state={"dir": tmp_path / "state"}, comfyui={"home": home})
    store, hash_db = store_of(settings), HashDatabase(tmp_path / "state")
    file = ModelFile(folder="loras", name="x.safetensors", url="https://h/x", size=len(safetensors()))
    there = tmp_path / "nas" / "Lora" / "x.safetensors"
    states = []
    for data in (safetensors(), safetensors(7), safetensors()[:-1]):
        put(there, data)
        states.append(store.status(file, hash_db))
    hash_db.close()
    assert [status.state for status in states] == ["present", "differs", "broken"]
    assert {status.path for status in states} == {there}


def test_a_file_behind_the_place_of_the_download_does_not_hide_that_it_is_missing(home: Path, tmp_path: Path) -> None:
    put(home / "models" / "vae" / "x.safetensors", b"<html>")
    settings = Settings(state={"dir": tmp_path / "state"}, comfyui={"home": home}, models={"dir": tmp_path / "mine"})
    hash_db = HashDatabase(tmp_path / "state")
    file = ModelFile(folder="vae", name="x.safetensors", url="https://h/x")
    status = store_of(settings).status(file, hash_db)
    hash_db.close()
    assert (status.state, status.path) == ("missing", tmp_path / "mine" / "vae" / "x.safetensors")
