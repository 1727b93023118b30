#!/usr/bin/env python3
"""The methods of the API over plain HTTP, as the Connect protocol wants them: what curl, a browser and `buf curl` meet. Run alone:
    MMLAB_BUILD_DIR=build/release python3 tests/e2e/connect_test.py
"""
import base64
import glob
import gzip
import json
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import unittest
import urllib.error
import urllib.parse
import urllib.request

from children import ROOT, Children, start_server

JSON = "application/json"


class Answer:
    def __init__(self, request):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                self.status, self.headers, self.body = answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as answer:
            self.status, self.headers, self.body = answer.code, answer.headers, answer.read()

    @property
    def json(self):
        return json.loads(self.body)


def envelope(message, flags=0):
    return struct.pack(">BI", flags, len(message)) + message


def open_envelopes(body):
    """(flags, message) pairs of a whole answer."""
    opened = []
    while body:
        flags, length = struct.unpack(">BI", body[:5])
        assert len(body) >= 5 + length, body
        opened.append((flags, body[5:5 + length]))
        body = body[5 + length:]
    return opened


class Stream:
    """A server-streaming call, its messages read one by one as they come."""

    def __init__(self, http, method, message, **headers):
        headers = {"Content-Type": "application/connect+json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        self.answer = urllib.request.urlopen(urllib.request.Request(f"http://{http}/mmlab.v1.{method}", data=envelope(json.dumps(message).encode()),
                                                                    headers=headers), timeout=60)

    def next(self):
        flags, length = struct.unpack(">BI", self.answer.read(5))
        message = self.answer.read(length)
        return flags, json.loads(gzip.decompress(message) if flags & 1 else message)

    def close(self):
        self.answer.close()


class ConnectTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.children = Children(folder.name)
        cls.addClassCleanup(cls.children.stop)
        cls.http = start_server(cls.children).http
        cls.call("MachineService/CreateMachine", {"machineId": "m", "spec": {"preset": "686-64M"}})

    @classmethod
    def post(cls, method, body=b"{}", content_type=JSON, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type is not None:
            headers["Content-Type"] = content_type
        return Answer(urllib.request.Request(f"http://{cls.http}/mmlab.v1.{method}", data=body, headers=headers, method="POST"))

    @classmethod
    def get(cls, method, **query):
        return Answer(urllib.request.Request(f"http://{cls.http}/mmlab.v1.{method}?{urllib.parse.urlencode(query)}"))

    @classmethod
    def call(cls, method, message):
        answer = cls.post(method, json.dumps(message).encode())
        assert answer.status == 200, (answer.status, answer.body)
        return answer.json

    def expect_error(self, answer, http, code):
        self.assertEqual((answer.status, answer.headers["Content-Type"]), (http, JSON), answer.body)
        self.assertEqual(answer.json["code"], code)
        self.assertTrue(answer.json["message"])
        info = answer.json["details"][0]
        self.assertEqual(info["type"], "google.rpc.ErrorInfo")
        base64.b64decode(info["value"] + "=" * (-len(info["value"]) % 4), validate=True)
        return info["debug"]

    def test_a_process_by_json_alone(self):
        pid = int(self.call("ProcessService/CreateProcess", {"machine": "machines/m", "comm": "curl"})["outcome"]["value"])
        answer = self.post("ProcessService/Fork", json.dumps({"machine": "machines/m", "pid": pid}).encode(), Connect_Protocol_Version="1")
        self.assertEqual(answer.headers["Content-Type"], JSON)
        self.assertGreater(int(answer.json["outcome"]["value"]), pid)
        # What the simulated kernel refuses is an answer.
        self.assertIn("errorName", self.call("ProcessService/Munmap", {"machine": "machines/m", "pid": pid, "address": "1"})["outcome"])
        # Both spellings of a field, and a type with a charset.
        self.assertEqual(self.post("ProcService/ReadProcFile", b'{"machine":"machines/m","path":"loadavg1"}', "application/json; charset=utf-8").status, 404)

    def test_errors_have_connects_form(self):
        debug = self.expect_error(self.post("MachineService/GetMachine", b'{"name":"machines/nobody"}'), 404, "not_found")
        self.assertTrue(debug["reason"])
        self.expect_error(self.post("MachineService/GetMachine", b'{"name":"\\u0000\\""}'), 400, "invalid_argument")
        self.expect_error(self.post("MachineService/CreateMachine", b'{"machineId":"m","spec":{"preset":"686-64M"}}'), 409, "already_exists")
        for body in (b"", b"{", b"[]", b'{"nosuchfield":1}', b'{"name":' + b"[" * 100000, b'{"name":"\xff\xfe"}', b"\0"):
            answer = self.post("MachineService/GetMachine", body)
            self.expect_error(answer, 400, "invalid_argument")
        self.expect_error(self.post("MachineService/GetMachine", b"\xff\xff\xff", "application/proto"), 400, "invalid_argument")

    def test_requests_that_are_no_connect(self):
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/grpc", "application/connect+json", None):
            answer = self.post("MachineService/ListMachines", b"{}", content_type)
            self.assertEqual(answer.status, 415, content_type)
            self.assertIn(JSON, answer.headers["Accept-Post"])
        self.assertEqual(self.post("MachineService/NoSuchMethod").status, 404)
        self.assertEqual(self.post("Machine.*/ListMachines").status, 404)
        self.assertEqual(self.get("MachineService/CreateMachine", encoding="json", message="{}").status, 405)
        self.expect_error(self.post("MachineService/ListMachines", Connect_Protocol_Version="2"), 400, "invalid_argument")
        self.expect_error(self.post("MachineService/ListMachines", Content_Encoding="zstd"), 501, "unimplemented")
        self.expect_error(self.post("MachineService/ListMachines", Connect_Timeout_Ms="-1"), 400, "invalid_argument")
        self.expect_error(self.post("MachineService/ListMachines", Connect_Timeout_Ms="12345678901"), 400, "invalid_argument")
        self.expect_error(self.post("MachineService/ListMachines", Connect_Timeout_Ms="0"), 504, "deadline_exceeded")
        self.expect_error(self.post("MachineService/ListMachines", b"no gzip", Content_Encoding="gzip"), 400, "invalid_argument")
        bomb = gzip.compress(b" " * (64 << 20))
        self.expect_error(self.post("MachineService/ListMachines", bomb, Content_Encoding="gzip"), 400, "invalid_argument")
        try:
            self.assertEqual(self.post("MachineService/ListMachines", b" " * (5 << 20)).status, 413)
        except (ConnectionError, urllib.error.URLError):
            pass  # The server answers and closes while this side still sends: a kernel may tell of the reset first.

    def test_get_where_nothing_changes(self):
        message = '{"name":"machines/m"}'
        answer = self.get("MachineService/GetMachine", connect="v1", encoding="json", message=message)
        self.assertEqual((answer.status, answer.json["machine"]["name"]), (200, "machines/m"))
        packed = base64.urlsafe_b64encode(message.encode()).decode().rstrip("=")
        self.assertEqual(self.get("MachineService/GetMachine", encoding="json", base64="1", message=packed).status, 200)
        self.expect_error(self.get("MachineService/GetMachine", encoding="json", base64="1", message="!"), 400, "invalid_argument")
        self.assertEqual(self.get("MachineService/GetMachine", message=message).status, 415)

    def test_compressed_requests(self):
        packed = gzip.compress(b'{"name":"machines/m"}')
        self.assertEqual(self.post("MachineService/GetMachine", packed, Content_Encoding="gzip").json["machine"]["name"], "machines/m")
        message = base64.urlsafe_b64encode(packed).decode()
        self.assertEqual(self.get("MachineService/GetMachine", encoding="json", base64="1", compression="gzip", message=message).status, 200)

    # --- Streams ---

    def watch(self, **headers):
        stream = Stream(self.http, "WatchService/Watch", {"machine": "machines/m", "events": ["kmem:mm_page_alloc"]}, **headers)
        self.addCleanup(stream.close)
        self.assertEqual(stream.answer.headers["Content-Type"], "application/connect+json")
        self.started(stream)
        return stream

    def started(self, stream):
        flags, first = stream.next()
        self.assertEqual((flags, first.get("events")), (0, None))  # From here on nothing is missed.

    def alloc(self, count=1):
        self.call("OperationService/ExecuteBatch", {"machine": "machines/m", "operations": [{"allocPages": {"gfp": 1}}] * count})

    def end_of(self, answer):
        """The error in the last envelope of an answer that has nothing else."""
        self.assertEqual((answer.status, answer.headers["Content-Type"]), (200, "application/connect+json"))
        (flags, message), = open_envelopes(answer.body)
        self.assertEqual(flags, 2)
        error = json.loads(message)["error"]
        self.assertEqual(error["details"][0]["type"], "google.rpc.ErrorInfo")
        return error["code"]

    def test_a_stream_as_it_comes(self):
        stream = self.watch()
        for _ in range(3):
            self.alloc()
            flags, answer = stream.next()
            self.assertEqual((flags, answer["events"][0]["event"]), (0, "kmem:mm_page_alloc"))

    def test_a_compressed_stream(self):
        stream = self.watch(Connect_Accept_Encoding="gzip")
        self.assertEqual(stream.answer.headers["Connect-Content-Encoding"], "gzip")
        self.alloc(50)
        seen, compressed = 0, False
        while seen < 50:
            flags, answer = stream.next()
            seen += len(answer["events"])
            compressed |= flags == 1  # A short message is not worth it.
        self.assertTrue(compressed)

    def test_a_stream_ends_with_its_time_and_with_its_machine(self):
        stream = self.watch(Connect_Timeout_Ms="300")
        flags, end = stream.next()
        self.assertEqual((flags, end["error"]["code"]), (2, "deadline_exceeded"))
        self.assertEqual(stream.answer.read(), b"")
        self.call("MachineService/CreateMachine", {"machineId": "short", "spec": {"preset": "686-64M"}})
        stream = Stream(self.http, "WatchService/Watch", {"machine": "machines/short"})
        self.addCleanup(stream.close)
        self.started(stream)
        self.call("MachineService/DeleteMachine", {"name": "machines/short"})
        flags, end = stream.next()
        self.assertEqual((flags, end["error"]["code"]), (2, "not_found"))

    def test_errors_of_streams_are_in_the_last_envelope(self):
        post = lambda body, **headers: self.post("WatchService/Watch", body, "application/connect+json", **headers)
        message = b'{"machine":"machines/m"}'
        self.assertEqual(self.end_of(post(envelope(b'{"machine":"machines/nobody"}'))), "not_found")
        for body in (b"", b"\0\0\0", message, envelope(message) + b"x", envelope(message)[:-1], envelope(message, flags=2), envelope(b"{"),
                     envelope(message, flags=1), envelope(message) * 2):
            self.assertEqual(self.end_of(post(body)), "invalid_argument", body)
        self.assertEqual(self.end_of(post(envelope(gzip.compress(b'{"machine":"machines/nobody"}'), flags=1), Connect_Content_Encoding="gzip")),
                         "not_found")
        self.assertEqual(self.end_of(post(envelope(message, flags=1), Connect_Content_Encoding="zstd")), "unimplemented")
        self.assertEqual(self.end_of(post(envelope(message), Connect_Timeout_Ms="x")), "invalid_argument")
        self.assertEqual(self.end_of(post(envelope(message), Connect_Protocol_Version="2")), "invalid_argument")
        for content_type in (JSON, "application/proto", "application/grpc", None):
            answer = self.post("WatchService/Watch", message, content_type)
            self.assertEqual((answer.status, answer.headers["Accept-Post"]), (415, "application/connect+json, application/connect+proto"))
        self.assertEqual(self.post("OperationService/Execute", envelope(b"{}"), "application/connect+json").status, 404)

    def streams_open(self):
        text = urllib.request.urlopen(f"http://{self.http}/metrics", timeout=60).read().decode()
        return int(re.search(r"^mmlab_watch_streams (\d+)", text, re.M).group(1))

    def test_a_stream_whose_reader_goes_ends(self):
        self.children.wait_for("earlier streams to end", lambda: self.streams_open() == 0)
        streams = [self.watch() for _ in range(40)]  # More than the server has threads for calls: these still answer.
        self.assertEqual(self.streams_open(), 40)
        for stream in streams:
            stream.close()
        self.children.wait_for("the streams to end", lambda: self.streams_open() == 0)

    def test_a_stream_needs_http_1_1(self):
        host, port = self.http.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=60) as old:
            body = envelope(b'{"machine":"machines/m"}')
            old.sendall(b"POST /mmlab.v1.WatchService/Watch HTTP/1.0\r\nContent-Type: application/connect+json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            self.assertIn(b" 505 ", old.recv(4096))

    def test_every_call_is_counted_once_and_paths_make_no_series(self):
        metrics = lambda: urllib.request.urlopen(f"http://{self.http}/metrics", timeout=60).read().decode()
        self.call("MachineService/ListMachines", {})
        text = metrics()
        self.assertIn('mmlab_http_requests_total{handler="connect",code="200"}', text.replace('code="200",handler="connect"', 'handler="connect",code="200"'))
        self.assertNotIn("/mmlab.v1", text)

    def test_buf_curl(self):
        buf = glob.glob(os.path.join(ROOT, "build", "tools", "buf-*", "node_modules", ".bin", "buf"))
        if not buf:
            self.skipTest("no buf; deploy/lint installs it")
        command = [buf[0], "curl", "--protocol", "connect", "--schema", os.path.join(ROOT, "proto"), "-d"]
        done = subprocess.run([*command, '{"name":"machines/m"}', f"http://{self.http}/mmlab.v1.MachineService/GetMachine"], capture_output=True,
                              text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["machine"]["name"], "machines/m")
        failed = subprocess.run([*command, '{"machine":"machines/nobody"}', f"http://{self.http}/mmlab.v1.WatchService/Watch"], capture_output=True,
                                text=True, timeout=120)
        self.assertEqual(json.loads(failed.stderr)["code"], "not_found", failed.stderr)
        streaming = subprocess.Popen([*command, '{"machine":"machines/m","events":["kmem:mm_page_alloc"]}', f"http://{self.http}/mmlab.v1.WatchService/Watch"],
                                     stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
        try:
            self.assertEqual(streaming.stdout.readline()[0], "{")
            self.alloc()
            self.assertTrue(any('"kmem:mm_page_alloc"' in line for line in streaming.stdout))
        finally:
            os.killpg(streaming.pid, signal.SIGKILL)  # The npm package is a script that starts the real one.
            streaming.communicate()


if __name__ == "__main__":
    unittest.main()
