"""The values for the production-stack's chart: what its template makes of them fits the router."""
import os
import re
import subprocess

import kubernetes_validate
import pytest
import yaml
from yamllint import linter
from yamllint.config import YamlLintConfig

from harness import binary

# What the chart's template puts before extraArgs, with its default values.
CHART_ARGUMENTS = ["--host", "0.0.0.0", "--port", "8000", "--service-discovery", "k8s", "--k8s-namespace", "default",
                   "--k8s-service-discovery-type", "pod-ip", "--k8s-label-selector", "environment=test,release=test"]
CHART_REST = ["--engine-stats-interval", "15", "--request-stats-window", "60"]
CHART_GRACE_SECONDS = 30
MINIMUM_FOR_CHECKPOINT = 10


@pytest.fixture(name="router")
def router_values(deploy):
    with open(os.path.join(deploy, "production-stack-values.yaml"), encoding="utf-8") as file:
        values = yaml.safe_load(file)
    assert set(values) == {"routerSpec"}
    return values["routerSpec"]


def seconds(arguments, flag):
    return int(re.search(rf"{flag}=(\d+)s", " ".join(arguments)).group(1))


def test_the_router_takes_what_the_chart_gives_it(router, tmp_path):
    extra = [text.replace("/var/lib/hashtrie", str(tmp_path)) for text in router["extraArgs"]]
    run = subprocess.run([binary("hashtrie-router"), "--check-config", *CHART_ARGUMENTS, "--routing-logic",
                          router["routingLogic"], *CHART_REST, *extra, "--lmcache-controller-port", "9000"],
                         capture_output=True, text=True, check=False, cwd=tmp_path,
                         env={"PYTHONHASHSEED": "123", "LMCACHE_LOG_LEVEL": "DEBUG"})
    assert run.returncode == 0, run.stderr


def test_it_stops_within_the_charts_grace_period(router):
    stop = seconds(router["extraArgs"], "--shutdown-delay") + seconds(router["extraArgs"], "--drain-timeout")
    assert stop + MINIMUM_FOR_CHECKPOINT <= CHART_GRACE_SECONDS


def test_the_pod_is_one_that_kubernetes_knows(router):
    pod = {"securityContext": router["securityContext"], "volumes": router["extraVolumes"], "containers": [{
        "name": "router-container", "image": f"{router['repository']}:{router['tag']}", "args": router["extraArgs"],
        "securityContext": router["containerSecurityContext"], "volumeMounts": router["extraVolumeMounts"],
        "readinessProbe": {**router["readinessProbe"], "httpGet": {"path": "/ready", "port": 8000}}}]}
    kubernetes_validate.validate({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "r"},
        "spec": {"replicas": router["replicaCount"], "strategy": router["strategy"],
                 "selector": {"matchLabels": {"a": "b"}},
                 "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}}},
        kubernetes_validate.latest_version(), strict=True)
    assert router["strategy"] == {"type": "Recreate"} and router["replicaCount"] == 1


def test_the_volume_fits(router, deploy):
    with open(os.path.join(deploy, "production-stack-pvc.yaml"), encoding="utf-8") as file:
        claim = yaml.safe_load(file)
    kubernetes_validate.validate(claim, kubernetes_validate.latest_version(), strict=True)
    volume, = router["extraVolumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    cap = int(re.search(r"--store-max-size=(\d+)GiB", " ".join(router["extraArgs"])).group(1))
    assert int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi")) >= 2 * cap
    mount, = router["extraVolumeMounts"]
    assert f"--store-path={mount['mountPath']}/store" in router["extraArgs"]


def test_yaml_is_tidy(deploy):
    config = YamlLintConfig("extends: default\nrules: {line-length: {max: 130}, document-start: disable, "
                            "comments: {min-spaces-from-content: 1}, "
                            "braces: {max-spaces-inside: 1}}")
    checked = 0
    for folder, _, names in os.walk(deploy):
        for name in names:
            if name.endswith(".yaml") and os.path.basename(folder) != "templates":
                checked += 1
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    assert not [str(problem) for problem in linter.run(file, config)], name
    assert checked >= 5
