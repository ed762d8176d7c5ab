"""docker/compose.yaml as docker-compose reads it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from miner.config import Settings
from miner.config.keys import VARIABLES
from tests.system.shipping.tools import DOCKER, output, program

PROFILES = ["monitoring", "devnet"]


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """Each service, in the form that Compose makes of the file."""
    compose = program("docker-compose", package="apt install docker-compose")
    folder = tmp_path_factory.mktemp("docker")
    shutil.copy(DOCKER / "compose.yaml", folder)
    words = [word for profile in PROFILES for word in ("--profile", profile)]
    return yaml.safe_load(output(compose, "-f", folder / "compose.yaml", *words, "config"))["services"]


def test_only_the_miner_runs_without_a_profile(services):
    assert [name for name, service in services.items() if "profiles" not in service] == ["miner"]
    assert {profile for service in services.values() for profile in service.get("profiles", [])} == set(PROFILES)


def test_a_stop_leaves_time_to_drain_and_to_answer(services):
    minutes = int(re.fullmatch(r"(\d+)m(0s)?", services["miner"]["stop_grace_period"])[1])
    assert minutes * 60 >= Settings(state={"dir": "/state"}).miner.drain_timeout + 60


def test_nothing_listens_beyond_this_machine(services):
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_nothing_has_rights_that_it_does_not_need(services):
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert [name for name, service in services.items() if not service.get("read_only")] == ["grafana"]


def test_the_miner_keeps_its_models_and_its_journal(services):
    kept = {volume.split(":")[1] for volume in services["miner"]["volumes"]}
    assert kept == set(re.search(r'^VOLUME \["(.+)", "(.+)"\]$', (DOCKER / "Dockerfile").read_text(), re.M).groups())


def test_every_variable_of_the_miner_is_a_setting(services):
    names = services["miner"]["environment"]
    assert {name for name in names if name.startswith("XALORA_")} <= set(VARIABLES)


def test_what_is_mounted_is_in_the_tree():
    text = (DOCKER / "compose.yaml").read_text()
    mounted = [Path(path) for path in re.findall(r"- (\./\S+?):", text)]
    assert len(mounted) == 4
    assert [path for path in mounted if not (DOCKER / path).exists()] == []


def test_prometheus_and_grafana_find_the_miner(services):
    prometheus = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yaml").read_text())
    (job,) = prometheus["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["miner:8199"]
    assert re.fullmatch(".*xalora.*", job["job_name"])  # the alerts' pattern
    assert "XALORA_STATUS_PORT" not in services["miner"]["environment"]
    (source,) = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
