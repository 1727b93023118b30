"""Child processes of an end-to-end test: on loopback, in a folder of their own, ended by pid whatever happens."""
import collections
import ctypes
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.join(ROOT, os.environ.get("MMLAB_BUILD_DIR", os.path.join("build", "release")))

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _end_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # Should the test itself be killed.


class Children:
    """Starts processes and ends each of them by its pid in stop()."""

    def __init__(self, folder):
        self.folder = folder
        self._running = []

    def start(self, name, command):
        log = open(os.path.join(self.folder, name + ".log"), "wb")
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, cwd=self.folder,
                                   preexec_fn=_end_with_parent)
        log.close()
        self._running.append((name, process))
        return process

    def log(self, name):
        with open(os.path.join(self.folder, name + ".log"), errors="replace") as text:
            return text.read()

    def stop(self):
        for _, process in reversed(self._running):
            if process.poll() is None:
                process.terminate()
        for _, process in reversed(self._running):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    def wait_for(self, what, condition, seconds=60):
        """Until condition() is true; fails early when a child ended by itself."""
        end = time.monotonic() + seconds
        while not condition():
            for name, process in self._running:
                if process.poll() is not None:
                    raise AssertionError(f"{name} ended with {process.returncode}:\n{self.log(name)}")
            if time.monotonic() > end:
                logs = "\n".join(f"--- {name}:\n{self.log(name)[-3000:]}" for name, _ in self._running)
                raise AssertionError(f"waited {seconds} s in vain for {what}\n{logs}")
            time.sleep(0.05)


Server = collections.namedtuple("Server", "process grpc http")  # Addresses as HOST:PORT.


def start_server(children, *flags, name="mmlabd", limits=()):
    """mmlabd on free ports; serving when this returns. `limits`: a command in front, which becomes the server."""
    process = children.start(name, [*limits, os.path.join(BUILD, "bin", "mmlabd"), "--grpc-address", "127.0.0.1:0",
                                    "--http-address", "127.0.0.1:0", *flags])
    line = re.compile(r" serving .*grpc=(\S+) http=(\S+)")
    children.wait_for(name + " to serve", lambda: line.search(children.log(name)))
    return Server(process, *line.search(children.log(name)).groups())


class Page:
    """An HTTP answer; also for statuses that urllib takes for errors."""

    def __init__(self, url, headers=None):
        request = urllib.request.Request(url, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                self._take(answer)
        except urllib.error.HTTPError as answer:
            self._take(answer)

    def _take(self, answer):
        self.status = answer.status if hasattr(answer, "status") else answer.code
        self.headers = answer.headers
        self.body = answer.read()

    @property
    def text(self):
        return self.body.decode("utf-8")


def answers(url):
    try:
        return Page(url).status == 200
    except OSError:
        return False
