"""What tools/deploy holds, checked as far as that goes without a cluster. Uses the harness of tests/e2e."""
import os
import shutil
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))


@pytest.fixture(scope="session")
def deploy():
    return os.path.join(ROOT, "tools", "deploy")


def tool(name):
    """A program; tools/test puts what it had to fetch in a folder of its own. Skips if there is none."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("HASHTRIE_TEST_TOOLS", ""),
                            os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not here")
    return found
