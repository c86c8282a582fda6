"""A fake Kubernetes API server that can misbehave, and pods on loopback addresses of their own.

It serves what the router asks for: LIST (in pages) and WATCH (with bookmarks) of pods, services and
endpoint slices of one namespace, with label selectors, versions, tokens and TLS.
"""
import base64
import json
import select
import threading
import time
import urllib.parse

from harness import SLOW, Server, binary

PATHS = {
    "/api/v1/namespaces/llm/pods": "pods",
    "/api/v1/namespaces/llm/services": "services",
    "/apis/discovery.k8s.io/v1/namespaces/llm/endpointslices": "endpointslices",
}


def status(code, message):
    return json.dumps({"kind": "Status", "status": "Failure", "code": code,
                       "message": message}).encode()


def matches(selector, labels):
    """Of `a=b,c=d` alone."""
    pairs = [pair.split("=", 1) for pair in selector.split(",") if pair]
    return all(labels.get(name) == value for name, value in pairs)


class Cluster:
    """The API server. Whatever goes wrong is switched on by the test:
    drop: so many next changes are made, but no watch is told. hold(), release(): changes wait, and
    come in another order. repeat: each event comes so many times. expire(): versions of before are
    too old. cut(): all watches end, in the midst of an event if `hard`. refusal: (code, message)
    for all requests. token: the one that is right."""

    def __init__(self, world, tls=None, token=None):
        self.changed = threading.Condition()
        self.objects = {resource: {} for resource in PATHS.values()}
        self.version = 1000
        self.oldest = 0
        self.log = []  # (version or None, resource, labels, line)
        self.epoch = 0
        self.hard = False
        self.drop = 0
        self.held = None
        self.repeat = 1
        self.refusal = None
        self.token = token
        self.page_objects = None  # At most so many in one page.
        self.snapshots = {}  # Of lists whose next page may be asked for.
        self.requests = []  # (verb, resource, query, token)
        self.watchers = 0
        self.watches = 0  # That were begun with success.
        self.uids = 0
        self.server = world.upstream(self._answer, tls=tls)
        self.url = self.server.url

    # ---- Objects ----

    def put(self, resource, name, rest, labels=None, uid=None, **metadata):
        with self.changed:
            known = self.objects[resource].get(name)
            if uid is None:
                self.uids += 0 if known else 1
                uid = known["metadata"]["uid"] if known else f"uid-{self.uids}"
            self.version += 1
            made = {"metadata": {"name": name, "uid": uid, "labels": labels or {},
                                 "creationTimestamp": f"2026-08-05T12:00:{self.version % 60:02}Z",
                                 "resourceVersion": str(self.version), **metadata}, **rest}
            self.objects[resource][name] = made
            self._emit("MODIFIED" if known else "ADDED", resource, made)

    def delete(self, resource, name):
        with self.changed:
            self.version += 1
            gone = self.objects[resource].pop(name)
            gone["metadata"]["resourceVersion"] = str(self.version)
            self._emit("DELETED", resource, gone)

    def pod(self, name, address, ready=True, restarts=0, labels=None, uid=None, command=(),
            deleting=False):
        metadata = {"deletionTimestamp": "2026-08-05T12:00:00Z"} if deleting else {}
        state = {"containerStatuses": [{"name": "vllm", "ready": ready, "restartCount": restarts}]}
        if address is not None:
            state["podIP"] = address
        spec = {"containers": [{"name": "vllm", "command": ["vllm", "serve", *command]}]}
        self.put("pods", name, {"spec": spec, "status": state},
                 {"app": "vllm", **(labels or {})}, uid, **metadata)

    def delete_pod(self, name):
        self.delete("pods", name)

    def service(self, name, selector=None, labels=None):
        self.put("services", name, {"spec": {"selector": selector or {}}},
                 {"app": "vllm", **(labels or {})})

    def slice(self, name, service, ready=()):
        """`ready`: of each endpoint, True, False or None (not said)."""
        endpoints = [{"conditions": {} if each is None else {"ready": each}} for each in ready]
        self.put("endpointslices", name, {"endpoints": endpoints},
                 {"kubernetes.io/service-name": service})

    # ---- Events ----

    def _emit(self, kind, resource, made):
        line = json.dumps({"type": kind, "object": made}).encode() + b"\n"
        entry = (self.version, resource, made["metadata"]["labels"], line)
        if self.drop > 0:
            self.drop -= 1
        elif self.held is not None:
            self.held.append(entry)
        else:
            self._tell([entry])

    def _tell(self, entries):
        self.log += [entry for entry in entries for _ in range(self.repeat)]
        self.changed.notify_all()

    def hold(self):
        with self.changed:
            self.held = []

    def release(self, order=lambda entries: entries):
        with self.changed:
            entries, self.held = order(self.held), None
            self._tell(entries)

    def raw(self, resource, line):
        """To those who watch now."""
        with self.changed:
            self._tell([(None, resource, None, line.encode() + b"\n")])

    def bookmark(self, resource):
        made = {"metadata": {"resourceVersion": str(self.version)}}
        self.raw(resource, json.dumps({"type": "BOOKMARK", "object": made}))

    def expire(self):
        with self.changed:
            self.oldest = self.version
            self.snapshots.clear()

    def cut(self, hard=False):
        with self.changed:
            self.epoch += 1
            self.hard = hard
            self.changed.notify_all()

    # ---- What was asked ----

    def count(self, verb, resource="pods"):
        with self.changed:
            return sum(1 for each in self.requests if each[:2] == (verb, resource))

    def wait_watched(self):
        """Until somebody watches. One that the router has ended counts for a moment more."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.watchers > 0, 10 * SLOW), "nobody watches"

    def wait_watched_again(self, watches):
        with self.changed:
            assert self.changed.wait_for(lambda: self.watches > watches, 30 * SLOW), "no new watch"

    # ---- Answering ----

    def _answer(self, exchange):
        target = urllib.parse.urlsplit(exchange.request_line.split(" ")[1])
        query = {key: values[-1] for key, values in
                 urllib.parse.parse_qs(target.query, keep_blank_values=True).items()}
        resource = PATHS.get(target.path)
        verb = "watch" if query.get("watch") else "list"
        token = (exchange.header("authorization") or "").removeprefix("Bearer ")
        with self.changed:
            self.requests.append((verb, resource, query, token))
            refusal = self.refusal
            if self.token is not None and token != self.token:
                refusal = (401, "Unauthorized")
            self.changed.notify_all()
        if refusal is not None:
            exchange.answer(status(*refusal), status=f"{refusal[0]} Refused")
        elif resource is None:
            exchange.answer(status(404, "no such path"), status="404 Not Found")
        elif verb == "watch":
            self._watch(exchange, resource, query)
        else:
            self._list(exchange, resource, query)
        exchange.close()

    def _list(self, exchange, resource, query):
        selector = query.get("labelSelector", "")
        with self.changed:
            if "continue" in query:
                number, at = json.loads(base64.b64decode(query["continue"]))
                if number not in self.snapshots:
                    exchange.answer(status(410, "the continue token is too old"), status="410 Gone")
                    return
                version, items = self.snapshots[number]
            else:
                version, at, number = self.version, 0, len(self.requests)
                items = [made for made in self.objects[resource].values()
                         if matches(selector, made["metadata"]["labels"])]
                items = json.loads(json.dumps(items))
                self.snapshots[number] = (version, items)
            limit = min(int(query.get("limit", 500)), self.page_objects or 500)
        metadata = {"resourceVersion": str(version)}
        if at + limit < len(items):
            metadata["continue"] = base64.b64encode(
                json.dumps([number, at + limit]).encode()).decode()
        exchange.answer(json.dumps({"kind": "List", "metadata": metadata,
                                    "items": items[at:at + limit]}).encode())

    def _watch(self, exchange, resource, query):
        since = int(query["resourceVersion"])
        selector = query.get("labelSelector", "")
        until = time.monotonic() + int(query.get("timeoutSeconds", 1800))

        def is_for_it(entry):
            return entry[1] == resource and (entry[2] is None or matches(selector, entry[2]))

        with self.changed:
            if since < self.oldest:
                exchange.answer(status(410, "too old resource version"), status="410 Gone")
                return
            epoch = self.epoch
            at = len(self.log)
            lines = [entry[3] for entry in self.log
                     if entry[0] is not None and entry[0] > since and is_for_it(entry)]
            self.watchers += 1
            self.watches += 1
            self.changed.notify_all()
        try:
            exchange.start_stream()
            while True:
                for line in lines:
                    exchange.chunk(line)
                with self.changed:
                    self.changed.wait_for(lambda: len(self.log) > at or self.epoch != epoch,
                                          min(0.2, max(0, until - time.monotonic())))
                    lines = [entry[3] for entry in self.log[at:] if is_for_it(entry)]
                    at = len(self.log)
                    ended, hard = self.epoch != epoch, self.hard
                if (ended and not hard) or time.monotonic() >= until:
                    exchange.end_stream()
                    return
                if ended:
                    exchange.chunk(b'{"type":"ADDED","object":{"metadata":{"na')
                    return
                if select.select([exchange.socket], [], [], 0)[0]:
                    return  # It says nothing more: it has closed.
        finally:
            with self.changed:
                self.watchers -= 1

    # ---- Those who ask ----

    def kubeconfig(self, path, user=None, authority=None):
        """Its name; `user` and `authority`: members of the file."""
        config = {"current-context": "test",
                  "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u",
                                                            "namespace": "llm"}}],
                  "clusters": [{"name": "c", "cluster": {"server": self.url, **(authority or {})}}],
                  "users": [{"name": "u", "user": user or {}}]}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        return str(path)


class Pod:
    """An engine at an address of its own, all at one port. `models` and `sleeping` may change;
    while `hanging` is set, it answers no question about them."""

    def __init__(self, world, number, port, models=("mock-model",)):
        self.name = f"pod-{number}"
        self.address = f"127.0.0.{number + 2}"
        self.models = list(models)
        self.sleeping = False
        self.hanging = False
        self.asked = {}  # path -> how often
        self.keys = set()
        self.released = threading.Event()
        self.server = world.upstream(self._answer, host=self.address, port=port)
        self.port = self.server.port
        self.url = self.server.url

    def _answer(self, exchange):
        path = exchange.request_line.split(" ")[1]
        self.asked[path] = self.asked.get(path, 0) + 1
        self.keys.add(exchange.header("authorization"))
        if path in ("/v1/models", "/is_sleeping") and self.hanging:
            self.released.wait(30)
        if path == "/v1/models":
            exchange.answer(json.dumps({"object": "list", "data": [
                {"id": model, "object": "model"} for model in self.models]}).encode())
        elif path == "/is_sleeping":
            exchange.answer(json.dumps({"is_sleeping": self.sleeping}).encode())
        else:
            exchange.answer(b'{"choices":[]}', headers=[("x-engine-id", self.name)])


class KubeRouter(Server):
    """hashtrie-router that has its backends from a cluster."""

    def __init__(self, kubeconfig, port, *arguments, store=None, environment=None, under=()):
        command = [*under, binary("hashtrie-router"), "--host", "127.0.0.1", "--port", "0",
                   "--service-discovery", "k8s", "--k8s-namespace", "llm", "--k8s-port", port,
                   "--k8s-label-selector", "app=vllm", "--k8s-models-interval", "1s"]
        command += ["--store-path", store] if store else ["--no-store"]
        super().__init__(command + list(arguments),
                         {"KUBECONFIG": kubeconfig, **(environment or {})})
