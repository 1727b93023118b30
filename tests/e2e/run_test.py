#!/usr/bin/env python3
"""deploy/run as its readers use it: with --once it ends by itself, without it serves until Ctrl-C. It builds build/release."""
import os
import signal
import subprocess
import time
import unittest

from children import ROOT

RUN = os.path.join(ROOT, "deploy", "run")


class Run(unittest.TestCase):
    def test_once(self):
        done = subprocess.run([RUN, "--once"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280)
        self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr)
        self.assertIn("=== 5. ", done.stdout)

    def test_serves_until_interrupted(self):
        with subprocess.Popen([RUN, "--quiet"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              start_new_session=True) as run:
            self.addCleanup(lambda: run.poll() is None and os.killpg(run.pid, signal.SIGKILL))
            lines = iter(run.stdout.readline, "")
            address = next(line for line in lines if "until Ctrl-C" in line).split()[3]
            mmlab = [os.path.join(ROOT, "build", "release", "bin", "mmlab"), "--server", address]
            subprocess.run([*mmlab, "create", "machine", "m", "--preset", "686-64M"], check=True, stdout=subprocess.DEVNULL, timeout=60)
            os.killpg(run.pid, signal.SIGINT)  # As a terminal does: to everyone in the foreground.
            self.assertEqual(run.wait(30), 0, run.stderr.read())
            time.sleep(0.1)
            self.assertEqual(subprocess.run([*mmlab, "get", "machines"], capture_output=True, timeout=60).returncode, 4)

    def test_unknown_flags_are_refused(self):
        self.assertEqual(subprocess.run([RUN, "--frobnicate"], capture_output=True, timeout=60).returncode, 2)


if __name__ == "__main__":
    unittest.main()
