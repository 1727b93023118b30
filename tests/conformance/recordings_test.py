#!/usr/bin/env python3
"""Replays every recording of real kernels, has compare.py judge the answers, and holds the result to the floors in floors.json.

    python3 tests/conformance/recordings_test.py            judges build/release/bin/mmlab and prints the table
    python3 tests/conformance/recordings_test.py --update   also raises the floors and renews the README's table

A floor is a number of exact steps: it only goes up. MMLAB_BUILD_DIR names another build.
"""
import concurrent.futures
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TRACES = os.path.join(HERE, "data", "traces")
FLOORS = os.path.join(HERE, "floors.json")
README = os.path.join(ROOT, "README.md")
BUILD = os.environ.get("MMLAB_BUILD_DIR", os.path.join(ROOT, "build", "release"))

FLAVOURS = ("686", "686-pae", "arm64", "arm64-swaf", "686-thp", "arm64-thp")
# Category of compare.py: how the table calls it.
COLUMNS = {"result": "result", "faults": "faults", "vmas": "VMAs", "rss": "resident", "smaps": "smaps", "vm_flags": "flags",
           "status": "status", "status_rss": "status RSS", "commit": "commit", "oom_score": "OOM score"}
TABLE = re.compile(r"(<!-- recordings -->\n).*?(<!-- /recordings -->)", re.DOTALL)


def judge(flavour):
    """compare.py's totals for one flavour's recordings."""
    recordings = os.path.join(TRACES, flavour)
    with tempfile.TemporaryDirectory() as answers:
        replay = subprocess.run([os.path.join(BUILD, "bin", "mmlab"), "replay", "--in-process", "--answers", answers, recordings],
                                stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if replay.returncode != 0:
            raise AssertionError(f"{flavour}: mmlab replay exits {replay.returncode}\n{replay.stdout[-2000:]}{replay.stderr[-8000:]}")
        verdict = subprocess.run([sys.executable, "-B", os.path.join(HERE, "compare.py"), "--json", recordings, answers],
                                 check=True, capture_output=True, text=True)
    totals = json.loads(verdict.stdout)
    claimed = re.search(r"^(\d+) of (\d+) steps exact", replay.stdout, re.MULTILINE)
    totals["claimed"] = (int(claimed.group(1)), int(claimed.group(2)))
    return totals


def judge_all():
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(FLAVOURS, pool.map(judge, FLAVOURS)))


def percent(part, whole):
    """Rounded down, so that only what is complete reads 100."""
    hundredths = math.floor(10000 * part / whole)
    return "100 %" if part == whole else f"{hundredths // 100}.{hundredths % 100:02} %"


def table(results):
    rows = [["recordings of", "exact", "steps", "exact", "all fields", *COLUMNS.values()]]
    rows.append(["---"] + ["--:"] * (len(rows[0]) - 1))
    total = {key: sum(results[flavour][key] for flavour in FLAVOURS) for key in results[FLAVOURS[0]] if key != "claimed"}
    for name, of in [*((f"`{flavour}`", results[flavour]) for flavour in FLAVOURS), ("all", total)]:
        rows.append([name, f"{of['files_exact']} of {of['files']}", str(of["steps"]), str(of["exact"]), percent(of["exact"], of["steps"]),
                     *(percent(of[category], of["steps"]) for category in COLUMNS)])
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def update(results):
    with open(FLOORS, encoding="utf-8") as f:
        floors = json.load(f)
    floors = {flavour: max(floors.get(flavour, 0), results[flavour]["exact"]) for flavour in FLAVOURS}
    with open(FLOORS, "w", encoding="utf-8") as f:
        f.write(json.dumps(floors, indent=2) + "\n")
    with open(README, encoding="utf-8") as f:
        text = f.read()
    with open(README, "w", encoding="utf-8") as f:
        f.write(TABLE.sub(lambda markers: markers.group(1) + table(results) + markers.group(2), text))


class Recordings(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.results = judge_all()
        print(table(cls.results), flush=True)

    def test_no_flavour_falls_below_its_floor(self):
        with open(FLOORS, encoding="utf-8") as f:
            floors = json.load(f)
        for flavour in FLAVOURS:
            with self.subTest(flavour):
                self.assertGreaterEqual(self.results[flavour]["exact"], floors[flavour], "exact steps")

    def test_every_recording_is_there(self):
        for flavour in FLAVOURS:
            with self.subTest(flavour):
                self.assertEqual(self.results[flavour]["files"], len(os.listdir(os.path.join(TRACES, flavour))))

    def test_the_command_counts_as_the_judge_does(self):
        for flavour in FLAVOURS:
            with self.subTest(flavour):
                self.assertEqual(self.results[flavour]["claimed"], (self.results[flavour]["exact"], self.results[flavour]["steps"]))

    def test_readme_shows_this_table(self):
        with open(README, encoding="utf-8") as f:
            shown = TABLE.search(f.read())
        self.assertIsNotNone(shown, "README.md has no table between its markers")
        self.assertEqual(shown.group(0), shown.group(1) + table(self.results) + shown.group(2), "renew it: recordings_test.py --update")


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        outcome = judge_all()
        update(outcome)
        print(table(outcome), end="")
    else:
        unittest.main()
