"""Backends behind names that move."""
import pytest

from client import chat, engine_of

# A mount namespace with a hosts file of its own.
OWN_HOSTS = 'mount --bind "$0" /etc/hosts && exec "$@"'


def answers_as(world, name, close=False, **place):
    headers = [("X-Engine-Id", name)] + ([("Connection", "close")] if close else [])
    return world.upstream(lambda exchange: exchange.answer(headers=headers), **place)


@pytest.mark.parametrize("name", ["engine", "engine-0.engines.llm.svc.cluster.local", "a1.b2"])
def test_a_name_is_resolved_for_each_new_connection(world, name):
    old = answers_as(world, "old", close=True, host="127.0.0.2")
    answers_as(world, "new", host="127.0.0.3", port=old.port)
    hosts = world.folder / "hosts"
    hosts.write_text(f"127.0.0.2 {name}\n")
    router = world.router([f"http://{name}:{old.port}"],
                          under=("unshare", "-m", "sh", "-c", OWN_HOSTS, str(hosts)))
    assert engine_of(chat(router, "hello")) == "old"
    with open(hosts, "w", encoding="ascii") as file:  # In place: what is mounted is this file.
        file.write(f"127.0.0.3 {name}\n")
    assert engine_of(chat(router, "hello")) == "new"
