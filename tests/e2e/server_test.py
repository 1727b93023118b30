#!/usr/bin/env python3
"""The server and the command as processes, used as a person or a script would: exit codes, outputs, start and end. Run alone:
    MMLAB_BUILD_DIR=build/debug python3 tests/e2e/server_test.py
"""
import json
import os
import re
import signal
import subprocess
import tempfile
import unittest

from children import BUILD, ROOT, Children, Page, free_port, start_server

TRACES = os.path.join(ROOT, "tests", "conformance", "data", "traces")
FLAVOURS = ("686", "686-pae", "arm64")
# 64 + the gRPC code.
INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS = 67, 69, 70


def mmlab(*arguments, server=None, **environment):
    """The finished command; stdin is closed, stdout is a pipe."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MMLAB")}
    if server is not None:
        own["MMLAB_SERVER"] = server
    return subprocess.run([os.path.join(BUILD, "bin", "mmlab"), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=120, cwd=ROOT, env={**own, **environment})


class WithFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.children = Children(self.folder)
        self.addCleanup(self.children.stop)

    def succeed(self, *arguments, **options):
        done = mmlab(*arguments, **options)
        self.assertEqual(done.returncode, 0, f"mmlab {arguments}: {done.stdout}{done.stderr}")
        self.assertEqual(done.stderr, "", f"mmlab {arguments}")
        return done.stdout


class ARunningServer(WithFolder):
    def setUp(self):
        super().setUp()
        self.server = start_server(self.children)

    def succeed(self, *arguments, **options):
        return super().succeed(*arguments, server=self.server.grpc, **options)

    def test_a_machines_life(self):
        for name, preset in (("a", "686-1G"), ("b", "686-pae-4G"), ("c", "arm64-1G")):
            self.assertEqual(self.succeed("create", "machine", name, "--preset", preset), f"machine/{name} created\n")
        self.assertEqual(self.succeed("get", "machines", "-o", "name"), "machines/a\nmachines/b\nmachines/c\n")
        self.assertIn("HighMem", self.succeed("describe", "machine", "b"))
        self.assertRegex(self.succeed("proc", "c", "meminfo"), r"^MemTotal: +\d+ kB\n")
        self.assertIn("System RAM", self.succeed("proc", "a", "iomem"))
        self.assertEqual(len(self.succeed("proc", "a", "buddyinfo").splitlines()), 3)  # DMA, Normal, HighMem.
        self.assertEqual(self.succeed("delete", "machine", "b"), "machine/b deleted\n")
        self.assertEqual(self.succeed("get", "machines", "-o", "name"), "machines/a\nmachines/c\n")

    def test_a_processes_life(self):
        self.succeed("create", "machine", "m", "--preset", "arm64-1G")
        pid = re.fullmatch(r"pid (\d+)\n", self.succeed("create", "process", "m", "--comm", "shell")).group(1)
        self.succeed("exec", "m", pid, "--default")
        address = self.succeed("mmap", "m", pid, "--length", "64K", "--prot", "rw", "--flags", "private,anonymous").strip()
        stored = self.succeed("explain", "store", "m", pid, "--address", address, "--length", "8", "--value", "42")
        self.assertIn("frame_source", stored)
        self.assertIn("page_table_walk", stored)
        self.assertIn("value=0x2a", self.succeed("load", "m", pid, "--address", address, "--length", "8"))
        # What the simulated kernel refuses is an answer, not a failure.
        self.assertIn("SIGSEGV (SEGV_MAPERR)", self.succeed("load", "m", pid, "--address", "0", "--length", "8"))
        self.assertIn("EINVAL", self.succeed("mmap", "m", pid, "--length", "0", "--prot", "r", "--flags", "private,anonymous"))
        self.assertIn("consistent", self.succeed("check", "machine", "m"))

    def test_formats_are_what_they_say(self):
        self.succeed("create", "machine", "m", "--preset", "686-64M")
        self.assertEqual(json.loads(self.succeed("get", "machines", "-o", "json"))["machines"][0]["name"], "machines/m")
        self.assertEqual(json.loads(self.succeed("get", "machines", MMLAB_OUTPUT="json"))["machines"][0]["name"], "machines/m")
        self.assertIn("name: machines/m", self.succeed("get", "machines", "-o", "yaml"))
        table = self.succeed("get", "machines").splitlines()
        self.assertEqual((table[0].split()[0], table[1].split()[0]), ("NAME", "m"))
        self.assertTrue(all(len(line) <= 80 for line in table), table)

    def test_replay_through_the_server_and_in_process_answer_alike(self):
        for flavour in FLAVOURS:
            with self.subTest(flavour):
                recording = os.path.join(TRACES, flavour, "s07-merge-after-fork.jsonl.gz")
                answers = []
                for place, how in (("server", ()), ("process", ("--in-process",))):
                    folder = os.path.join(self.folder, flavour, place)
                    self.assertRegex(self.succeed("replay", recording, "--answers", folder, *how), r"\d+ of \d+ steps exact")
                    with open(os.path.join(folder, "s07-merge-after-fork.jsonl"), encoding="utf-8") as f:
                        answers.append(f.read())
                self.assertEqual(answers[0], answers[1])
                self.assertTrue(answers[0])

    def test_errors_of_the_service_have_codes(self):
        self.succeed("create", "machine", "m", "--preset", "686-64M")
        cases = (
            ("no such machine", ("proc", "nobody", "meminfo"), NOT_FOUND),
            ("no such file", ("proc", "m", "nothing"), NOT_FOUND),
            ("no such preset", ("create", "machine", "x", "--preset", "vax"), NOT_FOUND),
            ("a name twice", ("create", "machine", "m", "--preset", "686-64M"), ALREADY_EXISTS),
            ("a bad name", ("create", "machine", "Not A Name", "--preset", "686-64M"), INVALID_ARGUMENT),
            ("deleting nobody", ("delete", "machine", "nobody"), NOT_FOUND),
        )
        for name, arguments, code in cases:
            with self.subTest(name):
                done = mmlab(*arguments, server=self.server.grpc)
                self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
                self.assertIn("error: ", done.stderr)
                self.assertIn("reason: ", done.stderr)

    def test_the_http_port_answers(self):
        self.succeed("create", "machine", "m", "--preset", "arm64-128M")
        self.assertIn("mmlab_build_info", Page(f"http://{self.server.http}/metrics").text)
        self.assertIn("node_memory_MemTotal_bytes", Page(f"http://{self.server.http}/probe?target=m").text)
        self.assertEqual(json.loads(Page(f"http://{self.server.http}/sd/prometheus").text)[0]["labels"]["instance"], "m")

    def test_sigterm_and_sigint_drain_and_exit_0(self):
        for ending in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(ending.name):
                children = Children(self.folder)  # Its own, for the others are watched for ending early.
                self.addCleanup(children.stop)
                server = start_server(children, name=f"ends-by-{ending.name}")
                self.assertEqual(mmlab("create", "machine", "m", "--preset", "686-64M", server=server.grpc).returncode, 0)
                server.process.send_signal(ending)
                self.assertEqual(server.process.wait(20), 0)
                log = children.log(f"ends-by-{ending.name}")
                self.assertRegex(log, rf"stopping signal={ending.name}")
                self.assertTrue(log.splitlines()[-1].endswith("stopped"), log)

    def test_a_taken_port_ends_a_second_server(self):
        second = self.children.start("second", [os.path.join(BUILD, "bin", "mmlabd"), "--grpc-address", self.server.grpc,
                                                "--http-address", ""])
        self.assertEqual(second.wait(20), 1)
        self.assertIn("start_failed", self.children.log("second"))


class WithoutAServer(WithFolder):
    def test_usage_errors_exit_2(self):
        cases = (
            ("no command", "mmlab", ()),
            ("an unknown command", "mmlab", ("frobnicate",)),
            ("an unknown flag", "mmlab", ("get", "machines", "--frobnicate")),
            ("an unknown format", "mmlab", ("get", "machines", "-o", "xml")),
            ("a missing argument", "mmlab", ("create", "machine")),
            ("a size that is none", "mmlab", ("--in-process", "create", "machine", "m", "--layout", "arm64", "--ram", "much")),
            ("an unknown flag of the server", "mmlabd", ("--frobnicate",)),
            ("a number that is none", "mmlabd", ("--max-machines", "many")),
        )
        for name, binary, arguments in cases:
            with self.subTest(name):
                done = subprocess.run([os.path.join(BUILD, "bin", binary), *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                                      text=True, timeout=60)
                self.assertEqual(done.returncode, 2, done.stdout + done.stderr)
                self.assertEqual(done.stdout, "")

    def test_help_and_version_exit_0(self):
        for binary in ("mmlab", "mmlabd"):
            for flag in ("--help", "--version"):
                with self.subTest(binary=binary, flag=flag):
                    done = subprocess.run([os.path.join(BUILD, "bin", binary), flag], capture_output=True, text=True, timeout=60)
                    self.assertEqual((done.returncode, done.stderr), (0, ""))
                    self.assertIn("mmlab", done.stdout if flag == "--help" else done.stdout + "mmlab")

    def test_nobody_listening_exits_4(self):
        done = mmlab("get", "machines", "--server", f"127.0.0.1:{free_port()}")
        self.assertEqual((done.returncode, done.stdout), (4, ""))
        self.assertIn("--in-process", done.stderr)  # Says what would help.

    def test_local_files_exit_5(self):
        broken = os.path.join(self.folder, "broken.jsonl")
        with open(broken, "w", encoding="utf-8") as f:
            f.write("{this is no JSON\n")
        for name, arguments in (("no such recording", ("replay", "--in-process", os.path.join(self.folder, "none.jsonl"))),
                                ("a broken recording", ("replay", "--in-process", broken)),
                                ("no such description", ("create", "machine", "m", "--in-process", "-f", "/nowhere"))):
            with self.subTest(name):
                done = mmlab(*arguments)
                self.assertEqual(done.returncode, 5, done.stdout + done.stderr)

    def test_in_process_needs_no_server(self):
        self.assertEqual(self.succeed("--in-process", "create", "machine", "m", "--preset", "arm64-4G"), "machine/m created\n")
        recording = os.path.join(TRACES, "arm64", "s01-brk-grow-shrink.jsonl.gz")
        self.assertIn("steps exact", self.succeed("replay", "--in-process", recording))

    def test_a_folder_of_data_is_not_pretended_to_be_used(self):
        server = start_server(self.children, "--data-dir", os.path.join(self.folder, "data"))
        self.assertIsNone(server.process.poll())
        self.assertIn("machines live in memory only", self.children.log("mmlabd"))


if __name__ == "__main__":
    unittest.main()
