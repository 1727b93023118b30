"""The operations of a scenario's script (data/README.md says what they mean), the machine of its header, and what was answered."""
import json
import os
import re


def write(path, value):
    return {"op": "write_file", "path": path, "value": str(value)}


def sysctl(name, value):
    return write("/proc/sys/vm/" + name, value)


def start(process, cgroup="", adj=0):
    return {"op": "start", "process": process, "cgroup": cgroup, "oom_score_adj": adj}


def mmap(process, kib, region=0, kind="anon", **more):
    return {"op": "mmap", "process": process, "kib": kib, "kind_of": kind, "region": region, **more}


def touch(process, kib, region=0, offset=0, wr=True):
    return {"op": "touch", "process": process, "region": region, "write": wr, "kib": kib, "offset_kib": offset}


def call(op, process, kib, region=0, offset=0):
    return {"op": op, "process": process, "region": region, "kib": kib, "offset_kib": offset}


def madvise(process, advice, region=0):
    return {"op": "madvise", "process": process, "region": region, "advice": advice}


def snapshot(name):
    return {"op": "snapshot", "name": name}


def cgroup_snapshot(cgroup, name):
    return {"op": "snapshot_cgroup", "cgroup": cgroup, "name": name}


def swapon(device="/dev/vdc", priority=-1):
    return {"op": "swapon", "device": device, "priority": priority}


class Machine:
    """What the header says."""

    def __init__(self, name, header):
        self.name, self.header = name, header
        self.total_kib = header["baseline"]["MemTotal"] >> 10
        self.free_kib = header["baseline"]["MemFree"] >> 10
        self.huge_kib = header["baseline"]["Hugepagesize"] >> 10

    def share(self, percent):
        """That much of the free memory, in whole MiB as KiB."""
        return max(self.free_kib * percent // 100 >> 10, 1) << 10


class Answers:
    def __init__(self, folder):
        self.folder = folder
        with open(os.path.join(folder, "script.jsonl"), encoding="utf-8") as f:
            self.results = [r for r in map(json.loads, f) if r["kind"] == "result"]

    def text(self, name):
        with open(os.path.join(self.folder, name), encoding="utf-8") as f:
            return f.read()

    def number(self, name):
        return int(self.text(name))

    def pairs(self, name):
        """Of meminfo in KiB, of vmstat and memory.events as they stand there."""
        return {k: int(v) for k, v in re.findall(r"^(\S+?):?\s+(\d+)(?: kB)?$", self.text(name), re.M)}

    def change(self, key, after, before="before", file="meminfo"):
        return self.pairs(f"{after}/{file}")[key] - self.pairs(f"{before}/{file}")[key]

    def killed(self):
        return [r["process"] for r in self.results if r.get("killed")]

    def mapped(self):
        return [r["mmap"] for r in self.results if "mmap" in r]

    def errors(self):
        return [r["error"] for r in self.results if "error" in r]

    def returns(self):
        return [r["ret"] for r in self.results if "ret" in r]
