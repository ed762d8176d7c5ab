"""The pages: their links lead somewhere, their commands exist, and what they tell to write is right."""

from __future__ import annotations

import io
import re
import tomllib

import pytest
import typer
from PIL import Image

from miner.cli.main import app
from miner.config.keys import VARIABLES
from miner.config.sources import CONFIG_VARIABLE
from miner.workflows import Variant, load_library
from tests.support.testbed import Testbed
from tests.system.shipping import configure
from tests.system.shipping.tools import TOP, kustomize

PAGES = sorted(page.stem for page in (TOP / "docs").glob("*.md"))


def text_of(page):
    return (TOP / "docs" / f"{page}.md").read_text(encoding="utf-8")


def blocks(page, language=""):
    """The fenced blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


def test_the_page_of_settings_is_what_the_settings_say():
    assert text_of("configure") == configure.page(), "it is old: python -m tests.system.shipping.configure"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file_of_the_tree(page):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text_of(page))
    local = {link for link in links if not link.startswith("https://")}
    assert {link for link in local if not (TOP / "docs" / link).exists()} == set()


def commands(page):
    """The words behind each `xalora-miner` that is the program, not the service or the container of that name."""
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL))
    lines = re.sub(r"#.*", "", "\n".join([*spans, *blocks(page, r"\w*")]))
    return [words.split() for words in re.findall(r"(?<![\w./-])xalora-miner (?!xalora-miner)([a-z][^\n|&;]*)", lines)]


NAMED = sorted({tuple(words) for page in PAGES for words in commands(page)})


@pytest.mark.parametrize("words", NAMED, ids=" ".join)
def test_every_command_and_flag_that_is_named_exists(words):
    command = typer.main.get_command(app)
    for word in words:
        if hasattr(command, "commands"):
            assert word in command.commands, f"xalora-miner {' '.join(words)}: no such command"
            command = command.commands[word]
    flags = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("-")} - flags == set(), words


def test_the_docs_name_every_command():
    assert {words[0] for words in NAMED} >= set(typer.main.get_command(app).commands)


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_that_is_named_is_a_setting(page):
    named = set(re.findall(r"\bXALORA_[A-Z0-9_]+\b", text_of(page)))
    assert named - set(VARIABLES) - {CONFIG_VARIABLE, "XALORA_"} == set()


def test_every_event_that_the_table_of_symptoms_names_is_logged():
    table = text_of("operate").partition("## Troubleshoot")[2]
    events = set(re.findall(r"^\| .*?`([a-z]+_[a-z_]+)`", table, re.MULTILINE))
    source = "".join(path.read_text() for path in (TOP / "miner").rglob("*.py"))
    assert len(events) > 5
    assert {event for event in events if f'"{event}"' not in source} == set()


def test_the_settings_of_the_service_are_valid(tmp_path):
    (written,) = re.findall(r"config\.toml <<'END'\n(.*?)^END$", text_of("systemd"), re.MULTILINE | re.DOTALL)
    from miner.config import load_settings

    path = tmp_path / "config.toml"
    path.write_text(written.replace("0x…", "0x" + "d" * 40))
    settings = load_settings(config_file=path, environ={}).settings
    assert str(settings.comfyui.home) == "/opt/ComfyUI"
    assert str(settings.state.dir) == "/var/lib/xalora-miner"


def test_the_fleets_kustomization_renders(tmp_path):
    (written,) = re.findall(r"kustomization\.yaml <<'END'\n(.*?)^END$", text_of("install"), re.MULTILINE | re.DOTALL)
    (tmp_path / "docker").symlink_to(TOP / "docker")
    (tmp_path / "fleet").mkdir()
    (tmp_path / "fleet" / "kustomization.yaml").write_text(written)
    rendered = kustomize(tmp_path / "fleet")
    assert "replicas: 4" in rendered
    assert rendered.count("image: registry.example.com/xalora-miner:0.1.0") == 2


# ---- the workflow of docs/workflows.md --------------------------------------------------------------------------


@pytest.fixture
def negative(tmp_path):
    """The folder that the page makes."""
    folder = tmp_path / "workflows" / "negative"
    folder.mkdir(parents=True)
    (graph,), (manifest, _) = blocks("workflows", "json"), blocks("workflows", "toml")
    (folder / "graph.json").write_text(graph)
    (folder / "workflow.toml").write_text(manifest)
    return folder


def test_the_workflow_of_the_page_does_what_it_says(negative):
    with Testbed(negative.parents[1]) as testbed:
        testbed.start_devnet()
        testbed.start_worker(testbed.start_engine(), workflows={"900": ["negative"]})
        picture = testbed.picture((40, 30))
        (task,) = testbed.ended(testbed.create(workflow_id="900", parameters={"image": picture, "scale": 2.9}))
        assert task["status"] == "finished", task
        with Image.open(io.BytesIO(testbed.result(task))) as result:
            assert (result.format, result.size) == ("JPEG", (120, 90))
            assert result.getpixel((60, 2))[0] > 200  # the gradient is dark at the top
        assert testbed.worker.stop() == 0


def test_the_error_of_the_page_is_the_one_that_is_given(negative):
    from miner.task.errors import ConfigError

    manifest = negative / "workflow.toml"
    manifest.write_text(manifest.read_text().replace("enlarge.scale_by", "enlarge.scale"))
    with pytest.raises(ConfigError) as refused:
        load_library([negative.parent], ids={})
    shown = re.search(r"^error: my-workflows/negative/(.*)$", text_of("workflows"), re.MULTILINE)[1]
    assert refused.value.message.endswith(shown), refused.value.message


def test_the_variants_of_the_page_are_valid():
    _, written = blocks("workflows", "toml")
    names = [Variant.model_validate(one).name for one in tomllib.loads(written)["variants"]]
    assert names == ["fp8", "bf16", "fp8-cast"]


def test_the_configuration_of_the_page_is_valid():
    (written,) = (block for block in blocks("workflows") if "folders" in block)
    assert tomllib.loads(written)["workflows"]["ids"] == {"900": ["negative"]}
