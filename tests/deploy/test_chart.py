"""The Helm chart: rendered by Helm's own library, checked against the schemas of Kubernetes' API and by the router."""
import os
import subprocess

import kubernetes_validate
import pytest
import yaml
from helm_python.chart import Chart, lint
from helm_python.errors import HelmError

from harness import binary

OLDEST, NEWEST = "1.25", kubernetes_validate.latest_version()
WARNING = 2
STATIC = {"static": {"backends": [{"url": "http://engine-0.engines:8000", "model": "m"},
                                  {"url": "https://engine-1.engines", "model": "n"}],
                     "aliases": {"other": "m"}}}
K8S = {"serviceDiscovery": "k8s", "k8s": {"labelSelector": "environment=test,release=test"}}
ALL_ON = {**STATIC, "replicaCount": 2, "clientKeys": {"secretName": "keys"}, "engineKey": {"secretName": "engine"},
          "tls": {"secretName": "cert"}, "env": [{"name": "HASHTRIE_CHUNK_SIZE", "value": "256"}],
          "store": {"snapshots": {"enabled": True}, "maxSize": "1Gi", "volumeSize": "6Gi", "storageClassName": "fast"},
          "serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True},
          "grafanaDashboard": {"enabled": True}, "networkPolicy": {"enabled": True},
          "extraArgs": ["--max-requests-per-backend=256"],
          "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
          "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
          "tolerations": [{"key": "router", "operator": "Exists"}], "nodeSelector": {"disk": "ssd"},
          "podLabels": {"team": "x"}, "podAnnotations": {"a": "b"}, "priorityClassName": "high",
          "imagePullSecrets": [{"name": "pull"}]}
CASES = {"static": STATIC, "all": ALL_ON, "bare": {**STATIC, "store": {"enabled": False}, "resources": {}},
         "pods": K8S, "services": {**K8S, "k8s": {**K8S["k8s"], "type": "service-name", "namespace": "engines"}}}


@pytest.fixture(name="chart", scope="module")
def open_chart(deploy):
    with Chart.load(os.path.join(deploy, "helm", "hashtrie")) as chart:
        yield chart


def objects(chart, values):
    """(kind, name) -> object of all that is rendered."""
    found = {}
    for path, text in chart.render(values, name="r", namespace="ns").items():
        if path.endswith(".yaml"):
            for item in yaml.safe_load_all(text):
                if item:
                    key = (item["kind"], item["metadata"]["name"])
                    assert key not in found
                    found[key] = item
    return found


def pod(chart, values):
    spec = objects(chart, values)["StatefulSet", "r-hashtrie"]["spec"]["template"]["spec"]
    return spec, spec["containers"][0]


@pytest.mark.parametrize("name", CASES)
def test_lint_finds_nothing(deploy, name):
    report = lint(os.path.join(deploy, "helm", "hashtrie"), CASES[name], strict=True)
    assert not report["errors"]
    assert not [message for message in report["messages"] if message["severity"] >= WARNING]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", CASES)
def test_kubernetes_knows_every_field(chart, name, version):
    checked = 0
    for item in objects(chart, CASES[name]).values():
        if item["apiVersion"].startswith("monitoring.coreos.com/"):
            continue  # Prometheus' operator: no schema in the package.
        kubernetes_validate.validate(item, version, strict=True)
        checked += 1
    assert checked >= 5


def test_the_schemas_would_find_a_mistake(chart):
    item = objects(chart, STATIC)["StatefulSet", "r-hashtrie"]
    item["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(item, NEWEST, strict=True)


def check_configuration(arguments, folder):
    return subprocess.run([binary("hashtrie-router"), "--check-config", *arguments], cwd=folder,
                          capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", CASES)
def test_the_router_takes_the_arguments(chart, name, tmp_path):
    _, container = pod(chart, CASES[name])
    for path in ("keys", "tls.crt", "tls.key"):
        (tmp_path / path).write_text("x")
    # The files are not where they will be in the container.
    arguments = [text.replace("/etc/hashtrie/keys/", "").replace("/etc/hashtrie/tls/", "")
                 .replace("/var/lib/hashtrie", str(tmp_path)) for text in container["args"]]
    run = check_configuration(arguments, tmp_path)
    assert run.returncode == 0, run.stderr
    if name == "all":
        assert "http://engine-0.engines:8000" in run.stdout
    assert check_configuration([*arguments, "--no-such-flag"], tmp_path).returncode == 2


def test_the_grace_period_is_what_the_stop_may_take(chart):
    spec, container = pod(chart, {**STATIC, "shutdown": {"delaySeconds": 7, "drainSeconds": 100, "marginSeconds": 40}})
    assert spec["terminationGracePeriodSeconds"] == 147
    assert {"--shutdown-delay=7s", "--drain-timeout=100s"} <= set(container["args"])


def test_probes_ask_the_plain_port(chart):
    _, container = pod(chart, ALL_ON)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"--admin-port={ports['admin']}" in container["args"]
    for probe, path in (("livenessProbe", "/health"), ("startupProbe", "/health"), ("readinessProbe", "/ready")):
        assert container[probe]["httpGet"] == {"path": path, "port": "admin"}


def test_nothing_is_allowed_that_is_not_needed(chart):
    spec, container = pod(chart, STATIC)
    assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["fsGroup"] == 65532
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                            "capabilities": {"drop": ["ALL"]}}
    assert spec["automountServiceAccountToken"] is False
    static = objects(chart, STATIC)
    assert not [key for key in static if key[0] in ("Role", "RoleBinding")]


def granted(chart, name):
    role = objects(chart, CASES[name])["Role", "r-hashtrie"]
    return role, {(resource, verb) for rule in role["rules"] for resource in rule["resources"]
                  for verb in rule["verbs"]}


def test_the_role_reads_and_no_more(chart):
    role, rights = granted(chart, "pods")
    assert {resource for resource, _ in rights} == {"pods"}
    assert role["metadata"].get("namespace") == "ns"
    role, rights = granted(chart, "services")
    assert {verb for _, verb in rights} <= {"get", "list", "watch"}
    assert ("endpointslices", "watch") in rights
    assert role["metadata"]["namespace"] == "engines"
    binding = objects(chart, CASES["services"])["RoleBinding", "r-hashtrie"]
    assert binding["metadata"]["namespace"] == "engines" and binding["subjects"][0]["namespace"] == "ns"


@pytest.mark.parametrize("values, wanted", [
    ({"store": {"maxSize": "8Gi", "volumeSize": "15Gi"}}, "needs 16384Mi"),
    ({"store": {"maxSize": "1Ti", "volumeSize": "2047Gi"}}, "needs 2097152Mi"),
    ({"store": {"maxSize": "1Gi", "volumeSize": "5Gi", "snapshots": {"enabled": True, "keep": 3}}}, "needs 6144Mi"),
    ({"static": {"backends": []}}, "static.backends is empty"),
    ({"routingLogic": "session"}, "needs sessionKey"),
    ({"serviceDiscovery": "k8s"}, "k8s.labelSelector is empty"),
    ({"store": {"maxSize": "8G"}}, "maxSize"),
    ({"store": {"maxsize": "8Gi"}}, "maxsize"),
    ({"containerPort": 80}, "containerPort"),
])
def test_values_that_cannot_work_are_refused(chart, values, wanted):
    with pytest.raises(HelmError, match=wanted):
        chart.render({**STATIC, **values}, name="r", namespace="ns")


def test_a_volume_of_twice_the_cap_will_do(chart):
    claim, = objects(chart, {**STATIC, "store": {"maxSize": "512Mi", "volumeSize": "1Gi"}})[
        "StatefulSet", "r-hashtrie"]["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"


def test_the_network_policy_knows_the_ports_of_engines(chart):
    policy = objects(chart, ALL_ON)["NetworkPolicy", "r-hashtrie"]["spec"]
    assert policy["egress"][1] == {"ports": [{"port": 8000}, {"port": 443}]}


def test_prometheus_finds_the_admin_port(chart):
    found = objects(chart, ALL_ON)
    monitor = found["ServiceMonitor", "r-hashtrie"]["spec"]
    service = found["Service", "r-hashtrie-headless"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    other = found["Service", "r-hashtrie"]
    assert not monitor["selector"]["matchLabels"].items() <= other["metadata"]["labels"].items()


def test_rules_and_dashboard_are_those_of_the_folder(chart, deploy):
    found = objects(chart, ALL_ON)
    with open(os.path.join(deploy, "monitoring", "alerts.yaml"), encoding="utf-8") as file:
        assert found["PrometheusRule", "r-hashtrie"]["spec"] == yaml.safe_load(file)
    with open(os.path.join(deploy, "monitoring", "dashboard.json"), encoding="utf-8") as file:
        data = found["ConfigMap", "r-hashtrie-dashboard"]["data"]
        assert data["hashtrie.json"].rstrip("\n") == file.read().rstrip("\n")


def test_the_version_is_that_of_the_router(chart):
    said = subprocess.run([binary("hashtrie-router"), "--version"], capture_output=True, text=True, check=True).stdout
    assert chart.metadata["appVersion"] in said.split()
