"""docker/kubernetes as `kubectl kustomize` renders it: valid, within the restricted profile, with time to drain."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

import pytest
import yaml

from miner.config import Settings
from miner.config.keys import VARIABLES
from tests.system.shipping.tools import DOCKER, kustomize, output, program

FOLDER = DOCKER / "kubernetes"
NAMES = ["base", "shared-models", "time-slicing"]


@pytest.fixture(scope="module", params=NAMES)
def rendered(request):
    return kustomize(FOLDER / request.param)


@pytest.fixture(scope="module")
def objects(rendered):
    return {thing["kind"]: thing for thing in yaml.safe_load_all(rendered)}


@pytest.fixture(scope="module")
def pod(objects):
    return objects["StatefulSet"]["spec"]["template"]["spec"]


def test_every_overlay_is_looked_at():
    assert sorted(path.parent.name for path in FOLDER.glob("*/kustomization.yaml")) == NAMES


def test_kubernetes_takes_every_object(rendered, tmp_path):
    validate = program("kubernetes-validate", package="pip install kubernetes-validate")
    path = tmp_path / "rendered.yaml"
    path.write_text(rendered)
    said = output(validate, "--strict", path)
    assert said.count("passed") == rendered.count("\nkind: ") - 1, said  # all but the PodMonitor, an operator's kind


def test_one_pod_has_one_gpu(pod):
    for container in (*pod["initContainers"], *pod["containers"]):
        ((name, count),) = container["resources"]["limits"].items()
        assert name.startswith("nvidia.com/gpu")
        assert count == 1


def test_a_stop_leaves_time_to_drain_and_to_answer(pod):
    assert pod["terminationGracePeriodSeconds"] >= Settings(state={"dir": "/state"}).miner.drain_timeout + 60


def test_the_pods_keep_to_the_restricted_profile(objects, pod):
    assert objects["Namespace"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_the_pods_run_as_the_images_user(pod):
    user, group = re.search(r"^USER (\d+):(\d+)$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE).groups()
    context = pod["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (int(user), int(group), int(group))


def test_the_probes_ask_what_needs_no_token(pod):
    from miner.dashboard.access import OPEN

    (miner,) = pod["containers"]
    paths = {name: miner[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert set(paths.values()) <= OPEN
    assert miner["ports"][0]["containerPort"] == Settings(state={"dir": "/state"}).status.port


def test_every_variable_is_a_setting_and_no_secret_is_among_them(pod):
    for container in (*pod["initContainers"], *pod["containers"]):
        names = {variable["name"] for variable in container["env"] if variable["name"].startswith("XALORA_")}
        assert names <= set(VARIABLES)
        assert not names & {"XALORA_API_KEY", "XALORA_STATUS_TOKEN"}


def test_prometheus_shows_the_token_that_the_miner_reads(objects, pod):
    (endpoint,) = objects["PodMonitor"]["spec"]["podMetricsEndpoints"]
    credentials = endpoint["authorization"]["credentials"]
    (secret,) = (volume["secret"] for volume in pod["volumes"] if "secret" in volume)
    assert credentials == {"name": secret["secretName"], "key": "status_token"}


def test_the_models_have_one_place(objects, pod):
    claimed = [claim["metadata"]["name"] for claim in objects["StatefulSet"]["spec"]["volumeClaimTemplates"]]
    mounted = [volume["name"] for volume in pod["volumes"]]
    assert sorted(name for name in (*claimed, *mounted) if name in ("models", "state")) == ["models", "state"]
    assert "state" in claimed  # a journal is one pod's


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "172.20.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "fd00::1"]
)
def test_the_private_network_is_out_of_reach(objects, address):
    (open_to_all, _dns) = objects["NetworkPolicy"]["spec"]["egress"]
    for peer in open_to_all["to"]:
        reached = ip_address(address) in ip_network(peer["ipBlock"]["cidr"])
        spared = any(ip_address(address) in ip_network(one) for one in peer["ipBlock"]["except"])
        assert not reached or spared
