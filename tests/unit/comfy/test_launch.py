"""How a ComfyUI of ours is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from miner.comfy import memory_limit
from miner.comfy.launch import Launch, child_environment, embedded_launch, managed_launch
from miner.engine.modelpaths import read_extra_paths
from miner.task.errors import ConfigError


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "ComfyUI").mkdir()
    (tmp_path / "ComfyUI" / "main.py").touch()
    return tmp_path / "ComfyUI"


def managed(home: Path, **settings: object) -> Launch:
    defaults = {"python": Path("/usr/bin/python3"), "port": 8188, "gpu": "0", "models_dir": None}
    return managed_launch(home=home, **({"state": home.parent / "state"} | defaults | settings))  # type: ignore[arg-type]


def value_of(flag: str, launch: Launch) -> str:
    """What argparse makes of a flag that may be there several times: the last one."""
    return [after for before, after in zip(launch.argv, launch.argv[1:], strict=False) if before == flag][-1]


def test_it_listens_on_loopback_without_api_nodes_metadata_or_custom_nodes(home: Path) -> None:
    launch = managed(home)
    assert value_of("--listen", launch) == "127.0.0.1"
    assert launch.url == "http://127.0.0.1:8188"
    assert {"--disable-api-nodes", "--disable-metadata", "--disable-all-custom-nodes"} <= set(launch.argv)
    assert "--whitelist-custom-nodes" not in launch.argv


def test_the_operators_arguments_change_taste_but_not_what_the_miner_relies_on(home: Path) -> None:
    launch = managed(home, extra_args=("--listen", "0.0.0.0", "--port", "1", "--preview-method", "none", "--lowvram"))
    assert value_of("--listen", launch) == "127.0.0.1"
    assert value_of("--port", launch) == "8188"
    assert value_of("--preview-method", launch) == "none"
    assert "--lowvram" in launch.argv


@pytest.mark.parametrize("known", [{}, {"desktop": True}, {"limited": True}, {"desktop": True, "limited": True}])
def test_nothing_turns_the_dynamic_memory_off(home: Path, known: dict[str, bool]) -> None:
    flags = set(managed(home, **known).argv)
    assert not flags & {"--highvram", "--gpu-only", "--novram", "--cpu", "--disable-smart-memory", "--disable-mmap"}
    assert not {flag for flag in flags if flag.startswith(("--lowvram", "--cache", "--disable-dynamic"))}


def test_a_desktop_keeps_some_video_memory_unless_the_operator_says_how_much(home: Path) -> None:
    assert "--reserve-vram" not in managed(home).argv
    assert value_of("--reserve-vram", managed(home, desktop=True)) == "1.0"
    assert value_of("--reserve-vram", managed(home, desktop=True, extra_args=("--reserve-vram", "3"))) == "3"


def test_a_comfyui_within_a_memory_limit_is_another_command_so_that_it_is_not_adopted_without(home: Path) -> None:
    free, limited = managed(home), managed(home, limited=True)
    assert limited.argv == (free.argv[0], memory_limit.__file__, *free.argv[1:])
    assert Path(limited.argv[1]).is_absolute()


def test_a_bare_python_is_left_to_the_path_and_any_other_is_made_absolute(home: Path) -> None:
    assert managed(home, python=Path("python3")).argv[0] == "python3"
    assert managed(home, python=Path("venv/bin/python")).argv[0] == str(Path.cwd() / "venv/bin/python")


def test_only_named_custom_nodes_are_let_in(home: Path) -> None:
    launch = managed(home, custom_nodes=("one", "two"))
    at = launch.argv.index("--whitelist-custom-nodes")
    assert launch.argv[at + 1 : at + 3] == ("one", "two")
    assert all(argument.startswith("--") for argument in launch.argv[at + 3 : at + 4])


def test_every_gpu_has_folders_of_its_own_that_others_cannot_read(home: Path) -> None:
    first, second = managed(home, gpu="0"), managed(home, gpu="MIG-GPU-1/2/../../3")
    assert first.output_dir != second.output_dir
    for launch in (first, second):
        folder = launch.output_dir.parent
        assert folder.parent == home.parent / "state"
        assert folder.stat().st_mode & 0o077 == 0
        assert launch.output_dir.is_dir()
        assert launch.input_dir.is_dir()


def test_a_gpu_is_chosen_in_the_order_of_nvidia_smi() -> None:
    env = child_environment({"CUDA_VISIBLE_DEVICES": "5"}, "1")
    assert (env["CUDA_VISIBLE_DEVICES"], env["CUDA_DEVICE_ORDER"]) == ("1", "PCI_BUS_ID")


def test_without_a_gpu_the_operators_own_choice_is_passed_on() -> None:
    assert child_environment({"CUDA_VISIBLE_DEVICES": "5"}, None)["CUDA_VISIBLE_DEVICES"] == "5"


@pytest.mark.parametrize(
    "name", ["XALORA_API_KEY", "XALORA_STATUS_TOKEN", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "NVIDIA_API_KEY"]
)
def test_no_secret_is_passed_on(name: str) -> None:
    env = child_environment({"PATH": "/bin", "HOME": "/root", name: "secret"}, "0")
    assert "secret" not in env.values()
    assert (env["PATH"], env["HOME"]) == ("/bin", "/root")


def test_shared_models_are_searched_first_whatever_the_folder_is_called(home: Path) -> None:
    models = home.parent / "O'Neill's $HOME models: all"
    launch = managed(home, models_dir=models)
    found = list(read_extra_paths(Path(value_of("--extra-model-paths-config", launch))))
    assert all(first for _, _, first in found)
    kinds = {kind: path for kind, path, _ in found}
    assert {"loras", "vae", "text_encoders", "diffusion_models", "upscale_models"} <= kinds.keys()
    assert Path(str(kinds["loras"]).replace("''", "'")) == models / "loras"  # YAML doubles a quote


def test_another_models_folder_leaves_the_file_of_a_running_comfyui_alone(home: Path) -> None:
    """A reload that is refused has built its launch, too."""
    first, second = (managed(home, models_dir=home / name) for name in ("a", "b"))
    files = [Path(launch.argv[-1]) for launch in (first, second)]
    assert [("/a/loras" in file.read_text(), "/b/loras" in file.read_text()) for file in files] == [
        (True, False),
        (False, True),
    ]
    assert managed(home, models_dir=home / "a").argv == first.argv


def test_a_home_without_comfyui_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"comfyui\.home: no ComfyUI at"):
        managed(tmp_path)


def test_a_state_folder_that_cannot_be_made_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"\[state\] dir .* cannot be used: .*Not a directory"):
        embedded_launch(port=8188, state=tmp_path / "file" / "state")
