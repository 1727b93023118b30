#!/usr/bin/env python3
"""Watching a machine: `mmlab watch` as a person uses it, and the stream as a program does. Run alone:
    MMLAB_BUILD_DIR=build/release python3 tests/e2e/watch_test.py
"""
import os
import re
import signal
import subprocess
import tempfile
import time
import unittest

import grpc

from api import Api
from children import BUILD, ROOT, Children, Page, start_server
from load import Load

# "            bash-7       [000] ..... 1700000000.000000: mm_page_free: page=... pfn=0x1f order=0"
TRACE_LINE = re.compile(r"^ *(?P<comm>.{1,16})-(?P<pid>\d+) +\[(?P<cpu>\d{3})\] \.{5} +\d+\.\d{6}: (?P<event>\w+): (?P<fields>.*)$")


class WatchTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.children = Children(folder.name)
        cls.addClassCleanup(cls.children.stop)
        cls.server = start_server(cls.children)
        cls.api = Api(cls.server.grpc, folder.name)
        cls.addClassCleanup(cls.api.close)
        cls.made = 0

    def setUp(self):
        type(self).made += 1
        self.machine = f"m{self.made}"
        self.name = f"machines/{self.machine}"
        self.api.call("MachineService", "CreateMachine", machine_id=self.machine, spec={"preset": "686-pae-1G"})
        self.streams = []
        self.addCleanup(lambda: [stream.cancel() for stream in self.streams])

    def watch(self, **fields):
        """The stream, with its first answer read: from here on nothing is missed."""
        stream = self.api.stream("WatchService", "Watch", machine=self.name, **fields)
        self.streams.append(stream)
        return stream, next(stream).started_after

    def events(self, stream, count):
        events = []
        while len(events) < count:
            events += next(stream).events
        return events

    def alloc(self, times=1, order=0, gfp=1):
        made = self.api.batch(self.name, [("alloc_pages", {"order": order, "gfp": gfp})] * times)
        return [outcome.value for outcome in made]

    def test_an_allocation_as_the_kernel_traces_it(self):
        stream, _ = self.watch(events=["kmem:mm_page_alloc", "kmem:mm_page_free"])
        pfn, = self.alloc(order=3)
        self.api.call("PageService", "FreePages", machine=self.name, pfn=pfn, order=3)
        alloc, free = self.events(stream, 2)
        self.assertEqual((alloc.event, alloc.text), ("kmem:mm_page_alloc", f"page=(____ptrval____) pfn=0x{pfn:x} order=3 migratetype=0 gfp_flags=GFP_KERNEL"))
        self.assertEqual({field.name: field.number or field.text for field in alloc.fields},
                         {"pfn": pfn, "order": 3, "migratetype": 0 or "", "gfp_flags": "GFP_KERNEL"})
        self.assertEqual((free.event, free.text, free.zone, free.pid, free.comm),
                         ("kmem:mm_page_free", f"page=(____ptrval____) pfn=0x{pfn:x} order=3", "Normal", 0, "<idle>"))
        self.assertEqual(free.sequence, alloc.sequence + 1)

    def test_kernel_memory_as_the_kernel_traces_it(self):
        stream, _ = self.watch(events=["kmem:kmalloc", "kmem:kfree"])
        block, = self.api.batch(self.name, [("kmalloc", {"size_bytes": 100, "gfp": 1})])
        self.api.batch(self.name, [("kfree", {"address": block.value})])
        taken, given = self.events(stream, 2)
        self.assertEqual(taken.text, f"call_site=0x0 ptr={block.value:08x} bytes_req=100 bytes_alloc=128 gfp_flags=GFP_KERNEL node=-1 accounted=false")
        self.assertEqual((given.event, given.text), ("kmem:kfree", f"call_site=0x0 ptr={block.value:08x}"))

    def test_reclaim_of_a_cgroup_as_the_kernel_traces_it(self):
        load = Load(self.api, self.name, 0x08048000)
        stream, _ = self.watch(events=["vmscan:*"])
        load.squeeze(1)
        events = self.events(stream, 5)
        self.assertEqual((events[0].event, events[0].text), ("vmscan:mm_vmscan_memcg_reclaim_begin", "order=0 gfp_flags=GFP_HIGHUSER_MOVABLE"))
        by_name = {event.event: event.text for event in events}
        self.assertRegex(by_name["vmscan:mm_vmscan_lru_isolate"], r"^isolate_mode=0 classzone=\d order=0 nr_requested=\d+ nr_scanned=\d+ nr_skipped=0 nr_taken=\d+ lru=inactive_anon$")
        self.assertRegex(by_name["vmscan:mm_vmscan_write_folio"], r"^page=\(____ptrval____\) pfn=0x[0-9a-f]+ flags=RECLAIM_WB_ANON\|RECLAIM_WB_ASYNC$")

    def test_filters(self):
        zone, _ = self.watch(events=["kmem:mm_page_alloc"], zones=["DMA"])
        every, _ = self.watch(events=["kmem:mm_page_*"])
        task, _ = self.watch(pids=[4711], events=["kmem:mm_page_alloc", "sched:*"])
        self.alloc(3)
        self.alloc(2, gfp=7)  # GFP_DMA
        self.assertEqual([event.zone for event in self.events(zone, 2)], ["DMA"] * 2)
        self.assertGreaterEqual(len(self.events(every, 5)), 5)
        task.cancel()
        for wrong in ({"events": ["kmem:nothing"]}, {"events": ["x" * 1000]}, {"events": ["*"] * 65}, {"zones": ["DMA"] * 6}):
            with self.subTest(wrong=str(wrong)[:40]), self.assertRaises(grpc.RpcError) as refused:
                self.watch(**wrong)
            self.assertEqual(refused.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

    def test_resume_where_it_ended(self):
        stream, _ = self.watch(events=["kmem:mm_page_alloc"])
        self.alloc(2)
        last = self.events(stream, 2)[-1].sequence
        stream.cancel()
        missed = self.alloc(5)
        again, _ = self.watch(events=["kmem:mm_page_alloc"], resume_after=last)
        seen = self.events(again, 5)
        self.assertEqual([next(field.number for field in event.fields if field.name == "pfn") for event in seen], missed)
        self.assertGreater(seen[0].sequence, last)
        for after in (10**9, 2**64 - 1):
            with self.assertRaises(grpc.RpcError) as gone:
                self.watch(resume_after=after)
            self.assertEqual(gone.exception.code(), grpc.StatusCode.OUT_OF_RANGE)

    def test_who_comes_too_late_loses_and_is_told(self):
        self.api.call("ProcessService", "CreateProcess", machine=self.name, comm="hog")
        stream, _ = self.watch(events=["kmem:mm_page_alloc"])
        self.alloc(1)
        last = self.events(stream, 1)[-1].sequence
        # One operation tells more than is kept: nobody can be fast enough, the machine does not wait, and every event is either seen or counted.
        pages = 20000
        for _ in range(4):
            self.alloc(5000)
        seen = lost = 0
        while seen + lost < pages:
            answer = next(stream)
            lost += answer.lost_events
            seen += len(answer.events)
            self.assertTrue(all(event.sequence > last for event in answer.events))
        self.assertEqual(seen + lost, pages)

    def test_a_reader_that_does_not_read_costs_the_machine_nothing_but_events(self):
        stream, _ = self.watch()
        resident = lambda: int(re.search(r"^process_resident_memory_bytes (\S+)", Page(f"http://{self.server.http}/metrics").text, re.M).group(1).split("e")[0].split(".")[0])
        for _ in range(6):
            made = self.alloc(4000)
            self.api.batch(self.name, [("free_pages", {"pfn": pfn}) for pfn in made])
        self.assertGreater(resident(), 0)
        first = next(stream)
        self.assertTrue(first.events or first.lost_events)

    def test_it_ends_with_the_machine(self):
        stream, _ = self.watch()
        self.api.call("MachineService", "DeleteMachine", name=self.name)
        with self.assertRaises(grpc.RpcError) as ended:
            for _ in stream:
                pass
        self.assertEqual(ended.exception.code(), grpc.StatusCode.NOT_FOUND)

    def command(self, *arguments):
        return subprocess.run([os.path.join(BUILD, "bin", "mmlab"), "--server", self.server.grpc, *arguments], capture_output=True, text=True,
                              timeout=120, cwd=ROOT, stdin=subprocess.DEVNULL)

    def test_the_command_prints_trace_pipes_layout(self):
        watching = subprocess.Popen([os.path.join(BUILD, "bin", "mmlab"), "--server", self.server.grpc, "watch", self.machine, "-e", "kmem:*", "--count", "4"],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        self.addCleanup(lambda: watching.poll() is None and watching.send_signal(signal.SIGKILL))
        end = time.monotonic() + 60
        while watching.poll() is None and time.monotonic() < end:  # It may not watch yet when the first pages are taken.
            self.alloc(2)
            time.sleep(0.05)
        out, err = watching.communicate(timeout=60)
        self.assertEqual((watching.returncode, err), (0, ""))
        lines = out.splitlines()
        self.assertEqual(len(lines), 4)
        for line in lines:
            self.assertRegex(line, TRACE_LINE)
        listed = self.command("watch", "--list")
        self.assertIn("kmem:mm_page_alloc pfn order migratetype gfp_flags\n", listed.stdout)
        self.assertEqual(self.command("watch").returncode, 2)
        self.assertEqual(self.command("watch", "nobody").returncode, 69)
        self.assertEqual(self.command("watch", self.machine, "-e", "nothing").returncode, 67)

    def test_proc_export_writes_what_proc_prints(self):
        with tempfile.TemporaryDirectory() as folder:
            self.api.call("ProcessService", "CreateProcess", machine=self.name, comm="sh")
            done = self.command("proc", "export", self.machine, folder)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            for file in ("meminfo", "buddyinfo", "zoneinfo", "sys/vm/overcommit_memory", "1/status"):
                with open(os.path.join(folder, file), encoding="utf-8") as written:
                    self.assertEqual(written.read(), self.command("proc", self.machine, file).stdout, file)

    def test_tools_see_the_machines_proc(self):
        free = self.command("proc", "mount", self.machine, "--", "free", "--kibi")
        if free.returncode == 126:
            self.skipTest(free.stderr)
        self.assertEqual((free.returncode, free.stderr), (0, ""))
        meminfo = dict(line.split(":") for line in self.command("proc", self.machine, "meminfo").stdout.splitlines())
        kilobytes = lambda field: int(meminfo[field].split()[0])
        total, _, unused, shared, _, available = map(int, re.search(r"^Mem: +(.*)$", free.stdout, re.M).group(1).split())
        self.assertEqual((total, unused, shared, available), tuple(map(kilobytes, ("MemTotal", "MemFree", "Shmem", "MemAvailable"))))
        slabs = self.command("proc", "mount", self.machine, "--", "slabtop", "-o")
        self.assertEqual((slabs.returncode, slabs.stderr), (0, ""))
        self.assertIn(" kmalloc-64 ", slabs.stdout)
        self.assertEqual(self.command("proc", "mount", self.machine, "--", "sh", "-c", "exit 7").returncode, 7)
        self.assertEqual(self.command("proc", "mount", self.machine, "--", "no-such-command").returncode, 127)


if __name__ == "__main__":
    unittest.main()
