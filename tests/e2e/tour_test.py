#!/usr/bin/env python3
"""The tour and the README's commands work as written, against a running server. Run alone:
    MMLAB_BUILD_DIR=build/debug python3 tests/e2e/tour_test.py
"""
import os
import re
import subprocess
import tempfile
import unittest

from children import BUILD, ROOT, Children, start_server


class Walks(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.children = Children(folder.name)
        self.addCleanup(self.children.stop)
        self.server = start_server(self.children)
        self.environment = {"HOME": folder.name, "PATH": os.path.join(BUILD, "bin") + ":/usr/bin:/bin", "LC_ALL": "C.UTF-8"}

    def run_bash(self, *command, **environment):
        return subprocess.run(["bash", *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280, cwd=ROOT,
                              env={**self.environment, **environment})

    def test_the_tour(self):
        done = self.run_bash("deploy/tour", self.server.grpc, self.server.http)
        self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr)
        for number in range(1, 6):
            self.assertIn(f"=== {number}. ", done.stdout)
        self.assertEqual(len(re.findall(r"^\d+ of \d+ steps exact", done.stdout, re.MULTILINE)), 3)
        for expected in ("HighTotal:", "System RAM", "[stack]", "page_table_walk", "vma_lookup", "frame_source", "/sd/prometheus"):
            self.assertIn(expected, done.stdout)
        self.assertNotIn("\x1b", done.stdout)  # No colours in a pipe.

    def test_every_command_of_the_readme(self):
        with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as f:
            walk = re.search(r"<!-- walk -->(.*?)<!-- /walk -->", f.read(), re.DOTALL).group(1)
        blocks = re.findall(r"```sh\n(.*?)```", walk, re.DOTALL)
        self.assertGreater(len(blocks), 3)
        # One shell for all of them, as for someone who walks; the server's page is where the README says, but on another port.
        script = "set -euo pipefail\n" + "".join(f"echo '--- block {i}'\n{block}" for i, block in enumerate(blocks, 1))
        done = self.run_bash("-c", script.replace("localhost:9464", self.server.http), MMLAB_SERVER=self.server.grpc)
        self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr)
        self.assertEqual(done.stderr, "")


if __name__ == "__main__":
    unittest.main()
