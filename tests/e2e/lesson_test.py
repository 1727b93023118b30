#!/usr/bin/env python3
"""The lessons of `mmlab lesson` against the tables of the textbooks. Run alone:
    MMLAB_BUILD_DIR=build/release python3 tests/e2e/lesson_test.py
"""
import json
import os
import subprocess
import unittest

from children import BUILD, ROOT

# Operating System Concepts (Silberschatz, Galvin, Gagne), "Page Replacement": the frames after each fault.
STRING = "7 0 1 2 0 3 0 4 2 3 0 3 2 1 2 0 1 7 0 1"
TABLES = {
    "fifo": "7 70 701 201 231 230 430 420 423 023 013 012 712 702 701",
    "optimal": "7 70 701 201 203 243 203 201 701",
    "lru": "7 70 701 201 203 403 402 432 032 132 102 107",
}
BELADY = "1 2 3 4 1 2 5 1 2 3 4 5"  # Belady, Nelson, Shedler (1969)


class LessonTest(unittest.TestCase):
    maxDiff = None

    def lesson(self, *arguments):
        return subprocess.run([os.path.join(BUILD, "bin", "mmlab"), "--in-process", "lesson", "page-replacement", *arguments], capture_output=True,
                              text=True, timeout=120, cwd=ROOT, stdin=subprocess.DEVNULL)

    def runs(self, *arguments):
        done = self.lesson("-o", "json", *arguments)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return {(run["policy"], run["frames"]): run for run in json.loads(done.stdout)["runs"]}

    def test_tables_are_those_of_the_book(self):
        runs = self.runs("--policy", ",".join(TABLES), "--string", STRING)
        for policy, columns in TABLES.items():
            faulted = [access for access in runs[policy, 3]["accesses"] if access["minor_faults"] + access["major_faults"] > 0]
            shown = ["".join(str(page) for page in access["frames"] if page is not None) for access in faulted]
            self.assertEqual(shown, columns.split(), policy)
            self.assertEqual(runs[policy, 3]["faults"], len(columns.split()))

    def test_beladys_anomaly(self):
        runs = self.runs("--policy", "fifo,lru,optimal", "--frames", "3,4", "--string", BELADY)
        faults = {key: run["faults"] for key, run in runs.items()}
        self.assertEqual(faults, {("fifo", 3): 9, ("fifo", 4): 10, ("lru", 3): 10, ("lru", 4): 8, ("optimal", 3): 7, ("optimal", 4): 6})

    def test_linux_of_its_own(self):
        run = self.runs("--policy", "linux", "--frames", "8", "--string", " ".join(str(page % 16) for page in range(64)))["linux", 8]
        self.assertGreaterEqual(run["faults"], 16)  # Each page at least once.
        for access in run["accesses"]:
            self.assertLessEqual(sum(page is not None for page in access["frames"]), 8)

    def test_what_a_person_sees(self):
        table = self.lesson("--policy", "fifo", "--string", BELADY)
        self.assertEqual(table.returncode, 0, table.stderr)
        self.assertEqual([line.rstrip() for line in table.stdout.splitlines()], [
            "fifo, 3 frames",
            "reference  1 2 3 4 1 2 5 1 2 3 4 5",
            "frame 0    1 1 1 4 4 4 5 5 5 5 5 5",
            "frame 1    - 2 2 2 1 1 1 1 1 3 3 3",
            "frame 2    - - 3 3 3 2 2 2 2 2 4 4",
            "fault      F F F F F F F     F F",
            "9 faults"])
        summary = self.lesson("--policy", "fifo,lru", "--frames", "3,4", "--string", BELADY)
        self.assertEqual([line.split() for line in summary.stdout.splitlines()],
                         [["POLICY", "3-FRAMES", "4-FRAMES"], ["fifo", "9", "10"], ["lru", "10", "8"]])
        explained = self.lesson("--policy", "lru", "--explain", "--string", "1 2 1 3", "--frames", "2").stdout
        self.assertIn("access 4 to page 3: LRU: the page whose last use is longest ago makes room", explained)
        self.assertIn("victim 2", explained)
        for wrong in (("--string", "1 x"), ("--string", ""), ("--frames", "1"), ("--policy", "magic")):
            self.assertEqual(self.lesson(*wrong).returncode, 2, wrong)


if __name__ == "__main__":
    unittest.main()
