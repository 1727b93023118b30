#!/usr/bin/env python3
"""The methods of the API over plain HTTP, as the Connect protocol wants them: what curl, a browser and `buf curl` meet. Run alone:
    MMLAB_BUILD_DIR=build/release python3 tests/e2e/connect_test.py
"""
import base64
import glob
import json
import os
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
        done = subprocess.run([buf[0], "curl", "--protocol", "connect", "--schema", os.path.join(ROOT, "proto"), "-d", '{"name":"machines/m"}',
                               f"http://{self.http}/mmlab.v1.MachineService/GetMachine"], capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["machine"]["name"], "machines/m")


if __name__ == "__main__":
    unittest.main()
