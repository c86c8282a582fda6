"""Limits of requests in flight: the queue, its order, its ends, and what is refused."""
import os
import random
import threading
import time

import pytest

from client import Connection, chat_body, request_bytes
from harness import SLOW
from prometheus import scrape

CHAT = "/v1/chat/completions"


class Slow:
    """An engine whose answers wait until they are let go, one by one, in the order they came."""

    def __init__(self, world):
        self.let = threading.Semaphore(0)
        self.order = []
        self.at_once = 0
        self.most = 0
        self.lock = threading.Lock()
        self.upstream = world.upstream(self.handle)

    def handle(self, exchange):
        with self.lock:
            self.order.append(exchange.header("x-name", ""))
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.let.acquire()
        with self.lock:
            self.at_once -= 1
        exchange.answer()


def ask(router, name, *headers):
    """Sends a request and leaves it open."""
    connection = Connection(router.address)
    connection.send(request_bytes("POST", CHAT, chat_body(name), [("X-Name", name), *headers]))
    return connection


def wait_until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds * SLOW
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


def waiting(router):
    return scrape(router).value("hashtrie_queued_requests")


def refused(router, reason):
    return scrape(router).value("hashtrie_refused_requests_total", reason=reason)


def fill(router, engine, name="first"):
    """A request at the engine, so that the next one waits."""
    held = ask(router, name)
    wait_until(lambda: name in engine.order)
    return held


def queue(router, *asked):
    """Requests in the queue, in that order."""
    connections = []
    for name, *headers in asked:
        connections.append(ask(router, name, *headers))
        wait_until(lambda: waiting(router) == len(connections))
    return connections


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("limit", ["--max-requests", "--max-requests-per-backend"])
def test_no_more_are_at_the_engine_and_all_are_served(world, threads, limit):
    engine = Slow(world)
    router = world.router([engine.upstream], "--threads", threads, limit, 3)
    connections = [ask(router, f"r{number}") for number in range(40)]
    wait_until(lambda: waiting(router) == 37 and len(engine.order) == 3)
    for _ in connections:
        engine.let.release()
    for connection in connections:
        assert connection.read_answer().status == 200
        connection.close()
    assert engine.most == 3 and len(engine.order) == 40
    page = scrape(router)
    assert page.value("hashtrie_queued_requests") == 0
    assert page.value("hashtrie_running_requests") == 0
    assert page.value("hashtrie_queue_seconds_count") == 37


def test_another_engine_is_taken_before_anybody_waits(world):
    engines = [Slow(world), Slow(world)]
    router = world.router([engine.upstream for engine in engines], "--max-requests-per-backend", 1)
    # The same prompt: without the limit its second request would follow the first.
    first = ask(router, "same")
    wait_until(lambda: sum(len(engine.order) for engine in engines) == 1)
    second = ask(router, "same")
    wait_until(lambda: all(len(engine.order) == 1 for engine in engines))
    third, = queue(router, ("same",))
    for engine in engines:
        engine.let.release()
        engine.let.release()
    assert [one.read_answer().status for one in (first, second, third)] == [200] * 3


def test_first_come_first_served_by_priority(world):
    engine = Slow(world)
    router = world.router([engine.upstream], "--max-requests", 1)
    held = fill(router, engine)
    connections = queue(router, ("low", ("X-Request-Priority", "5")),
                        ("a", ("X-Request-Priority", "0")), ("b", ("X-Request-Priority", "high")),
                        ("c",), ("urgent", ("X-Request-Priority", "-1")))
    for _ in range(6):
        engine.let.release()
    for connection in [held, *connections]:
        assert connection.read_answer().status == 200
    assert engine.order == ["first", "urgent", "a", "b", "c", "low"]


def test_a_client_that_leaves_is_out_of_the_queue(world):
    engine = Slow(world)
    router = world.router([engine.upstream], "--max-requests", 1)
    held = fill(router, engine)
    leaves, stays = queue(router, ("leaves",), ("stays",))
    leaves.close()
    wait_until(lambda: waiting(router) == 1)
    engine.let.release()
    engine.let.release()
    assert held.read_answer().status == 200 and stays.read_answer().status == 200
    assert engine.order == ["first", "stays"]
    assert scrape(router).value("hashtrie_cancelled_requests_total") == 1


def check_refusal(answer, code):
    assert answer.status == 429
    assert 1 <= int(answer.header("retry-after")) <= 60
    error = answer.json()["error"]
    assert error["code"] == code and error["type"] == "rate_limit_error" and error["message"]


def test_a_full_queue_refuses(world):
    engine = Slow(world)
    router = world.router([engine.upstream], "--max-requests", 1, "--max-queued-requests", 2,
                          "--max-queued-requests-per-client", 2)
    held = fill(router, engine)
    connections = queue(router, ("a",), ("b",))
    with ask(router, "c") as over:
        check_refusal(over.read_answer(), "queue_full")
        over.send(request_bytes("GET", "/health"))  # The connection stays.
        health = over.read_answer().json()
    assert health["requests"] == {"running": 1, "queued": 2}
    assert refused(router, "queue_full") == 1
    for _ in range(3):
        engine.let.release()
    assert [one.read_answer().status for one in [held, *connections]] == [200] * 3


def test_one_client_does_not_fill_the_queue(world):
    engine = Slow(world)
    router = world.router([engine.upstream], "--max-requests", 1, "--max-queued-requests", 4)
    greedy, modest = ("Authorization", "Bearer greedy"), ("Authorization", "Bearer modest")
    held = fill(router, engine)
    connections = queue(router, ("a", greedy), ("b", greedy))
    with ask(router, "c", greedy) as over:
        check_refusal(over.read_answer(), "client_queue_full")
    connections.append(ask(router, "d", modest))
    wait_until(lambda: waiting(router) == 3)
    assert refused(router, "client_queue_full") == 1
    for _ in range(4):
        engine.let.release()
    assert [one.read_answer().status for one in [held, *connections]] == [200] * 4


def test_a_request_waits_no_longer_than_it_may(world):
    engine = Slow(world)
    router = world.router([engine.upstream], "--max-requests", 1, "--queue-timeout", "300ms")
    held = fill(router, engine)
    begin = time.monotonic()
    with ask(router, "late") as late:
        check_refusal(late.read_answer(), "queue_timeout")
    assert 0.3 <= time.monotonic() - begin < 5 * SLOW
    assert refused(router, "queue_timeout") == 1
    engine.let.release()
    assert held.read_answer().status == 200
    assert engine.order == ["first"]
    router.wait_line(r"status=429 end=answered-here .*queue_seconds=0\.[3-9]")


def test_a_retry_obeys_the_limit(world):
    """Its engine breaks off; the other is full: it waits for that one, before a newcomer."""
    fail = threading.Event()

    def broken(exchange):
        assert fail.wait(10 * SLOW)
        exchange.close()

    bad, good = world.upstream(broken), Slow(world)
    router = world.router([bad, good.upstream], "--max-requests-per-backend", 1)
    connections = [ask(router, "one"), ask(router, "two")]
    wait_until(lambda: len(bad.exchanges) + len(good.order) == 2)
    newcomer, = queue(router, ("newcomer",))
    fail.set()
    # The newcomer gets the failed one's place, fails there too, and both wait for the good one.
    wait_until(lambda: waiting(router) == 2)
    assert good.most == 1
    for _ in range(3):
        good.let.release()
    assert [one.read_answer().status for one in [*connections, newcomer]] == [200] * 3
    assert good.most == 1 and good.order[-1] == "newcomer"


def test_the_queue_is_served_while_the_router_drains(world):
    engine = Slow(world)
    router = world.router([engine.upstream], "--max-requests", 1)
    held = fill(router, engine)
    connections = queue(router, ("a",), ("b",))
    router.signal(15)
    router.wait_line("SIGTERM|[Dd]rain|[Ss]top")
    for _ in range(3):
        engine.let.release()
    assert [one.read_answer().status for one in [held, *connections]] == [200] * 3
    assert router.wait() == 0


def test_what_still_waits_at_the_end_is_told(world):
    engine = Slow(world)
    router = world.router([engine.upstream], "--max-requests", 1, "--drain-timeout", "300ms")
    held = fill(router, engine)
    waits, = queue(router, ("a",))
    router.signal(15)
    assert waits.read_answer().status == 503
    assert held.read_answer().status == 503
    assert router.wait() == 0
    engine.let.release()


@pytest.mark.parametrize("threads", [1, 2])
def test_clients_that_come_and_leave_at_random_lose_no_place(world, threads):
    """Places are granted across loops while tickets leave: at the end all of them are free."""
    seed = int(os.environ.get("HASHTRIE_SEED", "0")) or random.randrange(1, 1 << 30)
    print(f"HASHTRIE_SEED={seed}")
    engines = [world.engine("--prefill-tps", "1000000", "--decode-ms", "1", name=f"e{number}")
               for number in range(2)]
    router = world.router(engines, "--threads", threads, "--max-requests-per-backend", 2,
                          "--max-requests", 3, "--max-queued-requests", 8)
    statuses, failures = [], []

    def client(number):
        chance = random.Random(seed + number)
        try:
            for turn in range(40):
                priority = ("X-Request-Priority", str(chance.randrange(-1, 2)))
                with ask(router, f"{number} {turn}", priority) as connection:
                    if chance.random() < 0.4:
                        time.sleep(chance.random() * 0.01)
                    else:
                        statuses.append(connection.read_answer().status)
        except Exception as failure:
            failures.append(failure)

    clients = [threading.Thread(target=client, args=(number,)) for number in range(16)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    assert not failures and set(statuses) <= {200, 429} and statuses.count(200) > 20
    wait_until(lambda: scrape(router).value("hashtrie_running_requests") == 0)
    page = scrape(router)
    assert page.value("hashtrie_queued_requests") == 0
    assert all(page.value("vllm:num_requests_running", server=one.url) == 0 for one in engines)
    for number in range(4):  # And all of them are usable.
        with ask(router, f"last {number}") as connection:
            assert connection.read_answer().status == 200


def test_an_engine_that_comes_back_takes_from_the_queue(world):
    well = threading.Event()
    served = []

    def second(exchange):
        if exchange.request_line.startswith("GET /health"):
            exchange.answer(status="200 OK" if well.is_set() else "500 No")
        else:
            served.append(exchange.header("x-name"))
            exchange.answer()

    def first(exchange):
        if exchange.request_line.startswith("GET /health"):
            exchange.answer()
        else:
            engine.handle(exchange)

    engine = Slow(world)
    engine.upstream = world.upstream(first)
    other = world.upstream(second)
    router = world.router([engine.upstream, other], "--max-requests-per-backend", 1,
                          "--static-backend-health-checks",
                          "--static-backend-health-check-interval", "100ms")
    wait_until(lambda: scrape(router).value("vllm:healthy_pods_total", server=other.url) == 0)
    held = fill(router, engine)
    waits, = queue(router, ("waits",))
    well.set()
    assert waits.read_answer().status == 200 and served == ["waits"]
    engine.let.release()
    assert held.read_answer().status == 200
