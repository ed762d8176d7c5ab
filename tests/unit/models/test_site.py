"""What the commands do, without their processes: prune, verify, LoRAs, and where models are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from miner.config import Settings
from miner.config.bundled import WORKFLOWS
from miner.models.catalogue import files_of
from miner.models.local import Site
from miner.models.loras import LARGEST, lora
from miner.models.partial_file import held_part, part_of
from miner.models.progress import Stop
from miner.models.prune import remove
from miner.models.store import store_of
from miner.models.verify import verdict
from miner.task.errors import ConfigError
from miner.workflows import Library, Workflow, load_library
from tests.unit.models.conftest import Seen
from tests.unit.models.samples import content, safetensors, sha256
from tests.unit.models.server import Step

ONE, TWO, SHARED = content(300_000), content(200_000, seed=2), safetensors(100_000)


@pytest.fixture
def library(server) -> Library:
    """Two workflows with files on the server, which they name by http: no manifest may, so it is put in after."""
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
    one = with_models("upscaler", ("vae", "one.pth", ONE), shared)
    two = with_models("upscaler-lanczos", ("vae", "two.pth", TWO), shared)
    return Library(workflows=(one, two), ids={})


@pytest.fixture
def machine(tmp_path, library):
    """Makes sites of one machine, with these workflows enabled."""
    made: list[Site] = []

    def make(*enabled: str) -> Site:
        settings = Settings(
            state={"dir": tmp_path / "state"}, models={"dir": tmp_path / "models"}, workflows={"enabled": enabled}
        )
        made.append(Site(settings, library))
        return made[-1]

    yield make
    for site in made:
        site.records.close()


def pull(site: Site) -> None:
    assert not site.pull(files_of(site.enabled), watch=Seen()).failed


def names(site: Site) -> list[str]:
    return sorted(path.name for path in site.store.root.rglob("*") if path.is_file())


def prune(site: Site) -> None:
    for one in site.spares():
        remove(one, site.records)


BOTH = ("upscaler", "upscaler-lanczos")


# ---- prune ------------------------------------------------------------------------------------------------------


def test_only_what_no_enabled_workflow_needs_is_deleted(machine):
    pull(machine(*BOTH))
    site = machine("upscaler")
    assert [(one.path.name, one.size, one.needed_by) for one in site.spares()] == [
        ("two.pth", len(TWO), ("upscaler-lanczos",))
    ]
    prune(site)
    assert names(site) == ["one.pth", "shared.safetensors"]


def test_what_somebody_else_put_there_stays(machine):
    site = machine("upscaler")
    theirs = site.store.root / "vae" / "two.pth"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(TWO)
    prune(site)
    assert theirs.exists()


def test_a_download_that_somebody_changed_since_stays(machine):
    pull(machine(*BOTH))
    site = machine("upscaler")
    (site.store.root / "vae" / "two.pth").write_bytes(b"somebody's")
    prune(site)
    assert "two.pth" in names(site)


def test_a_file_of_a_workflow_that_is_no_longer_known_stays(machine, library):
    pull(machine(*BOTH))
    settings = machine("upscaler").settings
    with Site(settings, Library(workflows=library.workflows[:1], ids={})) as site:
        prune(site)
        assert "two.pth" in names(site)


def test_a_lora_stays(machine, server):
    site = machine("upscaler")
    file = lora(server.put("/style.safetensors", safetensors()))
    assert not site.pull([file], watch=Seen(), most=LARGEST).failed
    prune(site)
    assert names(site) == ["style.safetensors"]


def test_a_broken_off_download_goes_unless_somebody_is_at_it(machine, server):
    server.files["/two.pth"].script[:] = [Step(cut=50_000), Step(status=404)]
    site = machine(*BOTH)
    assert site.pull(files_of(site.enabled), watch=Seen()).failed
    target = site.store.root / "vae" / "two.pth"
    assert machine(*BOTH).spares() == ()
    disabled = machine("upscaler")
    with held_part(target, stop=Stop(), waits=lambda: None):
        assert disabled.spares() == ()
    assert [one.size for one in disabled.spares()] == [50_000]
    prune(disabled)
    assert not part_of(target).exists()
    assert names(disabled) == ["one.pth", "shared.safetensors"]


# ---- verify -----------------------------------------------------------------------------------------------------


def verified(site: Site, **options: Any) -> dict[str, str]:
    report = site.verify(files_of(site.enabled), **{"watch": Seen(), "again": False, **options})
    return {look.file.name: verdict(look, site.records) for look in report.done.values()}


def spoil_silently(path: Path) -> None:
    """As a disk does it: nobody wrote, so size and time stay."""
    stat = path.stat()
    data = path.read_bytes()
    path.write_bytes(bytes(1000) + data[1000:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_damaged_file_is_found_by_its_hash_and_fetched_anew(machine):
    site = machine("upscaler")
    pull(site)
    assert verified(site) == {"one.pth": "good", "shared.safetensors": "good"}
    path = site.store.root / "vae" / "one.pth"
    spoil_silently(path)
    found = verified(site, again=True)
    assert found["one.pth"].startswith("DAMAGED: its SHA-256 is")
    assert found["shared.safetensors"] == "good"
    pull(site)
    assert path.read_bytes() == ONE


def test_a_hash_is_taken_once_while_nobody_writes(machine):
    site = machine("upscaler")
    for name, data in (("vae/one.pth", ONE), ("text_encoders/shared.safetensors", SHARED)):
        path = site.store.root / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    watch = Seen()
    assert set(verified(site, watch=watch).values()) == {"good"}
    assert watch.most == {"vae/one.pth": len(ONE), "text_encoders/shared.safetensors": len(SHARED)}
    watch = Seen()
    assert set(verified(site, watch=watch).values()) == {"good"}
    assert watch.most == {}


def test_a_file_of_another_size_is_damaged_without_a_look_inside(machine):
    site = machine("upscaler")
    pull(site)
    os.truncate(site.store.root / "vae" / "one.pth", 7)
    assert "it has 7 bytes, and should have 300000" in verified(site)["one.pth"]


def test_what_is_missing_is_said(machine):
    assert "not there" in verified(machine("upscaler"))["one.pth"]


# ---- LoRAs ------------------------------------------------------------------------------------------------------


def test_a_lora_is_named_by_the_server_where_its_address_does_not_say(machine, server):
    named = Step(headers={"Content-Disposition": 'attachment; filename="My Style.safetensors"'})
    file = lora(server.put("/api/download/42", safetensors(), named) + "?token=s3cret")
    site = machine("upscaler")
    assert not site.pull([file], watch=Seen()).failed
    assert (site.store.root / "loras" / "My_Style.safetensors").read_bytes() == safetensors()


def test_a_lora_that_is_there_is_replaced_only_if_asked(machine, server):
    site = machine("upscaler")
    file = lora(server.put("/a.safetensors", safetensors(7)))
    assert not site.pull([file], watch=Seen()).failed
    server.put("/a.safetensors", safetensors(9))
    target = site.store.target(file)
    assert not site.pull([file], watch=Seen()).failed
    assert target.read_bytes() == safetensors(7)
    assert not site.pull([file], watch=Seen(), replace=True).failed
    assert target.read_bytes() == safetensors(9)


def test_an_address_that_names_nothing_is_refused(server):
    with pytest.raises(ConfigError, match="names no file") as caught:
        lora(server.put("/42", b"") + "?token=s3cret")
    assert "--name" in caught.value.hint
    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize("data", [b"<html>Please log in</html>" * 9, b"\x80\x04\x95" + bytes(500), safetensors()[:-9]])
def test_a_lora_that_is_no_safetensors_file_is_not_kept(machine, server, data):
    site = machine("upscaler")
    file = lora(server.put("/a.safetensors", data))
    assert "what its URL gives" in site.pull([file], watch=Seen()).failed["loras/a.safetensors"].message
    assert names(site) == []


def test_a_lora_of_unknown_size_ends_at_the_most_that_is_taken(machine, server):
    site = machine("upscaler")
    file = lora(server.put("/a.safetensors", safetensors(50_000), Step(chunked=True)))
    failed = site.pull([file], watch=Seen(), most=10_000).failed
    assert "more than 10000 bytes" in failed["loras/a.safetensors"].message


# ---- where models are -------------------------------------------------------------------------------------------


def settings_of(tmp_path: Path, **sections: Any) -> Settings:
    return Settings(state={"dir": tmp_path}, **sections)


def test_models_go_into_models_dir_else_into_comfyuis_own_folder(tmp_path):
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
