"""GET /engines, and requests that name their engine."""
from client import ask, chat, chat_body, engine_of, get
from prometheus import scrape

CHAT = "/v1/chat/completions"


def ids(router):
    answer = get(router, "/engines")
    assert answer.status == 200
    return [engine["engine_id"] for engine in answer.json()]


def test_engines_are_listed(world):
    engines = world.engines(2)
    router = world.router(engines, models=["m", "n"])
    listed = get(router, "/engines").json()
    assert [sorted(engine) for engine in listed] == [["created", "engine_id", "serving_models"]] * 2
    assert [engine["serving_models"] for engine in listed] == [["m"], ["n"]]
    assert all(isinstance(engine["created"], int) for engine in listed)
    assert len({engine["engine_id"] for engine in listed}) == 2
    other = world.router(engines, models=["m", "n"])
    assert ids(other) == ids(router)  # They last.
    assert ask(router, "POST", "/engines", b"").status == 405


def test_a_request_may_name_its_engine(world):
    engines = world.engines(3)
    router = world.router(engines)
    homes = []
    for engine_id in ids(router):
        answers = [ask(router, "POST", f"{CHAT}?id={engine_id}", chat_body("same prompt " * 50))
                   for _ in range(3)]
        assert all(answer.status == 200 for answer in answers)
        homes.append({engine_of(answer) for answer in answers})
    assert homes == [{"e0"}, {"e1"}, {"e2"}]
    assert scrape(router).value("hashtrie_routing_decisions_total", outcome="pinned",
                                policy="prefixaware") == 9


def test_no_other_takes_its_place(world):
    router = world.router(["http://127.0.0.1:1", world.engine()])
    down, well = ids(router)
    refused = ask(router, "POST", f"{CHAT}?id={down}", chat_body("x"))
    assert refused.status == 502
    assert ask(router, "POST", f"{CHAT}?id={well}", chat_body("x")).status == 200
    unknown = ask(router, "POST", f"{CHAT}?id=nobody", chat_body("x"))
    assert unknown.status == 503
    assert unknown.json() == {"error": "Model 'mock-model' is temporarily unavailable. "
                                       "Please try again later."}
    assert ask(router, "POST", f"{CHAT}?id=", chat_body("x")).status == 200


def test_the_list_needs_the_key(world):
    keys = world.folder / "keys"
    keys.write_text("secret\n")
    router = world.router([world.engine()], "--api-key-file", keys)
    assert get(router, "/engines").status == 401
    assert get(router, "/engines", headers=[("Authorization", "Bearer secret")]).status == 200


class Sleeper:
    """An engine that can sleep, as vLLM with --enable-sleep-mode."""

    def __init__(self, world, name):
        self.name = name
        self.asleep = False
        self.broken = False
        self.upstream = world.upstream(self.handle)
        self.url = self.upstream.url

    def handle(self, exchange):
        method, target, _ = exchange.request_line.split(" ")
        path = target.split("?")[0]
        if self.broken:
            exchange.answer(b"out of order", status="500 Internal Server Error")
        elif (method, path) in (("POST", "/sleep"), ("POST", "/wake_up")):
            self.asleep = path == "/sleep"
            exchange.answer(b"")
        elif (method, path) == ("GET", "/is_sleeping"):
            exchange.answer(b'{"is_sleeping": true}' if self.asleep else b'{"is_sleeping": false}')
        else:
            assert not self.asleep, "a request for an engine that sleeps"
            exchange.answer(headers=[("X-Engine-Id", self.name)])

    def targets(self):
        return [exchange.request_line for exchange in self.upstream.exchanges]


def test_an_engine_that_sleeps_gets_no_requests(world):
    sleepers = [Sleeper(world, "e0"), Sleeper(world, "e1")]
    router = world.router(sleepers, environment={"VLLM_API_KEY": "sk-engine"})
    first, second = ids(router)
    answer = ask(router, "POST", f"/sleep?id={first}&level=2", b"")
    assert (answer.status, answer.json()) == (200, {"status": "success"})
    assert sleepers[0].asleep and not sleepers[1].asleep
    assert sleepers[0].targets() == [f"POST /sleep?id={first}&level=2 HTTP/1.1"]
    assert sleepers[0].upstream.exchanges[0].header("authorization") == "Bearer sk-engine"
    assert {engine_of(chat(router, f"prompt {number}")) for number in range(20)} == {"e1"}
    told = get(router, f"/is_sleeping?id={first}")
    assert (told.status, told.json()) == (200, {"is_sleeping": True})
    assert get(router, f"/is_sleeping?id={second}").json() == {"is_sleeping": False}
    assert ask(router, "POST", f"/sleep?id={second}", b"").status == 200
    nobody = chat(router, "hello")
    assert nobody.status == 503 and nobody.header("retry-after")
    assert get(router, "/v1/models").json()["data"][0]["id"] == "mock-model"  # Still listed.
    for engine in (first, second):
        assert ask(router, "POST", f"/wake_up?id={engine}", b"").json() == {"status": "success"}
    assert {engine_of(chat(router, f"again {number}" * 90)) for number in range(20)} == {"e0", "e1"}


def test_what_names_no_engine_is_refused(world):
    sleeper = Sleeper(world, "e0")
    router = world.router([sleeper])
    for method, path in (("POST", "/sleep"), ("POST", "/wake_up"), ("GET", "/is_sleeping")):
        for query in ("", "?level=1", "?id="):
            missing = ask(router, method, path + query, b"" if method == "POST" else None)
            assert missing.status == 400
            assert missing.json() == {"error": "Invalid request: missing target Engine Id."}
        unknown = ask(router, method, path + "?id=xx", b"" if method == "POST" else None)
        assert (unknown.status, unknown.json()) == (400, {"error": "Engine with Id xx not found."})
    assert get(router, "/sleep").status == 405
    assert not sleeper.targets()


def test_an_engine_that_cannot_sleep_goes_on_serving(world):
    sleeper = Sleeper(world, "e0")
    router = world.router([sleeper], "--threads", "2")
    sleeper.broken = True
    refused = ask(router, "POST", f"/sleep?id={ids(router)[0]}", b"")
    assert (refused.status, refused.body) == (500, b"out of order")
    sleeper.broken = False
    assert chat(router, "hello").status == 200
