"""The migration guide is true: of each flag and metric of the Python router it says what the router does."""
import os
import re
import subprocess

import pytest

from harness import FAST, Engine, Router, binary
from prometheus import scrape

BASE = ["--static-backends", "http://127.0.0.1:1", "--static-models", "m", "--no-store", "--check-config"]
# Values for flags that are accepted or refused; others are not run.
VALUES = {"--request-rewriter": "noop", "--feature-gates": "Other=true", "--enable-batch-api": None}


def rows(deploy, heading):
    with open(os.path.join(deploy, "MIGRATION.md"), encoding="utf-8") as file:
        section = file.read().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"^\| `([^`]+)` \| ([a-z ]+) \|", section, re.M)
    assert len({name for name, _ in found}) == len(found)
    return found


def of_kind(deploy, heading, *kinds):
    found = [name for name, kind in rows(deploy, heading) if kind in kinds]
    assert found
    return found


def test_only_known_words_are_used(deploy):
    kinds = {kind for heading in ("Flag by flag", "Metric by metric") for _, kind in rows(deploy, heading)}
    assert kinds <= {"the same", "other", "no effect", "refused", "not there"}


def test_flags_that_are_there(deploy):
    text = subprocess.run([binary("hashtrie-router"), "--help"], check=True, capture_output=True, text=True).stdout
    for flag in of_kind(deploy, "Flag by flag", "the same", "other"):
        assert re.search(rf"^  {flag}\b", text, re.M), flag


@pytest.mark.parametrize("kind, status", [("no effect", 0), ("refused", 2)])
def test_flags_whose_feature_is_not_there(deploy, kind, status):
    for flag in of_kind(deploy, "Flag by flag", kind):
        value = VALUES.get(flag, "1")
        run = subprocess.run([binary("hashtrie-router"), *BASE, flag, *([value] if value else [])],
                             capture_output=True, text=True, check=False)
        assert run.returncode == status, f"{flag}: {run.stderr}"
        assert f"{flag} is not supported" in run.stderr if status else "no effect" in run.stderr or value == "noop"


def test_metrics_that_are_there(deploy):
    engine = Engine(*FAST)
    try:
        router = Router([engine])
        metrics = scrape(router)
        assert router.terminate() == 0
    finally:
        engine.terminate()
    for name in of_kind(deploy, "Metric by metric", "the same", "other"):
        assert metrics.has(name), name


def test_each_legacy_flag_of_the_help_is_in_the_guide(deploy):
    text = subprocess.run([binary("hashtrie-router"), "--help"], check=True, capture_output=True, text=True).stdout
    legacy = set(re.findall(r"--[a-z0-9-]+", text.split("\nOf the Python router", 1)[1]))
    assert len(legacy) > 10 and legacy <= {name for name, _ in rows(deploy, "Flag by flag")}
