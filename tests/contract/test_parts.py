"""The engine's pure parts."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from miner.engine.flags import parse
from miner.engine.folders import Folders, annotation, inside, prepare
from miner.engine.graph import run_order, signatures
from miner.engine.modelpaths import ModelPathsError, read_extra_paths
from miner.engine.nodes.upscale import tile_starts

from .graphs import Graph, node

DIAMOND = {
    "load": node("Load", name="a"),
    "left": node("Left", image=["load", 0]),
    "right": node("Right", image=["load", 0]),
    "join": node("Join", one=["left", 0], other=["right", 0]),
    "save": node("Save", image=["join", 0]),
}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return prepare(parse([]), tmp_path)


def order(graph: Graph, *, cached: Collection[str] = (), savers: Collection[str] = ("save",)) -> list[str]:
    return run_order(graph, [name for name in graph if name in savers], cached=cached, savers=savers)


def test_everything_runs_after_what_it_needs() -> None:
    found = order(DIAMOND)
    assert found[0] == "load"
    assert set(found[1:3]) == {"left", "right"}
    assert found[3:] == ["join", "save"]


@pytest.mark.parametrize(
    ("cached", "runs"),
    [
        ({"left", "right", "load"}, ["join", "save"]),  # nor what only they need
        (set(DIAMOND), ["save"]),  # a saver is still visited
    ],
)
def test_what_is_cached_does_not_run_nor_what_no_output_needs(cached: set[str], runs: list[str]) -> None:
    assert order({**DIAMOND, "stray": node("Load")}, cached=cached) == runs


def test_a_saver_goes_before_what_is_ready_too() -> None:
    graph = {**DIAMOND, "early": node("Save", image=["load", 0])}
    found = order(graph, savers=("save", "early"))
    assert found.index("early") == 1


def signed(graph: Graph, **outside: str | None) -> dict[str, str]:
    return signatures(graph, lambda name: outside.get(name, ""))


def test_the_same_graph_has_the_same_signatures_under_other_names() -> None:
    other = {"L": DIAMOND["load"], "R": node("Right", image=["L", 0])}
    assert signed(DIAMOND)["right"] == signed(other)["R"]


def test_a_change_changes_everything_behind_it() -> None:
    before, after = signed(DIAMOND), signed({**DIAMOND, "left": node("Left", image=["load", 0], more=1)})
    assert {name for name in DIAMOND if before[name] != after[name]} == {"left", "join", "save"}


def test_a_change_outside_of_the_graph_counts() -> None:
    assert signed(DIAMOND)["save"] != signed(DIAMOND, load="another file")["save"]


def test_what_cannot_be_told_has_no_signature_nor_has_what_follows() -> None:
    assert set(signed(DIAMOND, left=None)) == {"load", "right"}


def test_a_part_that_is_never_run_may_be_broken() -> None:
    broken = {"a": node("A", x=["b", 0]), "b": node("B", x=["a", 0]), "c": node("C", x=["nowhere", 0])}
    assert set(signed({**DIAMOND, **broken})) == set(DIAMOND)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.png", ("a.png", None)),
        ("a.png [temp]", ("a.png", "temp")),
        ("a.png[output]", ("a.png", "output")),
        ("a [input] b.png", ("a [input] b.png", None)),
        ("a.png [other]", ("a.png [other]", None)),
    ],
)
def test_a_name_can_say_its_folder(name: str, found: tuple[str, str | None]) -> None:
    assert annotation(name) == found


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "a\0b", "link/a"])
def test_no_name_leads_outside(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    assert inside(root, name) is None


@pytest.mark.parametrize("name", ["a", "a/b", "./a", "a/../b", ".."[:0]])
def test_a_name_inside_is_found(tmp_path: Path, name: str) -> None:
    found = inside(tmp_path, name)
    assert found is not None
    assert found.is_relative_to(tmp_path)


def test_the_counter_goes_on_from_what_is_there(folders: Folders) -> None:
    for name in ("out_00007_.png", "out_00009_.webp", "out_00012.png", "other_00050_.png", "out_x_00099_.png"):
        (folders.output / name).touch()
    slot = folders.slot("out", kind="output", size=(1, 1))
    assert (slot.stem, slot.counter, slot.subfolder) == ("out", 13, "")


def test_a_prefix_can_name_sizes_and_folders(folders: Folders) -> None:
    slot = folders.slot("a/b/%width%x%height%", kind="output", size=(64, 48))
    assert (slot.stem, slot.subfolder, slot.folder) == ("64x48", "a/b", folders.output / "a/b")


def test_a_prefix_cannot_lead_outside(folders: Folders) -> None:
    with pytest.raises(ValueError, match="outside the output folder"):
        folders.slot("../x", kind="output", size=(1, 1))


def test_the_temporary_folder_is_emptied_at_the_start(folders: Folders, tmp_path: Path) -> None:
    (folders.temp / "old.png").touch()
    assert list(prepare(parse([]), tmp_path).temp.iterdir()) == []


def test_extra_model_paths_are_read(tmp_path: Path) -> None:
    config = tmp_path / "extra.yaml"
    config.write_text(
        "# a comment\n"
        "one:\n"
        "    base_path: /models  # where they are\n"
        "    is_default: true\n"
        "    loras: 'l'\n"
        "    diffusion_models: |\n"
        "        unet\n"
        "        diffusion_models\n"
        "    vae: /elsewhere/vae\n"
        "\n"
        "two:\n"
        "    loras: beside\n"
    )
    assert list(read_extra_paths(config)) == [
        ("loras", Path("/models/l"), True),
        ("diffusion_models", Path("/models/unet"), True),
        ("diffusion_models", Path("/models/diffusion_models"), True),
        ("vae", Path("/elsewhere/vae"), True),
        ("loras", tmp_path / "beside", False),
    ]


@pytest.mark.parametrize("text", ["a: b\n", "    loras: x\n", "one:\n  - list\n", "one:\n    just words\n"])
def test_what_is_no_list_of_model_paths_is_refused_by_line(tmp_path: Path, text: str) -> None:
    config = tmp_path / "extra.yaml"
    config.write_text(text)
    with pytest.raises(ModelPathsError, match=r"extra\.yaml:[12]: expected"):
        list(read_extra_paths(config))


def test_a_file_of_model_paths_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelPathsError, match="nosuch"):
        list(read_extra_paths(tmp_path / "nosuch"))


@pytest.mark.parametrize(
    ("length", "starts"), [(40, [0]), (512, [0]), (513, [0, 480]), (992, [0, 480]), (1000, [0, 480, 960])]
)
def test_tiles_overlap_and_reach_the_end(length: int, starts: list[int]) -> None:
    assert tile_starts(length) == starts


@pytest.mark.parametrize(
    ("flags", "level"),
    [([], "INFO"), (["--verbose"], "DEBUG"), (["--verbose", "ERROR"], "ERROR"), (["--verbose", "DETAIL"], "DETAIL")],
)
def test_verbosity_is_comfyuis(flags: list[str], level: str) -> None:
    assert parse(flags).level == level


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--listen", "0.0.0.0"], "'0.0.0.0' is not a loopback address"),
        (["--listen", "example.com"], "'example.com' is not a loopback address"),
        (["--user-directory", "/nosuch"], "'/nosuch' is not a directory."),
        (["--preview-method", "nosuch"], "invalid choice: 'nosuch'"),
        (["--like", "0.1.0"], "invalid choice: '0.1.0'"),
    ],
)
def test_a_wrong_flag_is_refused_with_its_reason(
    flags: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(flags)
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err
