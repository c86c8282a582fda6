"""What `bench/run` runs."""
import datetime
import json
import os
import shutil
import subprocess
import tempfile

from figures import Run, hit_rate, mean, summary_table, time_plots
from stack import Broken, Fleet, Stack

LATE_MAX_S = 0.02  # As measured.
AVAILABILITY_MIN = 0.5  # Less, and the figures tell of something else than routing.

UNBOUNDED = ("unbounded", ["--max-memory", "64GiB", "--no-store"])
BOUNDED = ("bounded: 1 MiB", ["--max-memory", "1MiB", "--no-store"])
SPILLING = ("bounded: 1 MiB, with store", ["--max-memory", "1MiB", "--store-path", "{folder}/store"])


def machine():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    load = os.getloadavg()[0]
    when = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return (f"{len(os.sched_getaffinity(0))} cores, {names[0] if names else 'unknown processor'}; "
            f"load average at the start {load:.1f}; {when}")


class Case:
    """A case of bench-sim, with another rate or length where they are given."""

    def __init__(self, name, rate=None, seconds=None, length=None):
        self.name, self.rate, self.seconds, self.length = name, rate, seconds, length

    def options(self):
        return ["--case", self.name, *(["--rate", str(self.rate)] if self.rate else []),
                *(["--seconds", str(self.seconds)] if self.seconds else []),
                *(["--length", str(self.length)] if self.length else [])]


class Experiment:
    """Where programs are and results go, and how the call looked."""

    def __init__(self, args, command):
        self.args, self.command, self.machine = args, command, machine()
        self.notes = []
        self.work = tempfile.mkdtemp(prefix="hashtrie-bench-")

    def close(self):
        shutil.rmtree(self.work)

    def say(self, words):
        print(words, flush=True)

    def fleet(self, case):
        """The engines that the case has in the simulator."""
        said = subprocess.run([os.path.join(self.args.programs, "load-replay"), "--describe",
                               *self.case_options(case)], check=True, stdout=subprocess.PIPE)
        return Fleet(**json.loads(said.stdout))

    def case_options(self, case):
        return [*case.options(), *(["--traces", self.args.traces] if self.args.traces else [])]

    def run(self, variant, fleet, speed, case, kill_at_s=None):
        """One variant; kill_at_s in the workload's time."""
        name, options = variant
        self.say(f"{name} ...")
        csv = os.path.join(self.work, f"{name.replace(' ', '-').replace(':', '')}.csv")
        with Stack(self.args.programs, fleet, speed,
                   ["--log-level", "warning", *options]) as stack:
            summary = stack.load(["--seed", str(self.args.seed), *self.case_options(case)], csv,
                                 None if kill_at_s is None else kill_at_s / speed)
            samples = stack.samples
        run = Run(name, speed, csv, samples, summary)
        if len(run.complete) < AVAILABILITY_MIN * len(run.rows):
            raise Broken(f"{name}: only {len(run.complete)} of {len(run.rows)} requests were answered")
        late_s = summary["launched_late"]["p99"]
        if late_s > LATE_MAX_S:
            self.notes.append(f"{name}: the machine was busy, a hundredth of the requests was sent "
                              f"over {late_s * 1000:.0f} ms late. Times of this run tell little.")
        self.say(f"  {len(run.rows)} requests, {100 * hit_rate(run.complete):.1f} % of prompt "
                 f"tokens cached, TTFT {mean(row['ttft'] for row in run.complete):.2f} s")
        return run

    def simulate(self, *arguments):
        """What bench-sim writes of a command."""
        path = os.path.join(self.work, "simulated.json")
        self.say(f"bench-sim {' '.join(arguments)} ...")
        traces = ["--traces", self.args.traces] if self.args.traces else []
        subprocess.run([os.path.join(self.args.programs, "bench-sim"), *arguments, *traces,
                        "--seed", str(self.args.seed), "--json", path], check=True,
                       stdout=subprocess.DEVNULL)
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        document["command"] = " ".join(["bench-sim", *arguments, *traces])
        return document

    def document(self, title, plots, tables, notes):
        return {"title": title, "command": self.command, "machine": self.machine,
                "notes": [*notes, *self.notes], "plots": plots, "tables": tables}


# ---- PR 711 ----

def memory_experiment(experiment, title, case, speed, variants):
    fleet = experiment.fleet(case)
    kill_at_s = case.seconds / 2
    runs = [experiment.run(variant, fleet, speed, case, kill_at_s) for variant in variants]
    after_s = case.seconds / 18

    def after(run):
        return run.between(kill_at_s, kill_at_s + after_s)
    extra = [(f"the same in the {after_s:.0f} s after the restart, %",
              lambda run: 100 * hit_rate(after(run))),
             (f"TTFT, mean, in the {after_s:.0f} s after the restart, s",
              lambda run: mean(row["ttft"] for row in after(run)))]
    unbounded = next((run for run in runs if run.name == UNBOUNDED[0]), None)
    notes = [
        f"{fleet}; time runs {speed:g} times as fast: arrivals, prefill and decoding are sped up "
        "alike, and times are told as if they were not. What router, load generator and network "
        f"cost is told {speed:g}-fold, too: 1 ms of these shows as {speed:g} ms.",
        "The router is killed (SIGKILL) in the middle and started again at once.",
        "Resident memory includes pages of the store's file, which is mapped; the kernel takes "
        "them back when it needs them.",
        "Unbounded is a memory budget that nothing reaches. The Python router's line is "
        "calculated from the chunks that the unbounded index has had, restarts not counted.",
    ]
    marks = [{"x": kill_at_s / 60, "text": "router killed"}]
    return experiment.document(
        title, time_plots(runs, fleet.count, marks, unbounded),
        [summary_table("Before and after", runs, fleet.count, extra)], notes)


def pr711(experiment):
    """40 engines, 100 users, three hours; unbounded, bounded, bounded with a store."""
    return [memory_experiment(experiment, "PR 711: bounding, spilling and restoring the index",
                              Case("pr711", rate=1, seconds=10800),
                              experiment.args.speed or 90, (UNBOUNDED, BOUNDED, SPILLING))]


def quick(experiment):
    """The same at three times the rate, for five minutes; the simulator's short cases."""
    return [memory_experiment(experiment, "PR 711, short", Case("pr711", rate=3, seconds=300),
                              experiment.args.speed or 20, (UNBOUNDED, BOUNDED, SPILLING)),
            experiment.simulate("quick")]


# ---- Do simulator and sockets agree? ----

# Case, length, compression: each some 30 s.
AGREE_CASES = (("pr711", 0.15, 6), ("multiround", 0.17, 4), ("agents", 0.15, 15))
# What bench-sim calls it, and the router's options.
AGREE_POLICIES = (("ours", ["--routing-logic", "prefixaware"]),
                  ("session", ["--routing-logic", "session", "--session-key", "x-user-id"]),
                  ("leastload", ["--routing-logic", "leastload"]),
                  ("roundrobin", ["--routing-logic", "roundrobin"]))
AGREE_POINTS = 3      # Of hit rate.
AGREE_RATIO = 1.25    # Policies whose TTFT is nearer to each other than that have no order.


def simulated(experiment, name, length):
    """{policy: (mean TTFT in s, hit rate in %)}"""
    policies = ",".join(policy for policy, _ in AGREE_POLICIES)
    document = experiment.simulate("compare", "--cases", name, "--policies", policies, "--seeds",
                                   "1", "--length", str(length))
    table = next(one for one in document["tables"] if one["title"].startswith(name + ":"))
    ttft, hits = table["columns"].index("TTFT mean"), table["columns"].index("hits %")
    return {row[0]: (row[ttft] / 1000, row[hits]) for row in table["rows"]}


def same_order(pairs):
    """Whether any two whose simulated times clearly differ come in the same order on sockets."""
    return all(a[1] < b[1] for a in pairs for b in pairs if a[0] * AGREE_RATIO < b[0])


def agree_on(experiment, name, length, speed):
    """(rows of the table, verdict)"""
    case = Case(name, length=length)
    fleet = experiment.fleet(case)
    expected = simulated(experiment, name, length)
    rows, times = [], []
    for policy, options in AGREE_POLICIES:
        run = experiment.run((f"{name}, {policy}", ["--no-store", *options]), fleet,
                             experiment.args.speed or speed, case)
        ttft, hits = mean(row["ttft"] for row in run.complete), 100 * hit_rate(run.complete)
        rows.append([name, policy, expected[policy][0], ttft, expected[policy][1], hits,
                     hits - expected[policy][1], 1000 * run.summary["launched_late"]["p99"]])
        times.append((expected[policy][0], ttft))
    worst = max(abs(row[6]) for row in rows)
    return rows, [name, "the same" if same_order(times) else "DIFFERENT", worst,
                  "yes" if worst <= AGREE_POINTS else "NO"]


def agree(experiment):
    """The same workloads and policies in bench-sim and on sockets."""
    rows, verdicts = [], []
    for name, length, speed in AGREE_CASES:
        more, verdict = agree_on(experiment, name, length, speed)
        rows += more
        verdicts.append(verdict)

    def bars(title, y_label, a, b, **more):
        for name, _, _ in AGREE_CASES:
            mine = [row for row in rows if row[0] == name]
            labels = [row[1] for row in mine]
            yield {"title": f"{title}: {name}", "kind": "bars", "x_label": "policy",
                   "y_label": y_label, **more,
                   "series": [{"name": "simulated", "x": labels, "y": [row[a] for row in mine]},
                              {"name": "on sockets", "x": labels, "y": [row[b] for row in mine]}]}
    return [experiment.document(
        "Simulated and on sockets",
        [*bars("Prompt tokens found in caches", "%", 4, 5, y_max=100),
         *bars("Time to first token, mean", "s", 2, 3, y_log=True)],
        [{"title": f"Agreement: order of policies by TTFT (where it differs by more than "
                   f"{AGREE_RATIO}), hit rate within {AGREE_POINTS} points",
          "columns": ["case", "order", "hit rates differ by at most, points", "agree"],
          "rows": verdicts},
         {"title": "Figures",
          "columns": ["case", "policy", "TTFT simulated, s", "on sockets", "hits simulated, %",
                      "on sockets", "difference, points", "sent late, p99, ms (as measured)"],
          "rows": rows}],
        ["The same requests from the same seed, the same model of an engine; what differs is that "
         "one side runs src/trie and src/route on virtual time, the other the whole router, with "
         "sockets and streams. Times are in the workload's own time; what sockets and processes "
         "cost is multiplied by the compression: "
         + ", ".join(f"{name} {speed:g}" for name, _, speed in AGREE_CASES) + "."])]


EXPERIMENTS = {"agree": agree, "pr711": pr711, "quick": quick}


def build(folder, source):
    """The programs in folder/bin, as a Release build."""
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    if os.path.exists(os.path.join(folder, "CMakeCache.txt")):
        generator = []
    for command in (["cmake", "-S", source, "-B", folder, *generator],
                    ["cmake", "--build", folder, "--parallel", "2", "--target", "hashtrie-router",
                     "mock-engine", "load-replay", "bench-sim"]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False)
        if done.returncode != 0:
            raise SystemExit(f"{done.stdout}\n{' '.join(command)} failed")
