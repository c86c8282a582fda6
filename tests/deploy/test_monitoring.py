"""Alerts and dashboard ask for metrics that the router has; the alerts fire when they should."""
import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

from conftest import HERE, tool
from harness import FAST, Engine, Router, Server, binary, wait_until
from prometheus import scrape

METRIC = re.compile(r"\b((?:hashtrie_|vllm:|process_)[a-zA-Z0-9_:]+)(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)(=~|=|!=|!~)"([^"]*)"')
# Labels that Prometheus adds, or that a variable of the dashboard chooses.
FOREIGN_LABELS = {"instance", "job", "server"}


@pytest.fixture(name="folder")
def monitoring_folder(deploy):
    return os.path.join(deploy, "monitoring")


def load_alerts(folder):
    with open(os.path.join(folder, "alerts.yaml"), encoding="utf-8") as file:
        groups = yaml.safe_load(file)["groups"]
    return [rule for group in groups for rule in group["rules"]]


def load_dashboard(folder):
    with open(os.path.join(folder, "dashboard.json"), encoding="utf-8") as file:
        return json.load(file)


def dashboard_expressions(folder):
    return [target["expr"] for panel in load_dashboard(folder)["panels"] for target in panel.get("targets", [])]


NO_CLUSTER = """
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
"""


@pytest.fixture(name="metrics", scope="module")
def all_metrics(tmp_path_factory):
    """What two routers export: one with a store and an engine, and one that asks for pods."""
    folder = tmp_path_factory.mktemp("router")
    (folder / "kubeconfig").write_text(NO_CLUSTER)
    started = []
    try:
        started.append(Engine(*FAST))
        (folder / "dynamic.yaml").write_text("static_aliases: {}\n")
        started.append(Router(started[:1], "--dynamic-config-yaml", folder / "dynamic.yaml",
                              store=str(folder / "store")))
        started.append(Server([binary("hashtrie-router"), "--host", "127.0.0.1", "--port", "0", "--no-store",
                               "--service-discovery", "k8s", "--k8s-label-selector", "a=b"],
                              environment={"KUBECONFIG": str(folder / "kubeconfig")}))
        wait_until(lambda: scrape(started[1]).total("hashtrie_engine_metrics_up") == 1, what="the engine was asked")
        metrics, pods = scrape(started[1]), scrape(started[2])
        metrics.types.update(pods.types)
        metrics.samples.update(pods.samples)
        yield metrics
    finally:
        statuses = [program.terminate() for program in reversed(started)]
    assert not any(statuses)


def used_metrics(expressions):
    found = [match.groups() for text in expressions for match in METRIC.finditer(text)]
    assert len(found) >= len(expressions)
    return found


def check_metrics(expressions, metrics):
    for name, selector in used_metrics(expressions):
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        assert metrics.has(name) or metrics.types.get(family) == "histogram", f"the router has no {name}"
        labels = [dict(pairs) for sample, pairs in metrics.samples if sample == name]
        for label, operator, value in LABEL.findall(selector or ""):
            if label in FOREIGN_LABELS or not labels or operator not in ("=", "=~"):
                continue
            for option in value.split("|") if operator == "=~" else [value]:
                assert any(one.get(label) == option for one in labels), f"no {name} has {label}={option}"


def test_alerts_ask_for_metrics_that_are_there(folder, metrics):
    check_metrics([rule["expr"] for rule in load_alerts(folder)], metrics)


def test_the_dashboard_asks_for_metrics_that_are_there(folder, metrics):
    expressions = dashboard_expressions(folder)
    assert len(expressions) > 30
    check_metrics(expressions, metrics)


def test_a_metric_that_is_not_there_is_noticed(metrics):
    with pytest.raises(AssertionError, match="hashtrie_no_such"):
        check_metrics(["rate(hashtrie_no_such_total[5m])"], metrics)
    with pytest.raises(AssertionError, match="state=gone"):
        check_metrics(['hashtrie_store_state{state="gone"}'], metrics)


def test_alerts_fire_when_they_should(folder, tmp_path):
    promtool = tool("promtool")
    shutil.copy(os.path.join(folder, "alerts.yaml"), tmp_path)
    shutil.copy(os.path.join(HERE, "alerts_test.yaml"), tmp_path)
    for command in (["check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"],
                    ["test", "rules", "alerts_test.yaml"]):
        run = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr


def test_each_alert_has_a_test_and_says_what_to_do(folder):
    with open(os.path.join(HERE, "alerts_test.yaml"), encoding="utf-8") as file:
        tested = set(re.findall(r'alertname="(\w+)"', file.read()))
    rules = load_alerts(folder)
    assert tested == {rule["alert"] for rule in rules}
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_prometheus_understands_the_dashboard(folder, tmp_path):
    promtool = tool("promtool")
    rules = [{"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m").replace("$instance", ".*")}
             for number, text in enumerate(dashboard_expressions(folder))]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    run = subprocess.run([promtool, "check", "rules", "rules.yaml"], cwd=tmp_path, capture_output=True, text=True,
                         check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_panels_stand_beside_each_other(folder):
    panels = load_dashboard(folder)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
