"""What the commands do, in this process: prune, verify, LoRAs, and the models folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from miner.config import Settings
from miner.config.bundled import WORKFLOWS
from miner.models.catalogue import files_of
from miner.models.local import LocalModels
from miner.models.loras import MAX_BYTES, lora
from miner.models.partial_file import locked_partial, partial_path
from miner.models.progress import Stop
from miner.models.prune import remove
from miner.models.store import store_of
from miner.models.verify import verdict
from miner.task.errors import ConfigError, MachineFault
from miner.workflows import Library, Variant, Workflow, load_library
from tests.unit.models.conftest import ProgressRecorder
from tests.unit.models.samples import gguf, safetensors, sha256
from tests.unit.models.server import Step

ONE, TWO, SHARED = gguf(300_000), gguf(200_000, seed=2), safetensors(100_000)


@pytest.fixture
def library(server) -> Library:
    """Two workflows with files on the server. Manifests refuse http, so the URLs are set afterwards."""
    bare = load_library([WORKFLOWS], ids={})

    def with_models(name: str, *models: tuple[str, str, bytes]) -> Workflow:
        workflow = bare.get(name)
        (like,) = bare.get("upscaler").manifest.models
        found = tuple(
            like.model_copy(
                update={
                    "folder": folder,
                    "name": file,
                    "url": server.put(f"/{file}", data),
                    "size": len(data),
                    "sha256": sha256(data),
                }
            )
            for folder, file, data in models
        )
        return Workflow(manifest=workflow.manifest.model_copy(update={"models": found}), graph=workflow.graph)

    shared = ("text_encoders", "shared.safetensors", SHARED)
    one = with_models("upscaler", ("vae", "one.bin", ONE), shared)
    two = with_models("upscaler-lanczos", ("vae", "two.bin", TWO), shared)
    return Library(workflows=(one, two), ids={})


@pytest.fixture
def open_models(tmp_path, library):
    """Opens this machine's models with these workflows enabled."""
    made: list[LocalModels] = []

    def make(*enabled: str) -> LocalModels:
        settings = Settings(
            state={"dir": tmp_path / "state"}, models={"dir": tmp_path / "models"}, workflows={"enabled": enabled}
        )
        made.append(LocalModels(settings, library))
        return made[-1]

    yield make
    for local in made:
        local.hash_db.close()


def pull(local: LocalModels) -> None:
    assert not local.pull(files_of(local.enabled), progress=ProgressRecorder()).failed


def names(local: LocalModels) -> list[str]:
    return sorted(path.name for path in local.store.root.rglob("*") if path.is_file())


def prune(local: LocalModels) -> None:
    for one in local.unused_files():
        remove(one, local.hash_db)


BOTH = ("upscaler", "upscaler-lanczos")


# ---- variants ---------------------------------------------------------------------------------------------------


@pytest.fixture
def two_variants(library, tmp_path):
    """A workflow with the variants `new` and `old`, on the CPU."""
    one = library.workflows[0]
    shared = one.manifest.models[1]
    update = {"name": "new.safetensors", "folder": "upscale_models", "url": shared.url, "size": len(SHARED)}
    new = shared.model_copy(update=update)
    old = new.model_copy(update={"name": "old.safetensors"})
    graph = one.graph | {"model": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": new.name}}}
    sets = {"model": {"model_name": old.name}}
    variants = (Variant(name="new", description="new"), Variant(name="old", description="old", sets=sets))
    manifest = one.manifest.model_copy(update={"models": (new, old, shared), "variants": variants})
    settings = Settings(
        state={"dir": tmp_path / "state"},
        models={"dir": tmp_path / "models"},
        comfyui={"home": tmp_path, "args": ("--cpu",)},
        workflows={"enabled": ("upscaler",)},
    )
    with LocalModels(settings, Library(workflows=(Workflow(manifest=manifest, graph=graph),), ids={})) as local:
        yield local


def test_files_of_another_variant_are_kept_until_the_wanted_one_is_complete(two_variants):
    local = two_variants
    new, old = local.enabled[0].variants
    (wanted,) = local.wanted(local.enabled)
    assert wanted.workflow.variant == "new"
    local.pull(files_of([old]), progress=ProgressRecorder())
    assert names(local) == ["old.safetensors", "shared.safetensors"]
    assert local.unused_files() == ()
    local.pull(files_of([wanted.workflow]), progress=ProgressRecorder())
    assert names(local) == ["new.safetensors", "old.safetensors", "shared.safetensors"]
    assert [one.path.name for one in local.unused_files()] == ["old.safetensors"]
    prune(local)
    assert names(local) == ["new.safetensors", "shared.safetensors"]
    assert [model.name for model in new.manifest.models] == names(local)


# ---- prune ------------------------------------------------------------------------------------------------------


def test_only_what_no_enabled_workflow_needs_is_deleted(open_models):
    pull(open_models(*BOTH))
    local = open_models("upscaler")
    assert [(one.path.name, one.size, one.needed_by) for one in local.unused_files()] == [
        ("two.bin", len(TWO), ("upscaler-lanczos",))
    ]
    prune(local)
    assert names(local) == ["one.bin", "shared.safetensors"]


def test_a_file_of_somebody_else_stays(open_models):
    local = open_models("upscaler")
    theirs = local.store.root / "vae" / "two.bin"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(TWO)
    prune(local)
    assert theirs.exists()


def test_a_changed_download_stays(open_models):
    pull(open_models(*BOTH))
    local = open_models("upscaler")
    (local.store.root / "vae" / "two.bin").write_bytes(b"somebody's")
    prune(local)
    assert "two.bin" in names(local)


def test_a_file_of_an_unknown_workflow_stays(open_models, library):
    pull(open_models(*BOTH))
    settings = open_models("upscaler").settings
    with LocalModels(settings, Library(workflows=library.workflows[:1], ids={})) as local:
        prune(local)
        assert "two.bin" in names(local)


def test_a_lora_stays(open_models, server):
    local = open_models("upscaler")
    file = lora(server.put("/style.safetensors", safetensors()))
    assert not local.pull([file], progress=ProgressRecorder(), max_bytes=MAX_BYTES).failed
    prune(local)
    assert names(local) == ["style.safetensors"]


def test_a_partial_file_is_deleted_unless_it_is_locked(open_models, server):
    server.files["/two.bin"].script[:] = [Step(cut=50_000), Step(status=404)]
    local = open_models(*BOTH)
    assert local.pull(files_of(local.enabled), progress=ProgressRecorder()).failed
    target = local.store.root / "vae" / "two.bin"
    assert open_models(*BOTH).unused_files() == ()
    disabled = open_models("upscaler")
    with locked_partial(target, stop=Stop(), on_wait=lambda: None):
        assert disabled.unused_files() == ()
    assert [one.size for one in disabled.unused_files()] == [50_000]
    prune(disabled)
    assert not partial_path(target).exists()
    assert names(disabled) == ["one.bin", "shared.safetensors"]


# ---- verify -----------------------------------------------------------------------------------------------------


def verified(local: LocalModels, **options: Any) -> dict[str, str]:
    report = local.verify(files_of(local.enabled), **{"progress": ProgressRecorder(), "again": False, **options})
    return {status.file.name: verdict(status, local.hash_db) for status in report.done.values()}


def spoil_silently(path: Path) -> None:
    """As a bad disk does: size and time stay."""
    stat = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:1000] + bytes(1000) + data[2000:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_damaged_file_is_found_by_its_hash_and_downloaded_again(open_models):
    local = open_models("upscaler")
    pull(local)
    assert verified(local) == {"one.bin": "good", "shared.safetensors": "good"}
    path = local.store.root / "vae" / "one.bin"
    spoil_silently(path)
    found = verified(local, again=True)
    assert found["one.bin"].startswith("DAMAGED: its SHA-256 is")
    assert found["shared.safetensors"] == "good"
    pull(local)
    assert path.read_bytes() == ONE


def test_an_unchanged_file_is_hashed_once(open_models):
    local = open_models("upscaler")
    for name, data in (("vae/one.bin", ONE), ("text_encoders/shared.safetensors", SHARED)):
        path = local.store.root / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    progress = ProgressRecorder()
    assert set(verified(local, progress=progress).values()) == {"good"}
    assert progress.furthest == {"vae/one.bin": len(ONE), "text_encoders/shared.safetensors": len(SHARED)}
    progress = ProgressRecorder()
    assert set(verified(local, progress=progress).values()) == {"good"}
    assert progress.furthest == {}


def test_a_file_of_another_size_is_damaged_without_reading_it(open_models):
    local = open_models("upscaler")
    pull(local)
    os.truncate(local.store.root / "vae" / "one.bin", 1000)
    assert "it has 1000 bytes, expected 300000" in verified(local)["one.bin"]


def test_a_missing_file_is_reported(open_models):
    assert "missing" in verified(open_models("upscaler"))["one.bin"]


# ---- LoRAs ------------------------------------------------------------------------------------------------------


def test_the_server_names_a_lora_whose_url_does_not(open_models, server):
    named = Step(headers={"Content-Disposition": 'attachment; filename="My Style.safetensors"'})
    file = lora(server.put("/api/download/42", safetensors(), named) + "?token=s3cret")
    local = open_models("upscaler")
    assert not local.pull([file], progress=ProgressRecorder()).failed
    assert (local.store.root / "loras" / "My_Style.safetensors").read_bytes() == safetensors()


def test_a_present_lora_is_replaced_only_on_request(open_models, server):
    local = open_models("upscaler")
    file = lora(server.put("/a.safetensors", safetensors(7)))
    assert not local.pull([file], progress=ProgressRecorder()).failed
    server.put("/a.safetensors", safetensors(9))
    target = local.store.target(file)
    assert not local.pull([file], progress=ProgressRecorder()).failed
    assert target.read_bytes() == safetensors(7)
    assert not local.pull([file], progress=ProgressRecorder(), replace=True).failed
    assert target.read_bytes() == safetensors(9)


def test_a_url_without_a_file_name_is_refused(server):
    with pytest.raises(ConfigError, match="has no file name") as caught:
        lora(server.put("/42", b"") + "?token=s3cret")
    assert "--name" in caught.value.hint
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize("data", [b"<html>Please log in</html>" * 9, b"\x80\x04\x95" + bytes(500), safetensors()[:-9]])
def test_a_lora_that_is_not_a_safetensors_file_is_not_kept(open_models, server, data):
    local = open_models("upscaler")
    file = lora(server.put("/a.safetensors", data))
    error = local.pull([file], progress=ProgressRecorder()).failed["loras/a.safetensors"]
    assert f"the file at {file.url} is" in error.message
    assert "add your token to the URL" in error.hint
    assert names(local) == []


LOGIN = Step(headers={"Content-Type": "text/html; charset=utf-8"})


@pytest.mark.parametrize(
    ("path", "step"),
    [("/a.safetensors", LOGIN), ("/42", LOGIN), ("/a.safetensors", Step()), ("/a.safetensors", Step(status=401))],
)
def test_a_login_page_in_place_of_a_lora_names_the_page_and_the_token(open_models, server, path, step):
    """Also where the page pretends to be a file, and where only its status tells."""
    local = open_models("upscaler")
    url = server.put(path, b"<!DOCTYPE html><title>Sign in</title>" * 9, *[step] * 3)

    def pull_it() -> None:
        raise local.pull([lora(url + "?key=s3cret")], progress=ProgressRecorder()).failed["loras/a.safetensors"]

    with pytest.raises(MachineFault) as caught:
        pull_it()
    assert url in caught.value.message or step.status
    assert "if it needs an account, add your token to the URL, as in ?token=" in caught.value.hint
    assert "--name" not in caught.value.hint
    assert "s3cret" not in caught.value.message + caught.value.hint
    assert names(local) == []


def test_broken_loras_are_named(open_models):
    local = open_models("upscaler")
    loras = local.store.root / "loras"
    for name, data in (("a/good.safetensors", safetensors()), ("a/cut.safetensors", safetensors()[:-1])):
        (loras / name).parent.mkdir(parents=True, exist_ok=True)
        (loras / name).write_bytes(data)
    (loras / "loop").symlink_to(loras)
    assert list(local.store.folders.broken_loras()) == ["a/cut.safetensors"]


def test_a_lora_of_unknown_size_has_a_limit(open_models, server):
    local = open_models("upscaler")
    file = lora(server.put("/a.safetensors", safetensors(50_000), Step(chunked=True)))
    failed = local.pull([file], progress=ProgressRecorder(), max_bytes=10_000).failed
    assert "more than 10000 bytes" in failed["loras/a.safetensors"].message


# ---- where models are -------------------------------------------------------------------------------------------


def settings_of(tmp_path: Path, **sections: Any) -> Settings:
    return Settings(state={"dir": tmp_path}, **sections)


def test_models_are_stored_in_models_dir_or_comfyuis_own_folder(tmp_path):
    home, folder = tmp_path / "ComfyUI", tmp_path / "models"
    home.mkdir()
    assert store_of(settings_of(tmp_path, comfyui={"home": home})).root == home / "models"
    assert store_of(settings_of(tmp_path, comfyui={"home": home}, models={"dir": folder})).root == folder


@pytest.mark.parametrize(
    ("comfyui", "names"),
    [
        ({"url": "http://127.0.0.1:1"}, ["models.dir", "comfyui.url", "XALORA_MODELS_DIR"]),
        ({}, ["models.dir", "comfyui.home", "XALORA_COMFYUI_HOME"]),
        ({"home": Path("/nonexistent")}, ["comfyui.home", "/nonexistent", "XALORA_COMFYUI_HOME"]),
    ],
)
def test_without_a_models_folder_the_setting_is_named(tmp_path, comfyui, names):
    with pytest.raises(ConfigError) as caught:
        store_of(settings_of(tmp_path, comfyui=comfyui))
    assert all(name in caught.value.message + caught.value.hint for name in names)
