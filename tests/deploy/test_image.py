"""The image's root file system, made as the Dockerfile makes it, and the programs run in it as the image runs them:
as an ordinary user, with nothing to write to but the volume."""
import contextlib
import json
import os
import shutil
import subprocess

import pytest

from certificates import Authority
from client import ask, chat, get
from conftest import tool
from harness import BIN, FAST, Engine, Server, wait_until
from upstream import Upstream

USER = "65532"
# A mount namespace of its own: the tree read-only, /proc, and a folder in place of the volume.
CONTAIN = """set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount --rbind /proc "$1/proc"
mount --bind "$2" "$1/var/lib/hashtrie"
tree=$1
shift 2
exec chroot --userspec=%s:%s "$tree" "$@"
""" % (USER, USER)


def is_debian_12():
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            return "VERSION_ID=\"12\"" in file.read()
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not is_debian_12() or os.geteuid() != 0,
                                reason="the image is made on Debian 12, by root")


def image_root(deploy, tree):
    subprocess.run([os.path.join(deploy, "image-root"), "--binaries", BIN, tree], check=True)
    return tree


@pytest.fixture(name="tree", scope="module")
def make_tree(deploy, tmp_path_factory):
    return image_root(deploy, str(tmp_path_factory.mktemp("image") / "root"))


@pytest.fixture(name="volume")
def make_volume(tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o750)
    os.chown(volume, int(USER), int(USER))
    return str(volume)


def contained(tree, volume, *command):
    return ["unshare", "--mount", "bash", "-c", CONTAIN, "contain", tree, volume, *command]


@pytest.fixture(name="allowed", autouse=True)
def namespaces_are_allowed(tree, volume):
    run = subprocess.run(contained(tree, volume, "/usr/bin/hashtrie-router", "--version"), capture_output=True,
                         text=True, check=False)
    if run.returncode != 0 and ("unshare" in run.stderr or "mount" in run.stderr):
        pytest.skip(run.stderr)
    assert run.returncode == 0 and run.stdout.startswith("hashtrie-router "), run.stderr


@contextlib.contextmanager
def running(tree, volume, backend, *arguments):
    router = Server(contained(
        tree, volume, "/usr/bin/hashtrie-router", "--host", "127.0.0.1", "--port", "0", "--static-backends", backend,
        "--static-models", "mock-model", "--checkpoint-interval", "50ms", *arguments),
        environment={"STATE_DIRECTORY": "/var/lib/hashtrie/store"})
    try:
        yield router
    finally:
        assert router.terminate() == 0, router.output()


@pytest.fixture(name="engine")
def make_engine():
    engine = Engine(*FAST)
    yield engine
    engine.terminate()


def test_routes_and_remembers_as_the_image_would(engine, tree, volume):
    with running(tree, volume, engine.url, "--snapshot-dir", "/var/lib/hashtrie/snapshots") as router:
        assert chat(router, [{"role": "user", "content": "x" * 4096}]).status == 200
        wait_until(lambda: get(router, "/health").json()["store"]["nodes"] > 0, what="a checkpoint")
        with open(f"/proc/{router.pid}/status", encoding="ascii") as file:
            assert f"Uid:\t{USER}\t{USER}\t{USER}\t{USER}" in file.read()
        run = subprocess.run(contained(tree, volume, "/usr/bin/hashtrie-dump", "stats", "--json",
                                       "/var/lib/hashtrie/store"), capture_output=True, text=True, check=False)
        assert run.returncode == 0 and json.loads(run.stdout), run.stderr
        assert ask(router, "POST", "/admin/snapshot").status == 200
    assert sorted(os.listdir(volume)) == ["snapshots", "store"]


def test_names_and_authorities_are_found(tree, volume, tmp_path):
    """What the C library, OpenSSL and libcurl look for at run time is where they look."""
    authority = Authority(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy, symlinks=True)
    (copy / "etc/hosts").write_text("127.0.0.1 localhost\n")  # As container runtimes do.
    bundle = copy / "etc/ssl/certs/ca-certificates.crt"
    trusted = bundle.read_text()
    metrics = []

    def tell(exchange):
        metrics.append(1)
        exchange.answer(status="404 Not Found")

    upstream = Upstream(lambda exchange: exchange.answer(b"{}"), metrics=tell,
                        tls=authority.server_context("engine"))
    try:
        backend = f"https://localhost:{upstream.port}"
        bundle.write_text(trusted + (tmp_path / "authority.pem").read_text())
        with running(str(copy), volume, backend) as router:
            assert chat(router, [{"role": "user", "content": "x"}]).status == 200
            wait_until(lambda: metrics, what="libcurl's request for the metrics")
        bundle.write_text(trusted)
        with running(str(copy), volume, backend) as router:
            answer = chat(router, [{"role": "user", "content": "x"}])
            assert answer.status == 502 and "certificate" in answer.text()
    finally:
        upstream.close()


def test_it_holds_what_it_needs_and_no_more(tree):
    assert sorted(os.listdir(os.path.join(tree, "usr/bin"))) == ["hashtrie-dump", "hashtrie-router"]
    for package in os.listdir(os.path.join(tree, "var/lib/dpkg/status.d")):
        assert os.path.getsize(os.path.join(tree, "usr/share/doc", package, "copyright")) > 0
    for folder, _, names in os.walk(tree):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            assert status.st_mtime == 0 and not status.st_mode & 0o6000 and status.st_uid == 0


def test_it_is_the_same_twice(deploy, tree, tmp_path):
    again = image_root(deploy, str(tmp_path / "root"))
    archives = [subprocess.run(["tar", "--sort=name", "-C", folder, "-c", "."], check=True, capture_output=True).stdout
                for folder in (tree, again)]
    assert archives[0] == archives[1]


def test_a_folder_that_is_not_empty_is_left_alone(deploy, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine").write_text("x")
    run = subprocess.run([os.path.join(deploy, "image-root"), "--binaries", BIN, str(folder)], capture_output=True,
                         text=True, check=False)
    assert run.returncode == 1 and "not empty" in run.stderr and os.listdir(folder) == ["mine"]


def test_hadolint_finds_nothing(deploy):
    run = subprocess.run([tool("hadolint"), os.path.join(deploy, "Dockerfile")], capture_output=True, text=True,
                         check=False)
    assert run.returncode == 0, run.stdout
