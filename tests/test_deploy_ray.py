"""The examples for Ray clusters: their form, and the flags in them, held against Ray's own and the page's."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import parser
from tests.test_project_files import requirements
from uso.cluster.address import CLIENT_PORT, workers_of

FOLDER = Path(__file__).resolve().parent.parent / "deploy" / "ray"


@pytest.fixture(scope="module")
def ray() -> Any:
    return pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")


@pytest.fixture(scope="module")
def cluster() -> Any:
    return yaml.safe_load((FOLDER / "cluster.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def kubernetes() -> dict[str, Any]:
    """By kind."""
    found = list(yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text(encoding="utf-8")))
    kinds = {one["kind"]: one for one in found}
    assert len(kinds) == len(found)
    return kinds


def container(pod: Any) -> Any:
    (found,) = pod["spec"]["containers"]
    return found


def environment(one: Any) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") or entry["valueFrom"] for entry in one["env"]}


def test_the_cluster_of_machines_has_the_form_that_ray_wants(ray: Any, cluster: Any) -> None:
    """Catches a key that Ray does not know, which it refuses only when somebody pays for machines already."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(cluster, schema)
    assert cluster["head_node_type"] in cluster["available_node_types"]
    gpu = cluster["available_node_types"]["gpu"]
    assert gpu["resources"]["GPU"] == 1 and gpu["max_workers"] <= cluster["max_workers"]


def test_ray_is_started_with_flags_that_it_has(ray: Any, cluster: Any, kubernetes: Any) -> None:
    """Catches a flag of another release of Ray."""
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    commands = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    used = [word.partition("=")[0] for line in commands for word in shlex.split(line) if word.startswith("--")]
    head, (workers,) = (kubernetes["RayCluster"]["spec"][key] for key in ("headGroupSpec", "workerGroupSpecs"))
    used += [f"--{name}" for group in (head, workers) for name in group["rayStartParams"]]
    assert set(used) <= known and len(used) > 10
    ports = [word for line in commands for word in shlex.split(line) if word.startswith("--ray-client-server-port")]
    assert ports == [f"--ray-client-server-port={CLIENT_PORT}"]
    assert head["rayStartParams"]["ray-client-server-port"] == str(CLIENT_PORT)
    assert CLIENT_PORT in [port["containerPort"] for port in container(head["template"])["ports"]]


def test_the_page_asks_the_cluster_that_is_there(kubernetes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a renamed flag or service, a page without the token, and more workers than the cluster may have."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    spec = kubernetes["RayCluster"]["spec"]
    page = container(kubernetes["Deployment"]["spec"]["template"])
    args = parser().parse_args(page["args"])
    workers = workers_of(args)
    assert workers is not None and workers.host == f"{kubernetes['RayCluster']['metadata']['name']}-head-svc"
    (group,) = spec["workerGroupSpecs"]
    assert group["minReplicas"] <= (workers.count or 0) <= group["maxReplicas"]
    assert args.port in [port["containerPort"] for port in page["ports"]]
    nodes = [container(one["template"]) for one in (spec["headGroupSpec"], group)]
    assert len({str(environment(one)) for one in (page, *nodes)}) == 1
    assert len({one["image"] for one in (page, *nodes)}) == 1
    assert kubernetes["Deployment"]["spec"]["replicas"] == 1
    labels = kubernetes["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert kubernetes["Service"]["spec"]["selector"] == labels
    volumes = {one["name"] for one in group["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in nodes[1]["volumeMounts"]} == volumes
    assert nodes[1]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_everybody_has_the_same_ray(kubernetes: Any) -> None:
    """Catches an image with another Ray than the page's, which would not let it in."""
    pins = requirements("requirements-ray.txt")
    image = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
    assert dict(re.findall(r'"([a-z]+)(?:\[default\])?==([\d.]+)"', image)) == pins
    assert kubernetes["RayCluster"]["spec"]["rayVersion"] == pins["ray"]
    assert "PYTHONPATH=/app" in image
