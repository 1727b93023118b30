#!/usr/bin/env python3
"""Judges a machine's answers against recordings of a real kernel (format: data/README.md, "lab-trace" version 1).

usage: compare.py RECORDING ANSWERS            two files (.jsonl or .jsonl.gz)
       compare.py RECORDINGS_DIR ANSWERS_DIR   every recording below the first folder against the file of the same relative name
options: --first        show the first difference of each file, with both values
         --all          show every difference
         --min PERCENT  exit 1 when fewer steps are exact (default: never)
         --json         print the totals as one JSON object

A step is exact when everything observable after it is equal: result, faults, VMAs, resident pages, smaps, status, commit charge, oom score.
Reported beside it but not judged: smaps' "referenced" (depends on what ran before). Not compared: contents marked content_unspecified.
Sparse recordings are first made whole: a key that is absent keeps its last value (deltas and smaps fields: zero).
A step that is missing in the answers is different in every category.
"""
import argparse
import gzip
import json
import os
import sys

RESULT = ("ret", "errno", "signal", "value", "done", "failed_at", "fnv1a64", "mincore", "last_addr", "aborted")
LAGGING = {"vm_rss", "vm_hwm", "rss_anon", "rss_file", "rss_shmem"}
JUDGED = ("result", "faults", "vmas", "rss", "smaps", "vm_flags", "status", "status_rss", "commit", "oom_score")
CATEGORIES = JUDGED + ("referenced",)
APART = {"vm_flags", "referenced"}


def read(path):
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as f:
        for line in f:
            if line.strip():
                yield json.loads(line)


class Observer:
    """Rebuilds, step by step, everything that could be seen after the step."""

    def __init__(self):
        self.procs = {}

    def after(self, record):
        view = {"result": {k: record[k] for k in RESULT if k in record},
                "commit": record.get("committed_as_delta", 0)}
        faults = {}
        for index, seen in record.get("procs", {}).items():
            proc = self.procs.setdefault(index, {"vmas": [], "vma_count": None, "rss": None, "status": {}, "oom_score": None, "smaps": {}})
            if seen.get("exited"):
                del self.procs[index]
                continue
            faults[index] = (seen.get("minflt_delta", 0), seen.get("majflt_delta", 0))
            if "vmas" in seen:
                proc["vmas"], proc["vma_count"] = seen["vmas"], len(seen["vmas"])
                starts = {vma[0] for vma in seen["vmas"]}
                proc["smaps"] = {k: v for k, v in proc["smaps"].items() if k in starts}
            if "vma_count" in seen:
                proc["vma_count"], proc["vmas"] = seen["vma_count"], []
            for key in ("rss", "oom_score"):
                if key in seen:
                    proc[key] = seen[key]
            proc["status"] = {**proc["status"], **seen.get("status", {})}
            for start, fields in seen.get("smaps", {}).items():
                proc["smaps"][start] = fields
        view["faults"] = {i: f for i, f in faults.items() if f != (0, 0)}
        live = self.procs.items()
        view["vmas"] = {i: (p["vma_count"], list(map(list, p["vmas"]))) for i, p in live}
        view["rss"] = {i: p["rss"] for i, p in live}
        view["oom_score"] = {i: p["oom_score"] for i, p in live}
        view["status"] = {i: {k: v for k, v in p["status"].items() if k not in LAGGING} for i, p in live}
        view["status_rss"] = {i: {k: v for k, v in p["status"].items() if k in LAGGING} for i, p in live}
        view["smaps"] = {i: {s: {k: v for k, v in f.items() if k not in APART and v} for s, f in p["smaps"].items()} for i, p in live}
        view["referenced"] = {i: {s: f.get("referenced", 0) for s, f in p["smaps"].items()} for i, p in live}
        view["vm_flags"] = {i: {s: sorted(f.get("vm_flags", "").split()) for s, f in p["smaps"].items()} for i, p in live}
        return view


def narrow(a, b, path=""):
    """The first place where two values differ, as (path, recorded, answered)."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(set(a) | set(b), key=str):
            if a.get(key) != b.get(key):
                return narrow(a.get(key), b.get(key), f"{path}/{key}")
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b)):
            if x != y:
                return narrow(x, y, f"{path}[{i}]")
    return path, a, b


def compare(recording, answers, show):
    totals = {"steps": 0, "exact": 0, "first": None, **{c: 0 for c in CATEGORIES}}
    recorded = [r for r in read(recording) if r["kind"] in ("initial", "step")]
    answered = {(r["kind"], r["step"]): r for r in read(answers) if r["kind"] in ("initial", "step")} if answers else {}
    truth, claim = Observer(), Observer()
    for record in recorded:
        answer = answered.get((record["kind"], record["step"]))
        want = truth.after(record)
        got = claim.after(answer) if answer else {}
        if answer and record.get("content_unspecified"):
            for view in (want, got):
                for key in ("value", "fnv1a64"):
                    view["result"].pop(key, None)
        if record["kind"] == "initial":
            # The picture before the first step counts as context: its absolute fault counts and commit charge are the recorder's.
            continue
        totals["steps"] += 1
        same = [c for c in CATEGORIES if answer and want[c] == got[c]]
        for c in same:
            totals[c] += 1
        if all(c in same for c in JUDGED):
            totals["exact"] += 1
            continue
        if totals["first"] is None:
            totals["first"] = record["step"]
        if show == "all" or (show == "first" and totals["first"] == record["step"]):
            print(f"  step {record['step']} proc {record['proc']} {record['op']} {json.dumps(record['args'])}")
            for c in CATEGORIES:
                if c not in same:
                    place, a, b = narrow(want[c], got.get(c))
                    print(f"    {c}{place}: recorded {json.dumps(a)[:300]}  answered {json.dumps(b)[:300]}")
    return totals


def pairs(recordings, answers):
    if os.path.isfile(recordings):
        yield recordings, answers if os.path.isfile(answers) else None
        return
    for folder, _, names in sorted(os.walk(recordings)):
        for name in sorted(names):
            if not name.endswith((".jsonl", ".jsonl.gz")):
                continue
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, recordings)
            stem = relative[:-3] if relative.endswith(".gz") else relative
            found = next((p for p in (os.path.join(answers, stem), os.path.join(answers, stem + ".gz")) if os.path.exists(p)), None)
            yield path, found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings")
    parser.add_argument("answers")
    parser.add_argument("--first", action="store_true")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--min", type=float, default=-1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    show = "all" if options.all else "first" if options.first else None

    total = {"files": 0, "files_exact": 0, "steps": 0, "exact": 0, **{c: 0 for c in CATEGORIES}}
    for recording, answers in pairs(options.recordings, options.answers):
        one = compare(recording, answers, show)
        total["files"] += 1
        total["files_exact"] += one["steps"] == one["exact"]
        for key in ("steps", "exact", *CATEGORIES):
            total[key] += one[key]
        if not options.json:
            state = "no answers" if answers is None else "exact" if one["first"] is None else f"first difference at step {one['first']}"
            print(f"{recording}: {one['exact']}/{one['steps']} steps exact, {state}")
    percent = 100.0 * total["exact"] / total["steps"] if total["steps"] else 0.0
    if options.json:
        print(json.dumps(total))
    else:
        print("by category: " + ", ".join(f"{c} {100.0 * total[c] / max(1, total['steps']):.2f} %" for c in CATEGORIES))
        print(f"files exact {total['files_exact']}/{total['files']}, steps exact {total['exact']}/{total['steps']} = {percent:.3f} %")
    return 1 if percent < options.min or total["files"] == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
