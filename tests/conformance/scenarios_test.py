#!/usr/bin/env python3
"""Performs every recorded scenario of a whole machine, has compare_system.py judge the answers, and holds each to its floor in
floors_scenarios.json. Every check that does not hold has the kernel's rule behind it named in misses_scenarios.json.

    python3 tests/conformance/scenarios_test.py            judges build/release/bin/mmlab
    python3 tests/conformance/scenarios_test.py --update   also raises the floors
    python3 tests/conformance/scenarios_test.py --misses   shows what does not hold, and what was recorded

A floor is a number of checks that hold: it only goes up. MMLAB_BUILD_DIR names another build.
"""
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
RECORDED = os.path.join(HERE, "data", "system", "scenarios.tar.xz")
FLOORS = os.path.join(HERE, "floors_scenarios.json")
MISSES = os.path.join(HERE, "misses_scenarios.json")
BUILD = os.environ.get("MMLAB_BUILD_DIR", os.path.join(ROOT, "build", "release"))


def judge_all():
    """By scenario: (checks that hold, all checks); and the checks that do not hold, as (scenario, what, recorded and answered)."""
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(RECORDED) as tar:
            tar.extractall(folder)
        recorded, answers = os.path.join(folder, "system"), os.path.join(folder, "answers")
        replay = subprocess.run([os.path.join(BUILD, "bin", "mmlab"), "replay", "--in-process", "--answers", answers, recorded],
                                stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if replay.returncode != 0:
            raise AssertionError(f"mmlab replay exits {replay.returncode}\n{replay.stdout[-2000:]}{replay.stderr[-8000:]}")
        verdict = subprocess.run([sys.executable, "-B", os.path.join(HERE, "compare_system.py"), "--all", recorded, answers],
                                 check=True, capture_output=True, text=True)
    results, missed = {}, []
    for line in verdict.stdout.splitlines():
        head = re.match(r"(\S+): (\d+) of (\d+)$", line)
        miss = re.match(r"  (.+): (recorded .*)$", line)
        if head:
            scenario = head[1]
            results[scenario] = (int(head[2]), int(head[3]))
        elif miss:
            missed.append((scenario, miss[1], miss[2]))
    return results, missed


def read_floors():
    with open(FLOORS, encoding="utf-8") as f:
        return json.load(f)


def rule_of(rules, scenario, what):
    """The kernel's rule behind a check that does not hold; None: nobody has named it."""
    for rule in rules:
        if re.fullmatch(rule["scenario"], scenario) and re.fullmatch(rule["check"], what):
            return rule["rule"]
    return None


def read_rules():
    with open(MISSES, encoding="utf-8") as f:
        return json.load(f)


def summary(results):
    good, total = (sum(result[i] for result in results.values()) for i in (0, 1))
    exact = sum(1 for part, whole in results.values() if part == whole)
    return f"{good} of {total} checks hold ({100 * good / total:.2f} %), all of them in {exact} of {len(results)} scenarios"


class Scenarios(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.results, cls.missed = judge_all()
        print(summary(cls.results), flush=True)

    def test_no_scenario_falls_below_its_floor(self):
        for name, floor in read_floors().items():
            with self.subTest(name):
                self.assertGreaterEqual(self.results.get(name, (0, 0))[0], floor, "checks that hold")

    def test_every_scenario_has_a_floor(self):
        self.assertEqual(sorted(self.results), sorted(read_floors()))

    def test_every_check_that_does_not_hold_has_its_rule(self):
        rules = read_rules()
        for scenario, what, values in self.missed:
            with self.subTest(f"{scenario}: {what}"):
                self.assertIsNotNone(rule_of(rules, scenario, what), values)


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        outcome, _ = judge_all()
        floors = read_floors() if os.path.exists(FLOORS) else {}
        floors = {name: max(floors.get(name, 0), good) for name, (good, _) in sorted(outcome.items())}
        with open(FLOORS, "w", encoding="utf-8") as f:
            f.write(json.dumps(floors, indent=2) + "\n")
        print(summary(outcome))
    elif sys.argv[1:] == ["--misses"]:
        for scenario, what, values in judge_all()[1]:
            print(f"{scenario}: {what}: {values}\n    {rule_of(read_rules(), scenario, what)}")
    else:
        unittest.main()
