#!/usr/bin/env python3
"""Floods of connections at the gRPC port: the server serves again, and others are served meanwhile. Run alone:
    MMLAB_BUILD_DIR=build/release python3 tests/e2e/connections_test.py
"""
import os
import re
import socket
import subprocess
import tempfile
import time
import unittest

from children import BUILD, ROOT, Children, start_server

DESCRIPTORS = 200


class ConnectionsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.children = Children(folder.name)
        self.addCleanup(self.children.stop)
        self.sockets = []
        self.addCleanup(self.close_all)

    def close_all(self):
        for one in self.sockets:
            one.close()
        self.sockets.clear()

    def flood(self, server, count, source):
        """Connections that say nothing."""
        host, port = server.grpc.rsplit(":", 1)
        for _ in range(count):
            one = socket.socket()
            one.settimeout(10)
            one.bind((source, 0))
            one.connect((host, int(port)))
            self.sockets.append(one)

    def open_descriptors(self, server):
        return len(os.listdir(f"/proc/{server.process.pid}/fd"))

    def call(self, server, seconds=20):
        return subprocess.run([os.path.join(BUILD, "bin", "mmlab"), "--server", server.grpc, "get", "machines", "-o", "name"], timeout=seconds, cwd=ROOT,
                              capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def test_it_serves_again_after_it_ran_out_of_descriptors(self):
        server = start_server(self.children, limits=["prlimit", f"--nofile={DESCRIPTORS}"])
        self.assertEqual(self.call(server).returncode, 0)
        self.flood(server, 2 * DESCRIPTORS, "127.0.0.1")
        self.children.wait_for("the descriptors to run out", lambda: self.open_descriptors(server) >= DESCRIPTORS - 1)
        time.sleep(0.3)  # Let it try, and fail, to accept more.
        self.close_all()
        done = self.call(server)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_one_address_takes_only_its_part(self):
        server = start_server(self.children, "--max-connections-of-peer", "20")
        before = self.open_descriptors(server)
        self.flood(server, 100, "127.0.0.2")
        done = self.call(server)  # From 127.0.0.1.
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.children.wait_for("the rest to be closed", lambda: self.open_descriptors(server) <= before + 25)
        self.close_all()
        self.children.wait_for("the server to let go", lambda: self.open_descriptors(server) <= before + 5)
        for _ in range(3):  # Closed ones do not count for ever.
            self.flood(server, 20, "127.0.0.2")
            self.children.wait_for("all to be taken", lambda: self.open_descriptors(server) >= before + 20)
            self.close_all()
            self.children.wait_for("the server to let go", lambda: self.open_descriptors(server) <= before + 5)

    def test_a_port_is_not_shared(self):
        server = start_server(self.children)
        second = subprocess.run([os.path.join(BUILD, "bin", "mmlabd"), "--grpc-address", server.grpc, "--http-address", ""], capture_output=True,
                                text=True, timeout=60, stdin=subprocess.DEVNULL)
        self.assertEqual(second.returncode, 1)
        self.assertRegex(second.stderr, re.escape(server.grpc))


if __name__ == "__main__":
    unittest.main()
