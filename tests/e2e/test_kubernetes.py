"""Backends from Kubernetes: each pod or service as the API server tells it, however badly it does."""
import base64
import itertools
import os
import random
import subprocess
import time

import pytest

from certificates import Authority
from client import chat, engine_of, get
from harness import SLOW, binary, free_port, wait_until
from kube import Cluster, KubeRouter, Pod
from prometheus import scrape


class Place:
    """A cluster, and pods that are at one port."""

    def __init__(self, world, count=2, **options):
        self.world = world
        self.cluster = Cluster(world, **options)
        self.port = free_port("127.0.0.2")
        self.pods = [Pod(world, number, self.port) for number in range(count)]

    def tell(self, number, **state):
        pod = self.pods[number]
        self.cluster.pod(pod.name, pod.address, **state)

    def tell_all(self):
        for number in range(len(self.pods)):
            self.tell(number)

    def router(self, *arguments, user=None, authority=None, **options):
        kubeconfig = self.cluster.kubeconfig(self.world.folder / "kubeconfig", user, authority)
        return self.world.keep(KubeRouter(kubeconfig, self.port, *arguments, **options))

    def urls(self, *numbers):
        return {self.pods[number].url for number in numbers}


def serving(router):
    """The backends that get requests."""
    up = scrape(router).samples
    return {dict(labels)["server"] for (name, labels), value in up.items()
            if name == "vllm:healthy_pods_total" and value == 1}


def wait_serving(router, urls, seconds=10):
    try:
        wait_until(lambda: serving(router) == set(urls), seconds)
    except AssertionError:
        raise AssertionError(f"serving {serving(router)}, not {set(urls)}:\n{router.output()}")


def counter(router, name, resource="pods"):
    return scrape(router).samples[(f"hashtrie_kubernetes_{name}", (("resource", resource),))]


def wait_ready(router):
    wait_until(lambda: get(router, "/ready").status == 200, what="/ready")


def serving_place(world, count=2, *arguments, told=None):
    """A place, and a router whose backends its pods are: the first `told`, or all."""
    place = Place(world, count)
    numbers = range(count if told is None else told)
    for number in numbers:
        place.tell(number)
    router = place.router(*arguments)
    wait_serving(router, place.urls(*numbers))
    return place, router


NUMBERS = itertools.count()


def engines_asked(router, count=40):
    """Who answers prompts that nobody holds."""
    return {engine_of(chat(router, f"{next(NUMBERS)} " * 200)) for _ in range(count)}


# ---- Readiness of pods ----


@pytest.mark.smoke
def test_ready_pods_are_backends(world):
    place = Place(world, 3)
    place.tell_all()
    place.tell(2, ready=False)
    place.cluster.put("pods", "other", {"status": {"podIP": "127.0.0.99", "containerStatuses": [
        {"name": "x", "ready": True}]}}, {"app": "other"})
    router = place.router(environment={"VLLM_API_KEY": "sesame"})
    wait_ready(router)
    assert serving(router) == place.urls(0, 1)
    assert engines_asked(router) == {"pod-0", "pod-1"}
    assert [model["id"] for model in get(router, "/v1/models").json()["data"]] == ["mock-model"]
    assert "Bearer sesame" in place.pods[0].keys  # Discovery's question; a request has none.
    place.tell(2)
    wait_serving(router, place.urls(0, 1, 2))
    place.cluster.delete_pod("pod-0")
    wait_serving(router, place.urls(1, 2))
    assert "pod-0" not in engines_asked(router)
    assert router.find_lines(r"Kubernetes: pod pod-0 at \S+ has gone")


@pytest.mark.parametrize("change", [{"ready": False}, {"deleting": True}, {"address": None}])
def test_a_pod_that_is_not_ready_gets_nothing(world, change):
    place, router = serving_place(world)
    place.cluster.pod("pod-0", **{"address": place.pods[0].address, **change})
    wait_serving(router, place.urls(1))
    assert router.find_lines(r"pod pod-0 at \S+ is no longer ready")
    place.tell(0)
    wait_serving(router, place.urls(0, 1))


def test_requests_under_way_are_finished_where_their_pod_goes(world):
    place, router = serving_place(world, 1)
    place.cluster.delete_pod("pod-0")
    wait_serving(router, [])
    answer = chat(router, "x")
    assert answer.status == 503 and int(answer.header("retry-after")) > 0
    assert "temporarily unavailable" in answer.text()
    assert chat(router, "x", model="never-seen").status == 404


# ---- Events that get lost, come twice, or in another order ----


def test_a_deletion_that_was_never_told_is_found_by_the_next_list(world):
    place, router = serving_place(world, 2, "--k8s-relist-interval", "1s")
    place.cluster.wait_watched()
    place.cluster.drop = 1
    place.cluster.delete_pod("pod-0")
    wait_serving(router, place.urls(1))


def test_a_deletion_while_nobody_watches_is_told_by_the_next_watch(world):
    place, router = serving_place(world)
    place.cluster.wait_watched()
    place.cluster.refusal = (500, "away")
    place.cluster.cut()
    wait_until(lambda: place.cluster.watchers == 0)
    place.cluster.delete_pod("pod-0")
    assert serving(router) == place.urls(0, 1)  # Nobody can know.
    place.cluster.refusal = None
    wait_serving(router, place.urls(1))


@pytest.mark.parametrize("hard", [False, True])
def test_a_watch_that_is_cut_goes_on_from_its_version(world, hard):
    place, router = serving_place(world, told=1)
    for number in range(3):
        place.cluster.wait_watched()
        before = place.cluster.count("watch")
        place.cluster.cut(hard)
        place.tell(1, ready=number % 2 == 0)
        wait_until(lambda: place.cluster.count("watch") > before)
        wait_serving(router, place.urls(0, 1) if number % 2 == 0 else place.urls(0))
    assert place.cluster.count("list") == 1
    assert counter(router, "watches_total") >= 4


def test_a_version_that_has_expired_leads_to_a_list(world):
    place, router = serving_place(world)
    place.cluster.wait_watched()
    place.cluster.hold()  # What happens until the watch comes back is never told by it.
    place.cluster.delete_pod("pod-0")
    place.cluster.expire()
    place.cluster.held = None
    place.cluster.cut()
    wait_serving(router, place.urls(1))
    assert counter(router, "expired_total") == 1
    assert router.find_lines("pods cannot be watched: it answers 410")
    # The same as an event of a watch that runs.
    place.cluster.wait_watched()
    place.cluster.raw("pods", '{"type":"ERROR","object":{"kind":"Status","code":410}}')
    place.tell(0)
    wait_serving(router, place.urls(0, 1))
    assert place.cluster.count("list") == 3


def test_bookmarks_move_the_version_on(world):
    place, router = serving_place(world, 1)
    place.cluster.wait_watched()
    place.cluster.version += 500
    place.cluster.bookmark("pods")
    wait_until(lambda: counter(router, "sync_age_seconds") < 1)
    place.cluster.expire()
    place.cluster.cut()
    wait_until(lambda: place.cluster.count("watch") == 2)
    assert place.cluster.requests[-1][2]["resourceVersion"] == str(place.cluster.version)
    place.cluster.wait_watched()
    assert place.cluster.count("list") == 1


def test_events_that_come_twice_or_in_another_order_do_no_harm(world):
    place, router = serving_place(world, 3, told=1)
    place.cluster.wait_watched()
    place.cluster.repeat = 3
    place.tell(1)
    place.cluster.delete_pod("pod-0")
    wait_serving(router, place.urls(1))
    place.cluster.repeat = 1
    place.cluster.hold()
    place.tell(2)
    place.tell(0)
    place.cluster.delete_pod("pod-2")
    place.cluster.delete_pod("pod-1")
    place.cluster.release(lambda entries: list(reversed(entries)))
    wait_serving(router, place.urls(0))
    assert router.find_lines("its events are out of order")


def test_late_events_are_caught_up_with(world):
    place, router = serving_place(world, 3)
    place.cluster.wait_watched()
    place.cluster.hold()
    place.cluster.delete_pod("pod-1")
    place.tell(2, ready=False)
    place.tell(2)
    place.cluster.delete_pod("pod-0")
    assert serving(router) == place.urls(0, 1, 2)
    place.cluster.release()
    wait_serving(router, place.urls(2))


def test_a_list_in_pages_whose_token_expires(world):
    place = Place(world, 5)
    place.cluster.page_objects = 2
    place.tell_all()
    router = place.router("--k8s-relist-interval", "1s")
    wait_serving(router, place.urls(0, 1, 2, 3, 4))
    assert place.cluster.count("list") >= 3
    for _ in range(20):  # Sooner or later between two pages; each is begun again.
        place.cluster.snapshots.clear()
        time.sleep(0.05)
    place.cluster.drop = 1
    place.cluster.delete_pod("pod-4")
    wait_serving(router, place.urls(0, 1, 2, 3))


def test_after_any_history_the_router_knows_what_there_is(world):
    chance = random.Random(int(os.environ.get("HASHTRIE_SEED", "7")))
    place = Place(world, 6)
    place.tell_all()
    router = place.router("--k8s-relist-interval", "2s")
    wait_ready(router)
    truth = {pod.url for pod in place.pods}
    for _ in range(120):
        number = chance.randrange(6)
        pod = place.pods[number]
        match chance.randrange(9):
            case 0 | 1 | 2:
                place.tell(number)
                truth.add(pod.url)
            case 3:
                place.tell(number, ready=False)
                truth.discard(pod.url)
            case 4:
                if pod.name in place.cluster.objects["pods"]:
                    place.cluster.delete_pod(pod.name)
                truth.discard(pod.url)
            case 5:
                place.cluster.cut(chance.random() < 0.5)
            case 6:
                place.cluster.expire()
            case 7:
                place.cluster.drop = chance.randrange(2)
            case 8:
                place.cluster.repeat = chance.randrange(1, 3)
        time.sleep(chance.random() * 0.02)
    wait_serving(router, truth, 15)


# ---- The API server and the way to it ----


def test_ready_waits_for_the_first_list(world):
    place = Place(world, 1)
    place.tell(0)
    place.cluster.refusal = (503, "etcd is away")
    router = place.router()
    answer = get(router, "/ready")
    assert answer.status == 503 and answer.json()["status"] == "waiting for Kubernetes"
    assert get(router, "/health").status == 200
    router.wait_line("pods cannot be listed: it answers 503: etcd is away; again in")
    assert scrape(router).samples[("hashtrie_ready", ())] == 0
    place.cluster.refusal = None
    wait_ready(router)
    assert router.find_lines("Kubernetes: pods can be read again")
    assert engine_of(chat(router, "x")) == "pod-0"


def test_no_pods_are_a_fine_answer_too(world):
    place = Place(world, 0)
    router = place.router()
    wait_ready(router)
    assert chat(router, "x").status == 404


def test_while_the_api_server_is_away_all_stays_as_it_is(world):
    place, router = serving_place(world, 2, "--k8s-relist-interval", "1s")
    place.cluster.server.stop_listening()
    place.cluster.cut(hard=True)
    router.wait_line("Kubernetes: pods cannot be (listed|watched): .*again in")
    wait_until(lambda: counter(router, "failures_total") >= 3, 20)
    assert serving(router) == place.urls(0, 1)
    assert get(router, "/ready").status == 200
    assert engines_asked(router) == {"pod-0", "pod-1"}


def test_what_is_forbidden_is_told(world):
    place = Place(world, 1)
    place.cluster.refusal = (403, 'pods is forbidden: User \\"system:x\\" cannot list')
    router = place.router()
    router.wait_line("pods cannot be listed: it answers 403: pods is forbidden")


def test_tls_and_a_token_that_is_rotated(world, tmp_path):
    authority = Authority(tmp_path)
    place = Place(world, tls=authority.server_context("api"), token="first")
    place.tell(0)
    token = tmp_path / "token"
    token.write_text("first\n")
    router = place.router(user={"tokenFile": "token"},
                          authority={"certificate-authority": "authority.pem"})
    wait_serving(router, place.urls(0))
    place.cluster.wait_watched()
    place.cluster.token = "second"
    place.cluster.cut()
    router.wait_line("pods cannot be watched: it answers 401")
    token.write_text("second")
    place.tell(1)
    wait_serving(router, place.urls(0, 1))
    assert "second" not in router.output() and "first" not in router.output().replace(
        "first time", "")


def test_a_server_that_cannot_prove_who_it_is_is_not_asked(world, tmp_path):
    authority = Authority(tmp_path)
    other = Authority(tmp_path, "other")
    place = Place(world, 1, tls=authority.server_context("api"), token="secret")
    router = place.router(user={"token": "secret"}, authority={
        "certificate-authority-data": base64.b64encode(
            open(other.path, "rb").read()).decode()})
    router.wait_line("pods cannot be listed: .*certificate")
    assert place.cluster.requests == []


def test_an_exec_plugin_is_refused(world):
    place = Place(world, 0)
    place.cluster.kubeconfig(world.folder / "config", {"exec": {"command": "true"}})

    run = subprocess.run([binary("hashtrie-router"), "--service-discovery", "k8s", "--no-store"],
                         env={"KUBECONFIG": str(world.folder / "config")}, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20, check=False)
    assert run.returncode == 1
    assert "exec: a router runs no programs to get at credentials" in run.stdout


def test_a_hostile_api_server_takes_bounded_memory(world):
    place, router = serving_place(world, 1)
    before = router.rss_bytes()
    place.cluster.wait_watched()
    for line in ["garbage", "[" * 5000, "x" * (9 << 20),
                 '{"type":"ADDED","object":{"metadata":{"resourceVersion":"x"}}}']:
        watches = place.cluster.watches
        place.cluster.raw("pods", line)
        if "resourceVersion" not in line:
            place.cluster.wait_watched_again(watches)
    wait_serving(router, place.urls(0))
    assert router.rss_bytes() < before + (24 << 20)


# ---- Models ----


def test_models_are_asked_for_again(world):
    place, router = serving_place(world)
    place.pods[0].models.append("lora")  # Loaded by somebody: nobody tells.
    wait_until(lambda: chat(router, "x", model="lora").status == 200)
    assert engine_of(chat(router, "x", model="lora")) == "pod-0"
    place.pods[0].models.remove("lora")
    wait_until(lambda: chat(router, "x", model="lora").status == 503)
    assert router.find_lines("pod pod-0 at .* serves mock-model, lora")


def test_a_pod_that_changes_is_asked_at_once(world):
    place, router = serving_place(world, 1, "--k8s-models-interval", "1h")
    place.pods[0].models.append("lora")
    place.tell(0, labels={"lora": "loaded"})
    wait_until(lambda: chat(router, "x", model="lora").status == 200, 5)


def test_a_pod_that_hangs_does_not_hold_up_others(world):
    place = Place(world, 3)
    place.pods[0].hanging = True
    place.tell(0)
    place.tell(1)
    router = place.router("--backend-health-check-timeout-seconds", "30")
    wait_serving(router, place.urls(1), 5)
    wait_until(lambda: get(router, "/ready").status == 200, 5)
    place.tell(2)
    wait_serving(router, place.urls(1, 2), 5)
    place.pods[0].hanging = False
    place.pods[0].released.set()
    wait_serving(router, place.urls(0, 1, 2), 5)


def test_one_that_answers_no_longer_keeps_the_models_it_had(world):
    place, router = serving_place(world, 1, "--backend-health-check-timeout-seconds", "0.2s")
    place.pods[0].hanging = True
    router.wait_line("its models cannot be read: .*; it keeps those it had")
    assert serving(router) == place.urls(0)
    place.pods[0].released.set()


def test_a_pod_whose_models_have_no_end_does_not_hold_up_others(world):
    place = Place(world, 3)
    place.tell(0)
    place.tell(1)
    router = place.router()
    wait_serving(router, place.urls(0, 1))
    for turn in range(17):  # 4,352 names; 4,096 is all the router has numbers for.
        lines = router.line_count()
        place.pods[0].models = [f"model-{turn}-{number}" for number in range(256)]
        place.tell(0, ready=False)
        place.tell(0)
        router.wait_line("Backend .* has come", start=lines)
    router.wait_line(f"Kubernetes: [0-9]+ models of {place.pods[0].url} are left out")
    place.tell(2)
    wait_serving(router, place.urls(0, 1, 2))
    assert engines_asked(router) == {"pod-1", "pod-2"}


def test_pods_that_sleep_get_nothing(world):
    place = Place(world)
    place.pods[1].sleeping = True
    place.tell(0)
    place.tell(1, command=["--enable-sleep-mode"])
    router = place.router()
    wait_until(lambda: "/is_sleeping" in place.pods[1].asked)
    router.wait_line("pod pod-1 at .* sleeps")
    wait_ready(router)
    assert engines_asked(router) == {"pod-0"}
    assert "/is_sleeping" not in place.pods[0].asked  # It was not started so.
    place.pods[1].sleeping = False
    router.wait_line("pod pod-1 at .* is awake")
    wait_until(lambda: engines_asked(router, 10) == {"pod-0", "pod-1"})
    # One that cannot say it has a label for it.
    place.tell(0, labels={"sleeping": "true"})
    wait_until(lambda: engines_asked(router, 10) == {"pod-1"})


# ---- State ----


def outcome_counts(router):
    return {dict(labels).get("outcome"): value
            for (name, labels), value in scrape(router).samples.items()
            if name == "hashtrie_routing_decisions_total"}


def test_a_pod_that_flaps_keeps_its_state_and_one_that_is_replaced_does_not(world):
    place, router = serving_place(world)
    prompt = "a long prompt that is the same again and again " * 40
    home = engine_of(chat(router, prompt))
    number = int(home[-1])
    # Not ready for a while: another one takes over.
    place.tell(number, ready=False)
    wait_serving(router, place.urls(1 - number))
    place.tell(number)
    wait_serving(router, place.urls(0, 1))
    before = outcome_counts(router).get("holder", 0)
    assert engine_of(chat(router, prompt)) == home
    assert outcome_counts(router)["holder"] == before + 1
    # Another pod at the same address: it holds nothing, so nobody does.
    place.cluster.delete_pod(home)
    wait_serving(router, place.urls(1 - number))
    place.tell(number)
    wait_serving(router, place.urls(0, 1))
    before = outcome_counts(router)
    chat(router, prompt)
    assert outcome_counts(router).get("holder", 0) == before["holder"]
    assert outcome_counts(router)["no_holder"] == before["no_holder"] + 1


def test_a_container_that_restarts_holds_nothing(world):
    place, router = serving_place(world, 1)
    prompt = "a long prompt " * 100
    chat(router, prompt)
    lines = router.line_count()
    place.tell(0, restarts=1)
    router.wait_line("another process than before", start=lines)
    router.wait_line("serves mock-model", start=lines)
    router.wait_line("Backend .* has come", start=lines)
    before = outcome_counts(router)
    chat(router, prompt)
    assert outcome_counts(router)["no_holder"] == before["no_holder"] + 1


def test_of_two_pods_at_one_address_the_younger_counts(world):
    place = Place(world, 1)
    place.tell(0)
    place.cluster.pod("newer", place.pods[0].address, labels={"model": "label"})
    router = place.router()
    wait_ready(router)
    assert serving(router) == place.urls(0)
    place.cluster.delete_pod("newer")
    router.wait_line("pod newer at .* has gone")
    assert serving(router) == place.urls(0)


# ---- Scaled to none ----


def test_a_router_that_restarts_knows_which_models_there_were(world):
    place = Place(world, 2)
    place.pods[1].models = ["org/other", "lora"]
    place.tell_all()
    arguments = ["--checkpoint-interval", "50ms"]
    router = place.router(*arguments, store=world.store())
    wait_serving(router, place.urls(0, 1))
    place.pods[1].models.append("lora-2")  # Nobody ever asks for it.
    router.wait_line("serves org/other, lora, lora-2")
    wait_until(lambda: "lora-2" in get(router, "/v1/models").text())
    place.cluster.delete_pod("pod-0")
    place.cluster.delete_pod("pod-1")
    wait_serving(router, [])
    assert router.terminate() == 0
    router = place.router(*arguments, store=world.store())
    wait_ready(router)
    for model in ("mock-model", "org/other", "lora", "lora-2"):
        answer = chat(router, "x", model=model)
        assert answer.status == 503 and answer.header("retry-after") == "5"
        assert "is temporarily unavailable. Please try again later." in answer.json()["error"]
    assert chat(router, "x", model="never-seen").status == 404
    assert get(router, "/v1/models").json()["data"] == []
    place.tell(0)
    wait_until(lambda: chat(router, "x").status == 200)


def test_models_may_be_known_before_any_pod_is(world):
    place = Place(world, 0)
    router = place.router("--k8s-known-models", "org/llama, other")
    wait_ready(router)
    assert [chat(router, "x", model=model).status for model in ("org/llama", "other", "third")] == [
        503, 503, 404]


# ---- Services ----


def test_services_are_as_ready_as_their_endpoints(world):
    place = Place(world, 0)
    pod = Pod(world, -1, place.port)  # 127.0.0.1, which is localhost.
    place.cluster.service("localhost", selector={"model": "m"})
    router = place.router("--k8s-service-discovery-type", "service-name")
    url = f"http://localhost:{place.port}"
    wait_ready(router)
    assert serving(router) == set()
    place.cluster.slice("localhost-a", "localhost", [False])
    place.cluster.slice("localhost-b", "localhost", [False, True])
    wait_serving(router, [url])
    assert engine_of(chat(router, "x")) == pod.name
    place.cluster.slice("localhost-b", "localhost", [])
    wait_serving(router, [])  # Nothing of the service itself has changed.
    place.cluster.slice("localhost-a", "localhost", [None])
    wait_serving(router, [url])
    place.cluster.delete("endpointslices", "localhost-a")
    wait_serving(router, [])
    place.cluster.slice("localhost-b", "localhost", [True])
    wait_serving(router, [url])
    place.cluster.delete("services", "localhost")
    wait_serving(router, [])
    assert counter(router, "lists_total", "endpointslices") == 1
    assert counter(router, "events_total", "endpointslices") >= 5


# ---- What is told ----


def test_metrics(world):
    place = Place(world, 3)
    place.tell(0)
    place.tell(1, ready=False)
    place.pods[2].models = []
    place.tell(2)
    router = place.router()
    wait_serving(router, place.urls(0))
    wait_until(lambda: "/v1/models" in place.pods[2].asked)
    found = scrape(router)
    states = {state: found.samples[("hashtrie_kubernetes_engines", (("state", state),))]
              for state in ("known", "ready", "serving")}
    assert states == {"known": 3, "ready": 2, "serving": 1}
    assert found.types["hashtrie_kubernetes_watches_total"] == "counter"
    assert 0 <= counter(router, "sync_age_seconds") < 60 * SLOW
    assert counter(router, "lists_total") == 1
    place.tell(1)
    wait_until(lambda: counter(router, "events_total") == 1)
    assert router.find_lines(r"Kubernetes: asking http://\S+ as \S+ says for pods in namespace llm")
