"""Fixtures: programs that live for one test and must end without a complaint."""
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import FAST, Engine, Router  # noqa: E402
from upstream import Upstream  # noqa: E402


class World:
    """Starts things, and takes them down after the test in the reverse order."""

    def __init__(self, folder):
        self.folder = folder
        self.things = []

    def keep(self, thing):
        self.things.append(thing)
        return thing

    def engine(self, *arguments, **options):
        if not arguments:
            arguments = FAST
        return self.keep(Engine(*arguments, **options))

    def engines(self, count, *arguments, **options):
        return [self.engine(*arguments, name=f"e{number}", **options) for number in range(count)]

    def router(self, backends, *arguments, **options):
        return self.keep(Router(backends, *arguments, **options))

    def upstream(self, handler, **options):
        return self.keep(Upstream(handler, **options))

    def store(self, name="store"):
        return str(self.folder / name)

    def close(self):
        complaints = []
        for thing in reversed(self.things):
            if isinstance(thing, Upstream):
                thing.close()
                complaints += [repr(failure) for failure in thing.failures]
                continue
            if thing.running():
                status = thing.terminate()
                if status != 0:
                    complaints.append(f"{thing.arguments[0]} ended with {status}:\n"
                                      f"{thing.output()[-3000:]}")
            complaint = thing.complaint()
            if complaint:
                complaints.append(complaint)
        return complaints

    def logs(self):
        return [(f"{os.path.basename(thing.arguments[0])} {thing.pid}", thing.output()[-6000:])
                for thing in self.things if not isinstance(thing, Upstream)]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    world = getattr(item, "funcargs", {}).get("world")
    if report.failed and world is not None:
        report.sections += world.logs()


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    complaints = world.close()
    assert not complaints, "\n".join(complaints)
