"""The units: what systemd says of them, and that their values fit the router's."""
import os
import re
import shlex
import subprocess

import pytest

from conftest import tool
from harness import BIN, binary

WORST_EXPOSURE = 1.5  # Of 10; Debian 12's own network daemons have 6 to 9.


@pytest.fixture(name="units")
def copy_units(deploy, tmp_path):
    """The units as they are, but with the programs of the build."""
    folder = os.path.join(deploy, "systemd")
    for source, target in (("hashtrie.socket",) * 2, ("hashtrie@.service",) * 2,
                           ("hashtrie@.service", "hashtrie@a.service")):
        with open(os.path.join(folder, source), encoding="utf-8") as file:
            text = file.read().replace("/usr/local/bin", os.path.abspath(BIN))
        (tmp_path / target).write_text(text)
    return tmp_path


def analyze(*arguments):
    return subprocess.run([tool("systemd-analyze"), *arguments], capture_output=True, text=True, check=False)


def test_systemd_finds_no_fault(units):
    run = analyze("verify", "--man=no", str(units / "hashtrie.socket"), str(units / "hashtrie@a.service"))
    assert run.returncode == 0 and not run.stderr, run.stderr
    unit = units / "hashtrie@a.service"
    unit.write_text(unit.read_text().replace("WatchdogSec=10", "WatchdogSecs=10"))
    assert "WatchdogSecs" in analyze("verify", "--man=no", str(unit)).stderr


def test_the_service_is_shut_in(units):
    run = analyze("security", "--offline=yes", "--no-pager", str(units / "hashtrie@a.service"))
    assert float(re.search(r"exposure level for \S+: ([0-9.]+)", run.stdout).group(1)) <= WORST_EXPOSURE


def options(deploy):
    """HASHTRIE_OPTIONS as systemd reads it."""
    with open(os.path.join(deploy, "systemd", "hashtrie.default"), encoding="utf-8") as file:
        text = file.read().replace("\\\n", "")
    words = shlex.split(re.search(r"^HASHTRIE_OPTIONS=(.*)$", text, re.M).group(1))
    assert len(words) == 1
    return words[0].split()


def test_the_router_takes_the_options(deploy, tmp_path):
    run = subprocess.run([binary("hashtrie-router"), *options(deploy), "--check-config"], cwd=tmp_path,
                         capture_output=True, text=True, check=False,
                         env={"STATE_DIRECTORY": str(tmp_path), "PATH": ""})
    assert run.returncode == 0, run.stderr
    assert str(tmp_path) in run.stdout


def test_there_is_time_to_stop(units):
    helped = subprocess.run([binary("hashtrie-router"), "--help"], capture_output=True, text=True, check=True).stdout
    drain = int(re.search(r"--drain-timeout.*?Default:\s+(\d+)s", helped, re.S).group(1))
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", (units / "hashtrie@.service").read_text(), re.M).group(1))
    assert stop > drain + 35
