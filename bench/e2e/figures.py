"""From what a run left (a line per request, samples of the router) to series and table rows.
Times are in the workload's own time: what was measured, times the compression."""
import collections
import csv
import math

BINS_MAX, BIN_REQUESTS = 60, 25  # Stretches of time, and how many requests each should have.
PYTHON_NODE_BYTES = 707  # Of the Python router's HashTrie, measured: bench/README.md.
MIB = 2**20


class Run:
    """One variant of an experiment."""

    def __init__(self, name, speed, csv_path, samples, summary):
        self.name, self.speed, self.samples, self.summary = name, speed, samples, summary
        with open(csv_path, encoding="ascii", newline="") as file:
            self.rows = [self.read(row) for row in csv.DictReader(file)]
        self.complete = [row for row in self.rows if row["end"] == "complete"]
        self.seconds = max((row["due_time"] for row in self.rows), default=0) or 1
        self.bins = min(BINS_MAX, 1 + len(self.rows) // BIN_REQUESTS)

    def read(self, row):
        for name in ("ttft", "generation_time", "launch_time", "finish_time", "due_time",
                     "longest_gap"):
            row[name] = float(row[name]) * self.speed
        for name in ("prompt_tokens", "generation_tokens", "cached_tokens"):
            row[name] = int(row[name])
        return row

    # ---- Over time ----

    def binned(self, rows, time_name, value):
        """x in minutes; `value` of the rows of each stretch, None where there is none."""
        width = self.seconds / self.bins
        stretches = [[] for _ in range(self.bins)]
        for row in rows:
            stretches[min(self.bins - 1, int(row[time_name] / width))].append(row)
        return {"name": self.name, "x": [(i + 0.5) * width / 60 for i in range(self.bins)],
                "y": [value(stretch) if stretch else None for stretch in stretches]}

    def ttft(self):
        return self.binned(self.complete, "due_time",
                           lambda rows: sum(row["ttft"] for row in rows) / len(rows))

    def itl(self):
        rows = [row for row in self.complete if row["generation_tokens"] > 1]
        return self.binned(rows, "due_time", lambda rows: 1000 * sum(itl_of(row) for row in rows)
                           / len(rows))

    def availability(self):
        return self.binned(self.rows, "due_time", lambda rows: 100 / len(rows) * sum(
            row["end"] == "complete" for row in rows))

    def output_rate(self):
        width = self.seconds / self.bins
        rows = [row for row in self.complete if row["finish_time"] <= self.seconds]
        return self.binned(rows, "finish_time",
                           lambda rows: sum(row["generation_tokens"] for row in rows) / width)

    def hits(self):
        return self.binned(self.complete, "due_time", lambda rows: 100 * hit_rate(rows))

    def sampled(self, name, factor):
        known = [one for one in self.samples if name in one]
        return {"name": self.name, "x": [one["at"] * self.speed / 60 for one in known],
                "y": [one[name] * factor for one in known]}

    def chunks_ever(self):
        """Chunks that an index without a bound holds, and would not lose at a restart."""
        x, y, before, last = [], [], 0, 0
        for one in self.samples:
            if "hashtrie_chunks.hot" in one:
                now = one["hashtrie_chunks.hot"]
                before += last if now < last else 0
                last = now
                x.append(one["at"] * self.speed / 60)
                y.append(before + now)
        return x, y

    def cpu(self):
        """Share of one core, in %."""
        x, y = [], []
        step = max(1, len(self.samples) // self.bins)
        for a, b in zip(self.samples[::step], self.samples[step::step]):
            x.append((a["at"] + b["at"]) / 2 * self.speed / 60)
            y.append(100 * (b["cpu"] - a["cpu"]) / (b["at"] - a["at"]))
        return {"name": self.name, "x": x, "y": y}

    # ---- In sum ----

    def load_by_engine(self, engine_count):
        """Prompt tokens that each engine had to compute, the busiest first."""
        load = collections.Counter({f"e{i}": 0 for i in range(engine_count)})
        for row in self.complete:
            load[row["engine"]] += row["prompt_tokens"] - row["cached_tokens"]
        return sorted(load.values(), reverse=True)

    def between(self, from_s, to_s):
        return [row for row in self.complete if from_s <= row["due_time"] < to_s]

    def peak(self, name):
        return max((one[name] for one in self.samples if name in one), default=math.nan)


def itl_of(row):
    return row["generation_time"] / (row["generation_tokens"] - 1)


def hit_rate(rows):
    tokens = sum(row["prompt_tokens"] for row in rows)
    return sum(row["cached_tokens"] for row in rows) / tokens if tokens else math.nan


def quantile(values, share):
    values = sorted(values)
    return values[int(share * (len(values) - 1))] if values else math.nan


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def summary_table(title, runs, engine_count, extra=()):
    """One column for each run. `extra`: (row's name, function of a run)."""
    def load_peak(run):
        load = run.load_by_engine(engine_count)
        return load[0] / mean(load) if sum(load) else math.nan
    rows = [
        ("requests", lambda run: len(run.rows)),
        ("availability, %", lambda run: 100 * len(run.complete) / len(run.rows)),
        ("TTFT, mean, s", lambda run: mean(row["ttft"] for row in run.complete)),
        ("TTFT, p50, s", lambda run: quantile([row["ttft"] for row in run.complete], 0.5)),
        ("TTFT, p90, s", lambda run: quantile([row["ttft"] for row in run.complete], 0.9)),
        ("TTFT, p99, s", lambda run: quantile([row["ttft"] for row in run.complete], 0.99)),
        ("inter-token latency, mean, ms", lambda run: 1000 * mean(
            itl_of(row) for row in run.complete if row["generation_tokens"] > 1)),
        ("request, mean, s", lambda run: mean(row["finish_time"] - row["due_time"]
                                              for row in run.complete)),
        ("output tokens/s", lambda run: sum(row["generation_tokens"] for row in run.complete)
         / run.seconds),
        ("prompt tokens from engines' caches, %", lambda run: 100 * hit_rate(run.complete)),
        *extra,
        ("busiest engine to the mean, prompt tokens computed", load_peak),
        ("index in memory, at most, MiB", lambda run: run.peak("hashtrie_memory_bytes") / MIB),
        ("router's resident memory, at most, MiB", lambda run: run.peak("resident") / MIB),
        ("router's processor time a request, ms (as measured)", lambda run: 1000 * (
            run.samples[-1]["cpu"] - run.samples[0]["cpu"]) / len(run.rows)),
        ("requests sent late, p99, ms (as measured)",
         lambda run: 1000 * run.summary["launched_late"]["p99"]),
    ]
    return {"title": title, "columns": ["", *[run.name for run in runs]],
            "rows": [[name, *[value(run) for run in runs]] for name, value in rows]}


def time_plots(runs, engine_count, marks, python_of=None):
    """The five plots of PR 711, hit rate, load by engine, processor time. `python_of`: the run by
    whose chunks the Python router's memory is told."""
    def plot(title, y_label, series, **more):
        return {"title": title, "x_label": "time (minutes)", "y_label": y_label,
                "series": series, "marks": marks, "x_min": 0, **more}
    memory = [run.sampled("hashtrie_memory_bytes", 1 / MIB) for run in runs]
    if python_of is not None:
        x, chunks = python_of.chunks_ever()
        memory.append({"name": f"Python HashTrie, calculated: {PYTHON_NODE_BYTES} bytes a chunk",
                       "x": x, "y": [count * PYTHON_NODE_BYTES / MIB or None for count in chunks]})
    ranks = list(range(1, engine_count + 1))
    return [
        plot("Memory of the index", "MiB", memory, y_log=True),
        plot("Resident memory of the router", "MiB", [run.sampled("resident", 1 / MIB)
                                                      for run in runs]),
        plot("Time to first token, mean", "s", [run.ttft() for run in runs]),
        plot("Inter-token latency, mean", "ms", [run.itl() for run in runs]),
        plot("Availability", "% of requests", [run.availability() for run in runs], y_max=100),
        plot("Output tokens per second", "tokens/s", [run.output_rate() for run in runs]),
        plot("Prompt tokens found in engines' caches", "%", [run.hits() for run in runs],
             y_max=100),
        {"title": "Load by engine", "x_label": "engine, the busiest first",
         "y_label": "million prompt tokens computed", "kind": "points",
         "series": [{"name": run.name, "x": ranks,
                     "y": [value / 1e6 for value in run.load_by_engine(engine_count)]}
                    for run in runs]},
        plot("Processor time of the router, as measured", "% of a core",
             [run.cpu() for run in runs]),
    ]
