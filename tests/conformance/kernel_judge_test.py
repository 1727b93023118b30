"""`mmlab replay` and compare_kernel.py judge recordings made inside kernels alike, and the recorded answers have no part in the machine's.

Each recording is replayed as it is and with recorded answers and dumps altered: the answers must be the same, and both judges must count the
same operations and dumps as exact."""
import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import unittest

SEED = 20261125
HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "data", "kernel")
MMLAB = os.path.join(os.environ.get("MMLAB_BUILD_DIR", os.path.join(HERE, "..", "..", "build", "release")), "bin", "mmlab")
# Of each suite, some files whose lines are altered by the rule below.
RECORDINGS = ("686/128M/buddy/bulk_and_list", "686/1G/buddy/zone_fallback", "686-pae/128M/buddy/pcp_huge_order",
              "arm64/128M-smp2/buddy/rand_", "arm64/4G-cma/buddy/rand_")
# What is an answer in each operation, and in each dump.
ANSWERS = {"pfn": 1, "pfns": [1], "got": 0}
DUMPED = {"zones": []}


def find(prefix):
    folder, start = os.path.split(prefix)
    return os.path.join(DATA, folder, next(n for n in sorted(os.listdir(os.path.join(DATA, folder))) if n.startswith(start)))


def alter(source, target, rng):
    with gzip.open(source, "rt", encoding="utf-8") as text, open(target, "w", encoding="utf-8") as out:
        for line in text:
            record = json.loads(line)
            answers = ANSWERS if "op" in record else DUMPED if record.get("at", 0) > 0 else {}
            if rng.random() < 0.3:
                record.update({key: value for key, value in answers.items() if key in record})
            out.write(json.dumps(record, separators=(",", ":")) + "\n")


class KernelJudge(unittest.TestCase):
    def judge(self, recordings, answers):
        """(exact, all) of both judges."""
        replay = subprocess.run([MMLAB, "replay", recordings, "--answers", answers], capture_output=True, text=True, check=True)
        verdict = subprocess.run([sys.executable, "-B", os.path.join(HERE, "compare_kernel.py"), "--json", recordings, answers],
                                 capture_output=True, text=True, check=True)
        total = json.loads(verdict.stdout)["all"]
        ours = re.search(r"^(\d+) of (\d+) steps exact", replay.stdout, re.MULTILINE)
        self.assertEqual((int(ours.group(1)), int(ours.group(2))),
                         (total["exact"] + total["states_exact"], total["ops"] + total["states"]))
        return int(ours.group(1)), int(ours.group(2))

    def test_answers_do_not_depend_on_the_recorded_ones(self):
        rng = random.Random(SEED)
        with tempfile.TemporaryDirectory() as folder:
            for part in ("plain", "altered"):
                os.makedirs(os.path.join(folder, part))
            for prefix in RECORDINGS:
                name = prefix.replace("/", "-") + ".jsonl"
                with gzip.open(find(prefix), "rb") as text, open(os.path.join(folder, "plain", name), "wb") as copy:
                    copy.write(text.read())
                alter(find(prefix), os.path.join(folder, "altered", name), rng)
            exact, steps = self.judge(os.path.join(folder, "plain"), os.path.join(folder, "answers-plain"))
            self.assertEqual(exact, steps)
            altered, _ = self.judge(os.path.join(folder, "altered"), os.path.join(folder, "answers-altered"))
            self.assertLess(altered, steps)
            for name in os.listdir(os.path.join(folder, "answers-plain")):
                with self.subTest(name):
                    with open(os.path.join(folder, "answers-plain", name), encoding="utf-8") as plain, \
                         open(os.path.join(folder, "answers-altered", name), encoding="utf-8") as other:
                        self.assertEqual(plain.read(), other.read())


if __name__ == "__main__":
    unittest.main()
