"""A strict reader of the Prometheus text format 0.0.4."""
import re

LINE = re.compile(
    r'^([a-zA-Z_:][a-zA-Z0-9_:]*)'
    r'(?:\{((?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*",?)*)\})?'
    r' (NaN|[+-]Inf|[+-]?[0-9.]+(?:e[+-]?[0-9]+)?)$')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"')
SUFFIXES = ("_bucket", "_sum", "_count")


class Metrics:
    def __init__(self, text):
        self.types = {}
        self.samples = {}  # (name, ((label, value), ...)) -> number
        helped = set()
        closed = set()
        current = None
        if not text.endswith("\n"):
            raise AssertionError("the last line is not ended")
        for line in text.split("\n")[:-1]:
            if line.startswith("# HELP "):
                name = line.split(" ")[2]
                assert name not in helped, f"HELP of {name} twice"
                helped.add(name)
                continue
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert name not in self.types, f"TYPE of {name} twice"
                self.types[name] = kind
                continue
            match = LINE.match(line)
            assert match, f"not a sample: {line!r}"
            family = self._family(match.group(1))
            if family != current:
                assert family not in closed, f"samples of {family} are scattered"
                closed.add(current)
                current = family
            labels = tuple(sorted(LABEL.findall(match.group(2) or "")))
            key = (match.group(1), labels)
            assert key not in self.samples, f"twice: {line!r}"
            self.samples[key] = float(match.group(3))
        self._check_histograms()

    def _family(self, name):
        for suffix in SUFFIXES:
            base = name[:-len(suffix)]
            if name.endswith(suffix) and self.types.get(base) == "histogram":
                return base
        assert name in self.types, f"no TYPE before {name}"
        return name

    def _check_histograms(self):
        for name, kind in self.types.items():
            if kind != "histogram":
                continue
            series = {}
            for (sample, labels), value in self.samples.items():
                if sample == name + "_bucket":
                    bound = float(dict(labels)["le"].replace("+Inf", "inf"))
                    rest = tuple(pair for pair in labels if pair[0] != "le")
                    series.setdefault(rest, []).append((bound, value))
            for rest, buckets in series.items():
                buckets.sort()
                values = [value for _, value in buckets]
                assert values == sorted(values), f"{name}: buckets are not cumulative"
                assert buckets[-1][0] == float("inf"), f"{name}: no +Inf bucket"
                assert values[-1] == self.samples[(name + "_count", rest)]

    def value(self, name, **labels):
        return self.samples[(name, tuple(sorted(labels.items())))]

    def has(self, name):
        """A TYPE line, as a family without samples may have no more."""
        return name in self.types

    def total(self, name, **labels):
        """Sum over all samples of that name that carry the given labels."""
        wanted = set(labels.items())
        return sum(value for (sample, pairs), value in self.samples.items()
                   if sample == name and wanted <= set(pairs))


def scrape(server):
    from client import get
    answer = get(server, "/metrics")
    assert answer.status == 200
    return Metrics(answer.text())
