"""What the router knows of its engines: which have restarted, and how much they can still hold."""
import re
import threading

import pytest

from client import Connection, chat, engine_of, get
from harness import SLOW, Engine, wait_until
from prometheus import scrape
from test_lifecycle import wait_checkpoint
from test_routing import conversation

FAST = ("--prefill-tps", "1000000", "--decode-ms", "0")
OLD = ("--start-time", "1700000000.25")  # Long before now, where the mock's own start time is.


def outcomes(router):
    metrics = scrape(router)
    return {outcome: metrics.total("hashtrie_routing_decisions_total", outcome=outcome)
            for outcome in ("holder", "shorter", "spread", "no_holder")}


def outcome_of(router, messages, **fields):
    """Why the router chose as it did, and the answer."""
    before = outcomes(router)
    answer = chat(router, messages, **fields)
    assert answer.status == 200, answer
    after = outcomes(router)
    return [name for name in after if after[name] > before[name]][0], answer


def wait_told(router, count):
    """All engines have said what they are."""
    wait_until(lambda: scrape(router).total("hashtrie_engine_metrics_up") == count, 20,
               f"the metrics of {count} engines")


def restart(world, engine, *arguments):
    """The same engine on the same port, with an empty cache."""
    engine.kill()
    return world.keep(Engine(*(arguments or FAST), name=engine.name, port=engine.port))


def home_of(router, engines, messages):
    name = engine_of(chat(router, messages))
    return [engine for engine in engines if engine.name == name][0]


def restarts(router):
    return scrape(router).total("hashtrie_engine_restarts_total")


# ---- Restarts ----

@pytest.mark.smoke
def test_a_restart_is_noticed_within_the_interval(world):
    engines = world.engines(2, *FAST, *OLD)
    router = world.router(engines, "--engine-stats-interval", "200ms")
    wait_told(router, 2)
    talks = [(messages, home_of(router, engines, messages))
             for messages in map(conversation, range(10))]
    gone, kept = engines
    restart(world, gone)
    router.wait_line(rf"warning Engine {re.escape(gone.url)} restarted .*no longer count")
    metrics = scrape(router)
    assert metrics.value("hashtrie_engine_restarts_total", server=gone.url) == 1
    assert metrics.value("hashtrie_engine_restarts_total", server=kept.url) == 0
    found = {outcome_of(router, messages)[0] for messages, home in talks if home is gone}
    assert found == {"no_holder"}
    for messages, home in talks:
        if home is kept:
            outcome, answer = outcome_of(router, messages)
            assert outcome == "holder" and engine_of(answer) == kept.name


@pytest.mark.smoke
def test_a_refused_connection_makes_the_router_ask_at_once(world):
    engine = world.engine(*FAST, *OLD)
    router = world.router([engine], "--engine-stats-interval", "1h")
    wait_told(router, 1)
    assert outcome_of(router, conversation(1))[0] == "no_holder"
    assert outcome_of(router, conversation(1))[0] == "holder"
    engine.kill()
    assert chat(router, conversation(1)).status == 502
    router.wait_line("metrics cannot be read")
    restart(world, engine)
    router.wait_line(rf"Engine {re.escape(engine.url)} restarted", 20)
    assert outcome_of(router, conversation(1))[0] == "no_holder"


def test_an_answer_cut_in_the_middle_makes_the_router_ask_at_once(world):
    """The engine is back before anybody could find it refusing."""
    start = ["5"]

    def cut(exchange):
        exchange.start_stream()
        exchange.chunk(b"data: 1\n\n")
        start[0] = "7000"
        exchange.close()

    def metrics(exchange):
        exchange.answer(f"process_start_time_seconds {start[0]}\n".encode())

    router = world.router([world.upstream(cut, metrics=metrics)], "--engine-stats-interval", "1h")
    wait_told(router, 1)
    with pytest.raises((EOFError, ConnectionError)):
        chat(router, "x", stream=True)
    router.wait_line("restarted .started at 7000.000, before that at 5.000")


@pytest.mark.smoke
def test_without_a_start_time_a_counter_that_goes_down_tells(world):
    tokens = [100]

    def metrics(exchange):
        exchange.answer(f"sglang:prompt_tokens_total {tokens[0]}\n".encode())

    engine = world.upstream(lambda exchange: exchange.answer(b"fine"), metrics=metrics)
    store = world.store()
    arguments = ("--engine-stats-interval", "100ms", "--checkpoint-interval", "50ms")
    router = world.router([engine], *arguments, store=store)
    router.wait_line("info .*a restart is known by its counters")
    assert outcome_of(router, conversation(1))[0] == "no_holder"
    tokens[0] = 5000
    wait_checkpoint(router)
    router.terminate()
    tokens[0] = 9000
    router = world.router([engine], *arguments, store=store)
    wait_told(router, 1)
    assert outcome_of(router, conversation(1))[0] == "holder"
    tokens[0] = 8999
    router.wait_line(rf"Engine {engine.url} restarted .its counters began anew.")
    assert outcome_of(router, conversation(1))[0] == "no_holder"
    assert outcome_of(router, conversation(1))[0] == "holder"
    assert restarts(router) == 1


@pytest.mark.smoke
@pytest.mark.parametrize("end", ["terminate", "kill"])
def test_a_restart_while_the_router_is_down_is_noticed(world, end):
    engines = world.engines(2, *FAST, *OLD)
    store = world.store()
    arguments = ("--checkpoint-interval", "50ms", "--reload-timeout", "5s")
    router = world.router(engines, *arguments, store=store)
    wait_told(router, 2)
    talks = [(messages, home_of(router, engines, messages))
             for messages in map(conversation, range(10))]
    gone, kept = engines
    wait_checkpoint(router)
    getattr(router, end)()
    restart(world, gone)
    again = world.router(engines, *arguments, store=store)
    again.wait_line(rf"Engine {re.escape(gone.url)} restarted")
    wait_told(again, 2)
    assert restarts(again) == 1
    for messages, home in talks:
        outcome, answer = outcome_of(again, messages)
        assert outcome == ("no_holder" if home is gone else "holder")
        assert home is gone or engine_of(answer) == kept.name


@pytest.mark.smoke
def test_what_was_not_used_since_the_start_was_told_is_kept_too(world):
    """The start time is in the store without any request after it came."""
    engine = world.engine(*FAST, *OLD)
    store = world.store()
    router = world.router([engine], "--engine-stats-interval", "off", "--checkpoint-interval",
                          "50ms", store=store)
    chat(router, conversation(1))
    router.terminate()
    router = world.router([engine], "--checkpoint-interval", "50ms", store=store)
    wait_told(router, 1)
    wait_checkpoint(router)
    router.kill()
    restart(world, engine)
    router = world.router([engine], store=store)
    router.wait_line("restarted")
    assert outcome_of(router, conversation(1))[0] == "no_holder"


def test_an_engine_that_goes_away_and_comes_back_keeps_its_prefixes(world):
    engines = world.engines(2, *FAST, *OLD)
    router = world.router(engines, "--engine-stats-interval", "200ms")
    wait_told(router, 2)
    home = home_of(router, engines, conversation(1))
    home.kill()
    router.wait_line("metrics cannot be read")
    world.keep(Engine(*FAST, "--start-time", "1700000000.75", name=home.name, port=home.port))
    router.wait_line("metrics can be read again", 20)
    wait_told(router, 2)
    outcome, answer = outcome_of(router, conversation(1))
    assert outcome == "holder" and engine_of(answer) == home.name
    assert restarts(router) == 0


# ---- Cache sizes ----

def cached_tokens(answer):
    return answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.smoke
def test_what_an_engine_must_have_evicted_no_longer_counts(world):
    """A cache of 8192 tokens holds some ten of these prompts; the router believes what is true."""
    engine = world.engine(*FAST, "--kv-tokens", "8192")
    router = world.router([engine])
    router.wait_line(rf"Engine {re.escape(engine.url)}: its KV cache holds 8192 tokens")
    assert scrape(router).total("hashtrie_engine_kv_capacity_tokens") == 8192
    for number in range(40):
        chat(router, conversation(number), max_tokens=1)
    for number in range(39, 34, -1):  # The newest, and touching adds nothing.
        outcome, answer = outcome_of(router, conversation(number), max_tokens=1)
        assert outcome == "holder" and cached_tokens(answer) > 700
    for number in range(5):
        outcome, answer = outcome_of(router, conversation(number), max_tokens=1)
        assert outcome == "no_holder" and cached_tokens(answer) < 100


def test_a_small_engine_is_not_preferred_for_what_only_a_large_one_still_has(world):
    small = world.engine(*FAST, "--kv-tokens", "8192", name="small")
    large = world.engine(*FAST, "--kv-tokens", "1000000", name="large")
    router = world.router([small, large])
    wait_told(router, 2)
    talks = [(conversation(number), engine_of(chat(router, conversation(number), max_tokens=1)))
             for number in range(80)]
    at_small = [messages for messages, home in talks if home == "small"]
    at_large = [messages for messages, home in talks if home == "large"]
    assert len(at_small) > 20 and len(at_large) > 20
    for messages in at_large:
        outcome, answer = outcome_of(router, messages, max_tokens=1)
        assert outcome == "holder" and engine_of(answer) == "large"
    found = [outcome_of(router, messages, max_tokens=1)[0] for messages in at_small[:5]]
    assert found == ["no_holder"] * 5


def test_the_size_by_flag_wins(world):
    engine = world.engine(*FAST, "--kv-tokens", "8192")
    router = world.router([engine], "--kv-capacity-tokens", "1000000")
    wait_told(router, 1)
    for number in range(40):
        chat(router, conversation(number), max_tokens=1)
    assert outcome_of(router, conversation(0), max_tokens=1)[0] == "holder"
    assert not router.find_lines("its KV cache holds")


# ---- Engines that answer oddly ----

def hang(exchange):
    exchange.socket.recv(1)  # Until the router gives up.


def half_a_head(exchange):
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-")
    hang(exchange)


def huge(exchange):
    """100 MB, if somebody reads it."""
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    line = b"vllm:num_requests_running 1\n" * 10000
    for _ in range(100000000 // len(line)):
        exchange.send(line)


def one_huge_line(exchange):
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    for _ in range(1000):
        exchange.send(b"x" * 100000)


def garbage(exchange):
    exchange.answer(bytes(range(256)) * 100)


def huge_head(exchange):
    exchange.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(10000):
        exchange.send(b"X-Header-%d: %s\r\n" % (number, b"y" * 1000))


def serve(exchange):
    exchange.answer(b"fine")


@pytest.mark.parametrize("metrics,reason", [
    (hang, "timed out"), (half_a_head, "timed out"), (huge, "too long"),
    (one_huge_line, "too long"), (garbage, "no metrics"), (huge_head, "too (long|large)"),
], ids=["hang", "half-head", "huge", "huge-line", "garbage", "huge-head"])
def test_odd_metrics_do_no_harm(world, metrics, reason):
    def quiet(exchange):
        try:
            metrics(exchange)
        finally:
            exchange.close()

    odd = world.upstream(serve, metrics=quiet)
    good = world.engine(*FAST)
    patience = f"{SLOW if 'timed' in reason else 5 * SLOW}s"
    router = world.router([odd, good], "--engine-stats-interval", patience)
    router.wait_line(rf"warning Engine {odd.url}: its metrics cannot be read: .*{reason}", 20)
    wait_until(lambda: scrape(router).value("hashtrie_engine_metrics_failures_total",
                                            server=odd.url) >= 2, 20, "a second failure")
    answers = [chat(router, f"{number}" * 500) for number in range(20)]
    assert all(answer.status == 200 for answer in answers)
    assert {answer.body == b"fine" for answer in answers} == {True, False}  # Both serve.
    wait_until(lambda: scrape(router).value("hashtrie_engine_metrics_up", server=good.url) == 1)
    said = rf"warning Engine {odd.url}: its metrics cannot be read"
    assert len(router.find_lines(said)) == 1
    assert get(router, "/health").json()["engines"] == {"known": 2, "metrics_read": 1}
    assert router.rss_bytes() < 60 << 20


def test_engines_without_metrics_or_start_time_are_served_and_said_once(world):
    bare = world.upstream(serve)
    timeless = world.upstream(serve, metrics=lambda exchange: exchange.answer(
        b"llamacpp:requests_processing 3\n"))
    router = world.router([bare, timeless], "--engine-stats-interval", "100ms")
    router.wait_line(rf"info Engine {bare.url} serves no metrics .it answers 404.")
    router.wait_line(rf"info Engine {timeless.url}: no process_start_time_seconds")
    stamp = "hashtrie_engine_metrics_timestamp_seconds"
    wait_until(lambda: scrape(router).has(stamp) and scrape(router).total(stamp) > 0)
    first = scrape(router).total(stamp)
    wait_until(lambda: scrape(router).total(stamp) > first + 0.2, 10, "more answers")
    assert len(router.find_lines("serves no metrics|no process_start_time")) == 2
    assert scrape(router).value("hashtrie_engine_running_requests", server=timeless.url) == 3
    assert all(chat(router, f"{number}").status == 200 for number in range(10))
    assert not router.find_lines(" (warning|error) Engine")


def test_names_are_looked_up(world):
    engine = world.engine(*FAST)
    named = f"http://localhost:{engine.port}"
    router = world.router([named, "http://no-such-host.invalid:8000"])
    wait_told(router, 1)
    assert scrape(router).value("hashtrie_engine_metrics_up", server=named) == 1
    router.wait_line("Engine http://no-such-host.invalid:8000: its metrics cannot be read: .*host", 30)


def test_no_proxy_comes_between(world):
    engine = world.engine(*FAST)
    nobody = "http://127.0.0.1:1"
    router = world.router([engine], environment={"http_proxy": nobody, "all_proxy": nobody,
                                                 "HTTP_PROXY": nobody, "ALL_PROXY": nobody})
    wait_told(router, 1)


def test_asking_can_be_switched_off(world):
    asked = threading.Event()

    def metrics(exchange):
        asked.set()
        exchange.answer()

    def serve_once(exchange):
        exchange.answer(b"fine", [("Connection", "close")])
        exchange.close()

    engine = world.upstream(serve_once, metrics=metrics)
    router = world.router([engine], "--engine-stats-interval", "off")
    assert chat(router, "x").status == 200
    engine.stop_listening()
    assert chat(router, "x").status == 502
    assert not asked.is_set()


def test_the_router_ends_in_the_middle_of_asking(world):
    engines = [world.upstream(serve, metrics=hang) for _ in range(3)]
    router = world.router(engines)
    with Connection(router.address) as connection:
        assert chat(router, "x", connection=connection).status == 200
    assert router.terminate() == 0


# ---- Ejection ----

def drop(exchange):
    exchange.close()


@pytest.mark.smoke
def test_an_engine_that_fails_in_a_row_is_not_tried_any_more(world):
    bad = world.upstream(drop)
    good = world.engine(*FAST)
    router = world.router([bad, good], "--eject-after-failures", "2", "--eject-time", "1h")
    answers = [chat(router, conversation(number), max_tokens=1) for number in range(60)]
    assert [engine_of(answer) for answer in answers] == ["engine"] * 60
    assert len(bad.exchanges) == 2
    router.wait_line(rf"warning Engine {bad.url} failed again and again: ejected for 3600.000 s")
    metrics = scrape(router)
    assert metrics.value("hashtrie_engine_ejected", server=bad.url) == 1
    assert metrics.value("hashtrie_engine_ejected", server=good.url) == 0
    assert metrics.value("hashtrie_engine_ejections_total", server=bad.url) == 1


def test_an_ejected_engine_is_tried_again_and_keeps_its_prefixes(world):
    engines = world.engines(2, *FAST, *OLD)
    router = world.router(engines, "--eject-after-failures", "1", "--eject-time", "300ms",
                          "--engine-stats-interval", "200ms")
    home = home_of(router, engines, conversation(1))
    home.kill()
    assert engine_of(chat(router, conversation(1))) != home.name
    router.wait_line(rf"Engine {re.escape(home.url)} failed again and again: ejected for 0.300 s")
    restart(world, home, *FAST, *OLD)

    def is_back():
        answer = chat(router, conversation(1))
        assert answer.status == 200
        return router.find_lines(rf"Engine {re.escape(home.url)} answers again")

    wait_until(is_back, 20, "the engine's return")
    assert scrape(router).total("hashtrie_engine_ejected") == 0
    assert outcome_of(router, conversation(1))[0] == "holder"
    assert restarts(router) == 0


def test_where_all_have_failed_all_are_tried(world):
    answer = threading.Event()

    def handler(exchange):
        if answer.is_set():
            exchange.answer(b"fine")
        else:
            exchange.close()

    engines = [world.upstream(handler) for _ in range(2)]
    router = world.router(engines, "--eject-after-failures", "1", "--eject-time", "1h")
    for _ in range(3):
        assert chat(router, "x").status == 502
    assert scrape(router).total("hashtrie_engine_ejected") == 2
    answer.set()
    assert chat(router, "x").status == 200
    assert scrape(router).total("hashtrie_engine_ejected") == 1


def test_ejection_can_be_switched_off(world):
    bad = world.upstream(drop)
    router = world.router([bad], "--eject-after-failures", "off")
    for _ in range(10):
        assert chat(router, "x").status == 502
    assert scrape(router).total("hashtrie_engine_ejected") == 0
    assert len(bad.exchanges) == 10


# ---- Health checks ----

@pytest.mark.smoke
def test_an_engine_that_says_it_is_unwell_gets_no_requests(world):
    well = threading.Event()
    well.set()

    def handler(exchange):
        if exchange.request_line.startswith("GET /health "):
            exchange.answer(status="200 OK" if well.is_set() else "503 Service Unavailable")
        else:
            exchange.answer(b"fine")

    sick = world.upstream(handler)
    good = world.engine(*FAST)
    router = world.router([sick, good], "--static-backend-health-checks",
                          "--static-backend-health-check-interval", "100ms")

    def served_by_both():
        return {engine_of(chat(router, f"{number}" * 500)) for number in range(20)}

    assert served_by_both() == {None, "engine"}
    well.clear()
    router.wait_line(rf"warning Engine {sick.url} is unhealthy .it answers 503.")
    assert served_by_both() == {"engine"}
    assert scrape(router).value("vllm:healthy_pods_total", server=sick.url) == 0
    well.set()
    router.wait_line(rf"info Engine {sick.url} is healthy again")
    assert served_by_both() == {None, "engine"}


def test_thresholds_of_health_checks(world):
    """What each check finds is a script: how often it takes, either way, is told by its place."""
    script = "+--+---++-+++"
    asked = []

    def handler(exchange):
        asked.append(exchange)
        well = (script + "+" * 100)[len(asked) - 1] == "+"
        exchange.answer(status="200 OK" if well else "503 Service Unavailable")

    def seen_at(pattern):
        router.wait_line(pattern, 20)
        return len(asked)

    sick = world.upstream(lambda exchange: handler(exchange)
                          if exchange.request_line.startswith("GET /health ") else
                          exchange.answer())
    router = world.router([sick], "--static-backend-health-checks", "--health-check-fall", "3",
                          "--health-check-rise", "3", "--static-backend-health-check-interval",
                          "500ms")
    assert seen_at(r"Engine \S+ is unhealthy") in range(7, 10)  # A log that is read late.
    assert chat(router, "x").status == 503
    assert seen_at(r"Engine \S+ is healthy again") >= 13
    assert chat(router, "x").status == 200


def test_a_hanging_health_check_counts_as_failed_and_all_down_is_503(world):
    def handler(exchange):
        if exchange.request_line.startswith("GET /health "):
            hang(exchange)
        else:
            exchange.answer(b"fine")

    sick = world.upstream(handler)
    router = world.router([sick], "--static-backend-health-checks",
                          "--static-backend-health-check-interval", "100ms",
                          "--static-backend-health-check-timeout-seconds", "200ms")
    router.wait_line(rf"warning Engine {sick.url} is unhealthy .*timed out", 20)
    assert chat(router, "x").status == 503
    assert get(router, "/health").status == 200
