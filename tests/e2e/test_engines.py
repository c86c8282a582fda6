"""GET /engines, and requests that name their engine."""
from client import ask, chat_body, engine_of, get
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
