"""Traces: what goes on to engines, and what a collector gets."""
import json

from client import ask, chat, chat_body
from harness import wait_until
from prometheus import scrape

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
CHAT = "/v1/chat/completions"


class Collector:
    """Takes spans as OTLP over HTTP. `refuse`: statuses it answers with before it takes any."""

    def __init__(self, world, refuse=()):
        self.bodies = []
        self.paths = set()
        self.refuse = list(refuse)
        self.upstream = world.upstream(self.take)
        self.url = self.upstream.url

    def take(self, exchange):
        self.paths.add(exchange.request_line.split()[1])
        if self.refuse:
            exchange.answer(status=f"{self.refuse.pop(0)} No")
            return
        self.bodies.append(json.loads(exchange.body))
        exchange.answer()

    def spans(self):
        return [span for body in self.bodies for resource in body["resourceSpans"]
                for scope in resource["scopeSpans"] for span in scope["spans"]]

    def wait(self, count):
        wait_until(lambda: len(self.spans()) >= count, what=f"{count} spans")
        return self.spans()


def attributes(span):
    return {item["key"]: list(item["value"].values())[0] for item in span["attributes"]}


def parents_seen(world):
    """A fake engine and the `traceparent` headers that it got."""
    seen = []

    def answer(exchange):
        seen.append([value for name, value in exchange.headers if name.lower() == "traceparent"])
        exchange.answer(b'{"choices":[]}')

    return world.upstream(answer), seen


def test_without_a_collector_the_header_goes_on_as_it_came(world):
    engine, seen = parents_seen(world)
    router = world.router([engine.url])
    chat(router, "hello", headers=[("traceparent", PARENT)])
    chat(router, "hello")
    assert seen == [[PARENT], []]


def test_a_span_lies_between_the_client_s_and_the_engine_s(world):
    engine, seen = parents_seen(world)
    collector = Collector(world)
    router = world.router([engine.url], "--otel-endpoint", collector.url)
    chat(router, "hello", headers=[("traceparent", PARENT), ("X-Request-Id", "one")])
    span, = collector.wait(1)
    assert span["traceId"] == TRACE and span["parentSpanId"] == "00f067aa0ba902b7"
    assert seen == [[f"00-{TRACE}-{span['spanId']}-01"]]
    assert span["kind"] == 2 and "status" not in span
    begin, first, end = (int(span["startTimeUnixNano"]),
                         int(span["events"][0]["timeUnixNano"]), int(span["endTimeUnixNano"]))
    assert begin < first <= end < begin + 10 ** 11
    about = attributes(span)
    assert about["http.response.status_code"] == "200" and about["url.path"] == CHAT
    assert about["hashtrie.endpoint"] == engine.url and about["hashtrie.request_id"] == "one"
    assert about["gen_ai.request.model"] == "mock-model"
    assert collector.paths == {"/v1/traces"}
    resource = collector.bodies[0]["resourceSpans"][0]["resource"]
    assert attributes(resource)["service.name"] == "vllm-router"
    assert f"trace_id={TRACE}" in router.output()


def test_begins_a_trace_and_respects_what_is_not_sampled(world):
    engine, seen = parents_seen(world)
    collector = Collector(world)
    router = world.router([engine.url], "--otel-endpoint", collector.url)
    chat(router, "hello", headers=[("traceparent", PARENT[:-2] + "00")])
    chat(router, "hello", headers=[("traceparent", "nonsense")])
    assert ask(router, "POST", CHAT, b"{}").status == 400
    spans = collector.wait(2)
    assert len({span["traceId"] for span in spans} | {TRACE}) == 3
    assert "parentSpanId" not in spans[0]
    assert seen[0][0].startswith(f"00-{TRACE}-") and seen[0][0].endswith("-00")
    assert attributes(spans[1])["http.response.status_code"] == "400"


def test_what_the_collector_does_not_take_is_sent_again_or_counted(world):
    engine, _ = parents_seen(world)
    collector = Collector(world, refuse=[503, 400])
    router = world.router([engine.url], "--otel-endpoint", collector.url)
    chat(router, "hello")
    router.wait_line(r"warning Traces cannot be sent to \S+: it answers with status 503")
    wait_until(lambda: not collector.refuse, what="a second try")
    chat(router, "hello")
    collector.wait(1)
    router.wait_line(r"info Traces are sent to")
    wait_until(lambda: scrape(router).value("hashtrie_trace_spans_total", result="sent") == 1,
               what="the count")
    assert scrape(router).value("hashtrie_trace_spans_total", result="dropped") == 1


def test_the_last_spans_are_sent_at_the_end(world):
    engine, _ = parents_seen(world)
    collector = Collector(world)
    router = world.router([engine.url], "--otel-endpoint", collector.url)
    for _ in range(20):
        chat(router, "hello")
    router.terminate()
    assert len(collector.spans()) == 20


def test_a_collector_that_is_not_there_costs_nothing_but_its_spans(world):
    engine, _ = parents_seen(world)
    collector = world.upstream(lambda exchange: None)
    collector.stop_listening()
    router = world.router([engine.url], "--otel-endpoint", collector.url)
    assert chat(router, "hello").status == 200
    router.wait_line("warning Traces cannot be sent")
    assert router.terminate(seconds=5) == 0


def test_a_bad_endpoint_is_refused_with_its_reason(world):
    import harness
    router = harness.Program([harness.binary("hashtrie-router"), "--no-store",
                              "--static-backends", "http://127.0.0.1:1", "--static-models", "m",
                              "--port", "0", "--otel-endpoint", "http://"])
    assert router.wait() != 0
    assert "--otel-endpoint http://" in router.output()
