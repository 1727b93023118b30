"""`mmlab replay` and compare.py judge alike, and the recorded answers have no part in the machine's.

Each recording is replayed as it is and with its recorded results altered: the machine must answer the same, and both judges must
count the same steps as exact."""
import filecmp
import gzip
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import unittest

SEED = 20261122
ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
DATA = os.path.join(ROOT, "tests", "conformance", "data", "traces")
MMLAB = os.path.join(os.environ.get("MMLAB_BUILD_DIR", os.path.join(ROOT, "build", "release")), "bin", "mmlab")
RECORDINGS = ("686/s01", "686-pae/s05", "arm64/s13", "arm64-swaf/s16", "686/s20", "arm64/s28")


def find(prefix):
    folder, start = prefix.split("/")
    return next(os.path.join(DATA, folder, name) for name in sorted(os.listdir(os.path.join(DATA, folder))) if name.startswith(start))


def alter(source, target, rng):
    """The same operations with other recorded answers, in every category that is judged, on about every fifth step."""
    opener = gzip.open if source.endswith(".gz") else open
    with opener(source, "rt", encoding="utf-8") as text:
        records = [json.loads(line) for line in text]
    for record in records:
        if record["kind"] != "step" or rng.random() > 0.2:
            continue
        changes = [lambda: record.update(ret="0xdead000"),
                   lambda: record.update(committed_as_delta=12345),
                   lambda: record.update(signal={"signo": "SIGBUS", "code": "BUS_ADRERR", "addr": "0x0"})]
        for seen in record.get("procs", {}).values():
            changes.append(lambda seen=seen: seen.update(minflt_delta=77))
            changes.append(lambda seen=seen: seen.update(oom_score=1))
            changes.append(lambda seen=seen: seen.update(status={"vm_size": 1}))
            changes.append(lambda seen=seen: seen.update(status={"vm_hwm": 1}))
            if "vmas" in seen:
                changes.append(lambda seen=seen: seen["vmas"].pop())
            if "rss" in seen:
                changes.append(lambda seen=seen: seen["rss"].update(anon=1))
            for entry in seen.get("smaps", {}).values():
                changes.append(lambda entry=entry: entry.update(rss=1))
                changes.append(lambda entry=entry: entry.update(referenced=1))  # Not judged.
                changes.append(lambda entry=entry: entry.update(vm_flags="rd"))
        rng.choice(changes)()
    with open(target, "w", encoding="utf-8") as text:
        for record in records:
            text.write(json.dumps(record) + "\n")


class JudgesTest(unittest.TestCase):
    def counts(self, recordings, answers):
        """{file name: (exact, steps)} of both judges."""
        replay = subprocess.run([MMLAB, "--in-process", "replay", recordings, "--answers", answers], capture_output=True, text=True, check=True)
        judged = subprocess.run([sys.executable, os.path.join(ROOT, "tests", "conformance", "compare.py"), recordings, answers], capture_output=True, text=True, check=True)
        ours = {m[1]: (m[2], m[3]) for m in re.finditer(r"^(.*): (\d+) of (\d+) steps exactly", replay.stdout, re.M)}
        theirs = {m[1]: (m[2], m[3]) for m in re.finditer(r"^(.*): (\d+)/(\d+) steps exact", judged.stdout, re.M)}
        self.assertEqual(ours, theirs)
        self.assertEqual(len(ours), len(RECORDINGS))
        return {os.path.basename(name): count for name, count in ours.items()}

    def test_both_count_the_same_and_answers_do_not_depend_on_the_recorded_ones(self):
        rng = random.Random(SEED)
        with tempfile.TemporaryDirectory() as folder:
            for part in ("plain", "altered"):
                os.makedirs(os.path.join(folder, part))
            for prefix in RECORDINGS:
                source = os.path.abspath(find(prefix))
                name = prefix.replace("/", "-") + ".jsonl"
                with (gzip.open if source.endswith(".gz") else open)(source, "rb") as text:
                    with open(os.path.join(folder, "plain", name), "wb") as copy:
                        copy.write(text.read())
                alter(source, os.path.join(folder, "altered", name), rng)
            plain = self.counts(os.path.join(folder, "plain"), os.path.join(folder, "answers-plain"))
            altered = self.counts(os.path.join(folder, "altered"), os.path.join(folder, "answers-altered"))
            for name, (exact, steps) in altered.items():
                with self.subTest(name, seed=SEED):
                    self.assertLess(int(exact), int(plain[name][0]))
                    self.assertEqual(steps, plain[name][1])
                    self.assertTrue(filecmp.cmp(os.path.join(folder, "answers-plain", name),
                                                os.path.join(folder, "answers-altered", name), shallow=False))


if __name__ == "__main__":
    unittest.main()
