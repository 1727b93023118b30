#!/usr/bin/env python3
"""A web page that calls the API of a server of another origin, in a real browser: Chromium, headless. Run alone:
    MMLAB_BUILD_DIR=build/release python3 tests/e2e/browser_test.py
"""
import http.server
import json
import shutil
import tempfile
import threading
import unittest
import urllib.request

from children import Children, start_server

# Does what a live page does, and posts what came of it to its own origin.
PAGE = """<!doctype html><meta charset="utf-8"><title>mmlab</title><script>
const api = "http://API/mmlab.v1.";
async function post(method, message) {
  const answer = await fetch(api + method, {method: "POST", headers: {"Content-Type": "application/json", "Connect-Protocol-Version": "1"},
                                            body: JSON.stringify(message)});
  return {status: answer.status, message: await answer.json()};
}
async function* stream(method, message, signal) {
  const body = new TextEncoder().encode(JSON.stringify(message));
  const envelope = new Uint8Array(5 + body.length);
  new DataView(envelope.buffer).setUint32(1, body.length);
  envelope.set(body, 5);
  const answer = await fetch(api + method, {method: "POST", headers: {"Content-Type": "application/connect+json"}, body: envelope, signal});
  const reader = answer.body.getReader();
  let bytes = new Uint8Array();
  while (true) {
    const {done, value} = await reader.read();
    if (done) return;
    const longer = new Uint8Array(bytes.length + value.length);
    longer.set(bytes);
    longer.set(value, bytes.length);
    bytes = longer;
    while (bytes.length >= 5) {
      const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(1);
      if (bytes.length < 5 + length) break;
      yield {flags: bytes[0], message: JSON.parse(new TextDecoder().decode(bytes.subarray(5, 5 + length)))};
      bytes = bytes.slice(5 + length);
    }
  }
}
async function main() {
  const seen = {};
  try {
    seen.unary = await post("MachineService/GetMachine", {name: "machines/m"});
    seen.error = await post("MachineService/GetMachine", {name: "machines/nobody"});
    const query = new URLSearchParams({connect: "v1", encoding: "json", message: JSON.stringify({name: "machines/m"})});
    seen.get = (await fetch(api + "MachineService/GetMachine?" + query)).status;
    seen.events = [];
    const leave = new AbortController();
    for await (const {message} of stream("WatchService/Watch", {machine: "machines/m", events: ["kmem:mm_page_alloc"]}, leave.signal)) {
      for (const event of message.events || []) seen.events.push(event.event);
      if (seen.events.length >= 2) break;
      await post("PageService/AllocPages", {machine: "machines/m", gfp: 1});
    }
    leave.abort();
    for await (const part of stream("WatchService/Watch", {machine: "machines/nobody"})) seen.end = part;
  } catch (error) {
    seen.failed = String(error);
  }
  await fetch("/seen", {method: "POST", body: JSON.stringify(seen)});
}
main();
</script>
"""


class PageServer:
    """Serves the page and keeps what it posts, by the host name under which it was reached."""

    def __init__(self):
        self.page = ""
        self.seen = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = outer.page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self):
                outer.seen[self.headers["Host"]] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


@unittest.skipUnless(shutil.which("chromium"), "no chromium; deploy/install installs it")
class BrowserTest(unittest.TestCase):
    def test_a_page_of_an_allowed_origin_and_one_of_another(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        children = Children(folder.name)
        self.addCleanup(children.stop)
        pages = PageServer()
        self.addCleanup(pages.stop)
        api = start_server(children, "--http-allow-origin", f"http://127.0.0.1:{pages.port}").http
        pages.page = PAGE.replace("API", api)
        create = urllib.request.Request(f"http://{api}/mmlab.v1.MachineService/CreateMachine", headers={"Content-Type": "application/json"},
                                        data=json.dumps({"machineId": "m", "spec": {"preset": "686-64M"}}).encode())
        urllib.request.urlopen(create, timeout=60).close()

        for host in ("127.0.0.1", "localhost"):  # One server, two origins.
            children.start(f"chromium-{host}", ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-extensions", "--no-first-run",
                                                "--disable-background-networking", f"--user-data-dir={folder.name}/{host}",
                                                f"http://{host}:{pages.port}/"])
            children.wait_for(f"the page of {host}", lambda host=host: f"{host}:{pages.port}" in pages.seen, seconds=120)
        seen = pages.seen[f"127.0.0.1:{pages.port}"]
        self.assertNotIn("failed", seen)
        self.assertEqual((seen["unary"]["status"], seen["unary"]["message"]["machine"]["name"]), (200, "machines/m"))
        self.assertEqual((seen["error"]["status"], seen["error"]["message"]["code"]), (404, "not_found"))
        self.assertEqual(seen["get"], 200)
        self.assertEqual(set(seen["events"]), {"kmem:mm_page_alloc"})
        self.assertEqual((seen["end"]["flags"], seen["end"]["message"]["error"]["code"]), (2, "not_found"))
        self.assertEqual(set(pages.seen[f"localhost:{pages.port}"]), {"failed"})


if __name__ == "__main__":
    unittest.main()
