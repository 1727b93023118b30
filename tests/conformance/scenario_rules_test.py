#!/usr/bin/env python3
"""Scenarios that nobody recorded: those that were, with other amounts, limits, settings and swap devices, on each of the recorded machines.
What they must answer follows from the kernel's rules, which are written down here beside them.

    python3 tests/conformance/scenario_rules_test.py       performs them with build/release/bin/mmlab

A case is a function of the machine: it returns what differs in the header, the operations and a check of what was answered.
"""
import json
import os
import re
import subprocess
import tarfile
import tempfile
import unittest

from scenario_script import Answers, Machine, call, cgroup_snapshot, madvise, mmap, snapshot, start, swapon, sysctl, touch, write

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
RECORDED = os.path.join(HERE, "data", "system", "scenarios.tar.xz")
BUILD = os.environ.get("MMLAB_BUILD_DIR", os.path.join(ROOT, "build", "release"))
# A recorded scenario of each machine that is looked at before anything is done.
MACHINES = {"686-96M": "shmem", "686-pae-1200M": "overcommit", "arm64-192M": "shmem"}
WORKER_KIB = 3300  # What every worker has from its parent.
ENOMEM, EINVAL = -12, -22

CASES = []


def case(function):
    CASES.append(function)
    return function


MEMORY_CONTROLLER = write("/cg/cgroup.subtree_control", "+memory")


def badness(machine, swap_kib, kib, adj):
    """oom_badness(): pages of memory, swap and page tables, and so many thousandths of all memory and swap; None: never."""
    return None if adj == -1000 else (kib + WORKER_KIB) // 4 + adj * ((machine.total_kib + swap_kib) // 4) // 1000


def victims(machine, swap_kib, processes, hog_adj):
    """Who is killed, until it is the one that takes what the others leave."""
    living, left, hog, dead = dict(processes), machine.free_kib + swap_kib - sum(kib for kib, _ in processes.values()), 0, []
    while not dead or dead[-1] != "hog":
        hog, left = hog + left, 0
        scores = {name: badness(machine, swap_kib, *of) for name, of in living.items()}
        scores["hog"] = badness(machine, swap_kib, hog, hog_adj)
        dead.append(max((score, name) for name, score in scores.items() if score is not None)[1])
        left = living.pop(dead[-1])[0] + WORKER_KIB if dead[-1] != "hog" else 0
    return dead


def oom_case(name, shares, hog_adj=0, swap_kib=0, before=(), expect=None):
    def oom(machine):
        processes = {process: (machine.share(percent), adj) for process, (percent, adj) in shares.items()}
        header = {"swap_devices": [{"device": "/dev/vdc", "bytes": swap_kib << 10}]} if swap_kib else {}
        ops = [*before] + ([swapon()] if swap_kib else [])
        for process, (kib, adj) in processes.items():
            ops += [start(process, adj=adj), mmap(process, kib), touch(process, kib)]
        ops += [start("hog", adj=hog_adj), {"op": "hog", "process": "hog", "step_kib": 1024, "until": "it dies"}, snapshot("after")]

        def check(test, answers):
            wanted = expect or victims(machine, swap_kib, processes, hog_adj)
            # Who is reported first is who acts; the others are named in the order of their start.
            test.assertEqual(answers.killed(), [p for p in ["hog", *processes] if p in wanted])
            test.assertEqual(answers.pairs("after/vmstat")["oom_kill"], len(wanted))

        return header, ops, check

    oom.__name__ = name
    CASES.append(oom)


oom_case("oom_largest_first", {"small": (10, 0), "large": (40, 0)})
oom_case("oom_eager_before_large", {"large": (40, 0), "eager": (3, 700)})
oom_case("oom_shy_stays", {"shy": (60, -800), "other": (8, 0)})
oom_case("oom_immune_stays", {"immune": (55, -1000), "other": (10, 0), "tiny": (3, 600)})
oom_case("oom_shy_hog", {"a": (20, 0), "b": (12, 0), "c": (25, -1000)}, hog_adj=-900)
oom_case("oom_with_swap", {"a": (20, 0), "eager": (5, 500)}, swap_kib=16 << 10)
oom_case("oom_allocating_task", {"large": (50, 0), "eager": (5, 1000)}, before=[sysctl("oom_kill_allocating_task", 1)], expect=["hog"])


@case
def swap_saves(machine):
    """More than memory and less than memory and swap: nobody dies. Without swap somebody does."""
    kib = (machine.free_kib * 105 // 100 >> 10) << 10
    header = {"swap_devices": [{"device": "/dev/vdc", "bytes": machine.total_kib // 2 << 10}]}
    ops = [swapon(), start("p"), mmap("p", kib), snapshot("before"), touch("p", kib), snapshot("after"),
           {"op": "swapoff", "device": "/dev/vdc"}, snapshot("failed")]

    def check(test, answers):
        test.assertEqual(answers.killed(), [])
        test.assertGreater(answers.change("pswpout", "after", file="vmstat"), 0)
        test.assertLess(answers.change("SwapFree", "after"), 0)
        # There is no room for what is in the area: it stays.
        test.assertEqual(answers.change("SwapTotal", "failed", "after"), 0)

    return header, ops, check


@case
def no_swap_kills(machine):
    kib = (machine.free_kib * 105 // 100 >> 10) << 10
    ops = [sysctl("overcommit_memory", 1), start("p"), mmap("p", kib), touch("p", kib), snapshot("after")]
    return {}, ops, lambda test, answers: test.assertEqual(answers.killed(), ["p"])


@case
def swap_priorities(machine):
    """The area of the higher priority is filled first."""
    header = {"swap_devices": [{"device": "/dev/vdc", "bytes": 8 << 20}, {"device": "/dev/vdd", "bytes": machine.total_kib << 10}]}
    kib = ((machine.free_kib + (16 << 10)) >> 10) << 10
    ops = [swapon("/dev/vdd", 1), swapon("/dev/vdc", 2), sysctl("overcommit_memory", 1), start("p"), mmap("p", kib), touch("p", kib),
           snapshot("after")]

    def check(test, answers):
        used = {line.split()[0]: int(line.split()[3]) for line in answers.text("after/swaps").splitlines()[1:]}
        test.assertEqual(answers.killed(), [])
        test.assertEqual(used["/dev/vdc"], 8 << 10)
        test.assertGreater(used["/dev/vdd"], 0)

    return header, ops, check


def overcommit_case(ratio, with_swap):
    def overcommit(machine):
        swap = machine.total_kib // 4
        header = {"swap_devices": [{"device": "/dev/vdc", "bytes": swap << 10}]}
        step = machine.share(10)
        ops = [swapon()] if with_swap else []
        ops += [sysctl("overcommit_memory", 2), sysctl("overcommit_ratio", ratio), start("p"), snapshot("before")]
        ops += [mmap("p", step, region) for region in range(30)]

        def check(test, answers):
            meminfo = answers.pairs("before/meminfo")
            limit = machine.total_kib * ratio // 100 + (meminfo["SwapTotal"] if with_swap else 0)
            test.assertAlmostEqual(meminfo["CommitLimit"], limit, delta=4)
            size = answers.pairs("before/process-p-status")["VmSize"]
            committed, wanted = meminfo["Committed_AS"], []
            for _ in range(30):
                # __vm_enough_memory(): of root, and of a process's own growth up to 1/32 is kept back.
                fits = committed + step < meminfo["CommitLimit"] - size // 32
                wanted.append(len([w for w in wanted if w >= 0]) if fits else ENOMEM)
                if fits:
                    committed, size = committed + step, size + step
            test.assertEqual(answers.mapped(), wanted)

        return header, ops, check

    overcommit.__name__ = f"overcommit_{ratio}{'_with_swap' if with_swap else ''}"
    CASES.append(overcommit)


overcommit_case(60, False)
overcommit_case(90, True)
overcommit_case(140, False)


@case
def overcommit_refuses_the_absurd_only(machine):
    more = machine.total_kib + (1 << 10)
    ops = [start("p"), mmap("p", more), sysctl("overcommit_memory", 1), mmap("p", more)]
    return {}, ops, lambda test, answers: test.assertEqual(answers.mapped(), [ENOMEM, 0])


@case
def hugetlb_pool(machine):
    """Reservations come out of the pool, then out of what may be had beyond it."""
    size = machine.huge_kib
    ops = [sysctl("nr_hugepages", 4), sysctl("nr_overcommit_hugepages", 1), start("p"), snapshot("before"),
           mmap("p", 3 * size, 0, "hugetlb", flags="0x0"), mmap("p", 3 * size, -1, "hugetlb", flags="0x0"),
           mmap("p", 2 * size, 1, "hugetlb", flags="0x0"), snapshot("mapped"), touch("p", 3 * size), snapshot("touched"),
           {"op": "end", "process": "p"}, snapshot("ended"), sysctl("nr_hugepages", 0), snapshot("after")]

    def check(test, answers):
        test.assertEqual(answers.mapped(), [0, ENOMEM, 1])
        keys = ("HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp")
        wanted = {"before": (4, 4, 0, 0), "mapped": (5, 5, 5, 1), "touched": (5, 2, 2, 1), "ended": (4, 4, 0, 0), "after": (0, 0, 0, 0)}
        test.assertEqual({name: tuple(answers.pairs(name + "/meminfo")[key] for key in keys) for name in wanted}, wanted)

    return {}, ops, check


@case
def hugetlb_without_reserve(machine):
    """Nothing is reserved, and whoever touches what is not there dies."""
    ops = [start("p"), mmap("p", machine.huge_kib, 0, "hugetlb", flags="0x4000"), touch("p", 4)]
    return {}, ops, lambda test, answers: test.assertEqual((answers.mapped(), answers.killed()), ([0], ["p"]))


def cgroup_oom_case(name, sizes, expect, group=0, swap="0", max_mib=12):
    def cgroup_oom(machine):
        header = {"swap_devices": [{"device": "/dev/vdc", "bytes": 64 << 20}]}
        ops = [swapon(), MEMORY_CONTROLLER, write("/cg/a/memory.max", max_mib << 20), write("/cg/a/memory.swap.max", swap),
               write("/cg/a/memory.oom.group", group), start("outside"), mmap("outside", 20 << 10), touch("outside", 20 << 10)]
        for process, (mib, adj) in sizes.items():
            ops += [start(process, "a", adj), mmap(process, mib << 10), touch(process, mib << 10)]
        ops += [cgroup_snapshot("a", "after")]

        def check(test, answers):
            test.assertEqual(sorted(answers.killed()), sorted(expect))
            events = answers.pairs("after/cgroup-a-memory.events")
            # Of a group the one that was chosen is counted twice: as itself and as one of the group.
            test.assertEqual(events["oom_kill"], len(expect) + (1 if group else 0))
            test.assertEqual(events["oom_group_kill"], 1 if group and expect else 0)
            test.assertLessEqual(answers.number("after/cgroup-a-memory.peak"), max_mib << 20)

        return header, ops, check

    cgroup_oom.__name__ = name
    CASES.append(cgroup_oom)


cgroup_oom_case("cgroup_kills_the_larger", {"first": (8, 0), "second": (6, 0)}, ["first"])
cgroup_oom_case("cgroup_kills_the_acting_larger", {"first": (3, 0), "second": (30, 0)}, ["second"])
cgroup_oom_case("cgroup_kills_the_eager", {"eager": (2, 1000), "second": (11, 0)}, ["eager"])
cgroup_oom_case("cgroup_group_dies_together", {"a": (2, 0), "b": (2, 0), "c": (30, 0)}, ["a", "b", "c"], group=1)
cgroup_oom_case("cgroup_group_spares_the_immune", {"a": (2, -1000), "b": (2, 0), "c": (30, 0)}, ["b", "c"], group=1)
cgroup_oom_case("cgroup_swaps_instead", {"a": (6, 0), "b": (30, 0)}, [], swap="max")
cgroup_oom_case("cgroup_swap_limit_kills", {"a": (30, 0)}, ["a"], swap=str(8 << 20))
cgroup_oom_case("cgroup_within_limits", {"a": (4, 0), "b": (4, 0)}, [])


@case
def cgroup_limit_lowered(machine):
    """What is too much goes to swap; without swap, whoever has it is killed."""
    header = {"swap_devices": [{"device": "/dev/vdc", "bytes": 64 << 20}]}
    ops = [MEMORY_CONTROLLER, swapon()]
    for group in "ab":
        ops += [start(group, group), mmap(group, 16 << 10), touch(group, 16 << 10)]
    ops += [write("/cg/b/memory.swap.max", 0), write("/cg/a/memory.max", 8 << 20), write("/cg/b/memory.max", 8 << 20),
            cgroup_snapshot("a", "after"), cgroup_snapshot("b", "after")]

    def check(test, answers):
        test.assertEqual(answers.killed(), ["b"])
        test.assertLessEqual(answers.number("after/cgroup-a-memory.current"), 8 << 20)
        test.assertGreaterEqual(answers.number("after/cgroup-a-memory.swap.current"), 8 << 20)
        test.assertEqual(answers.pairs("after/cgroup-a-memory.events")["oom"], 0)

    return header, ops, check


@case
def cgroup_low_is_spared(machine):
    """Memory below memory.low is left alone for as long as a neighbour has some to give."""
    header = {"swap_devices": [{"device": "/dev/vdc", "bytes": 64 << 20}]}
    ops = [swapon(), MEMORY_CONTROLLER, write("/cg/p/cgroup.subtree_control", "+memory"), write("/cg/p/low/memory.low", 12 << 20)]
    for process in ("low", "none"):
        ops += [start(process, "p/" + process), mmap(process, 10 << 10), touch(process, 10 << 10)]
    ops += [write("/cg/p/memory.max", 14 << 20), cgroup_snapshot("p/low", "after"), cgroup_snapshot("p/none", "after")]

    def check(test, answers):
        test.assertEqual(answers.number("after/cgroup-p+low-memory.swap.current"), 0)
        test.assertEqual(answers.pairs("after/cgroup-p+low-memory.events")["low"], 0)
        test.assertGreater(answers.number("after/cgroup-p+none-memory.swap.current"), 4 << 20)

    return header, ops, check


@case
def ksm_chains(machine):
    """A page is shared max_page_sharing times at most, then its double is; unmerging takes all apart."""
    pages, most = 300, 100
    ops = [write("/sys/kernel/mm/ksm/max_page_sharing", most), write("/sys/kernel/mm/ksm/pages_to_scan", 100)]
    for process in "ab":
        ops += [start(process), mmap(process, pages * 4), call("fill_identical", process, pages * 4), madvise(process, 12)]
    ops += [snapshot("before"), write("/sys/kernel/mm/ksm/run", 1), snapshot("merged"), write("/sys/kernel/mm/ksm/run", 2),
            snapshot("apart")]

    def check(test, answers):
        shared, sharing = (answers.number("merged/ksm_pages_" + what) for what in ("shared", "sharing"))
        test.assertEqual((shared, shared + sharing), (2 * pages // most, 2 * pages))
        test.assertEqual((answers.number("apart/ksm_pages_shared"), answers.number("apart/ksm_pages_sharing")), (0, 0))
        test.assertEqual(answers.change("AnonPages", "apart"), 0)

    return {}, ops, check


def thp_case(enabled, advice, huge):
    def thp(machine):
        size = machine.huge_kib
        ops = [write("/sys/kernel/mm/transparent_hugepage/enabled", enabled), start("p"), mmap("p", 3 * size)]
        ops += [madvise("p", advice)] if advice else []
        ops += [snapshot("before"), touch("p", 2 * size), snapshot("touched"), call("munmap", "p", 4, 0, size), snapshot("torn"),
                madvise("p", 4)]

        def check(test, answers):
            test.assertEqual(answers.change("AnonHugePages", "touched"), 2 * size if huge else 0)
            test.assertEqual(answers.change("AnonHugePages", "torn"), size if huge else 0)
            test.assertEqual(answers.change("thp_fault_alloc", "touched", file="vmstat"), 2 if huge else 0)
            test.assertEqual(answers.change("AnonPages", "touched"), 2 * size)
            test.assertEqual(answers.returns(), ([0] if advice else []) + [0, ENOMEM])

        return {}, ops, check

    thp.__name__ = f"thp_{enabled}_{advice}"
    CASES.append(thp)


thp_case("always", 0, True)
thp_case("always", 15, False)  # MADV_NOHUGEPAGE
thp_case("madvise", 0, False)
thp_case("madvise", 14, True)  # MADV_HUGEPAGE
thp_case("never", 14, False)


@case
def locked_memory(machine):
    kib = machine.share(30)
    ops = [start("p"), mmap("p", kib), snapshot("before"), call("mlock", "p", kib), snapshot("locked"), madvise("p", 4), madvise("p", 8),
           madvise("p", 21), call("munlock", "p", kib // 2), snapshot("half"), {"op": "end", "process": "p"}, snapshot("after")]

    def check(test, answers):
        # MADV_DONTNEED, MADV_FREE and MADV_PAGEOUT leave locked memory alone.
        test.assertEqual(answers.returns(), [0, EINVAL, EINVAL, EINVAL, 0])
        test.assertEqual([answers.change("Mlocked", name) for name in ("locked", "half", "after")], [kib, kib - kib // 2, 0])

    return {}, ops, check


def marks(answers, folder, zone):
    """(min, low, high) of a zone."""
    found = re.search(rf"zone +{zone['name']}\n.*?min +(\d+)\n +low +(\d+)\n +high +(\d+)", answers.text(folder + "/zoneinfo"), re.S)
    return tuple(map(int, found.groups()))


def watermark_case(kbytes):
    def watermarks(machine):
        ops = [snapshot("before"), sysctl("min_free_kbytes", kbytes), snapshot("after")]

        def check(test, answers):
            zones = [z for z in machine.header["zones"] if z["name"] != "HighMem"]
            low = sum(z["managed"] for z in zones)
            for zone in zones:
                own = kbytes // 4 * zone["managed"] // low
                distance = max(own // 4, zone["managed"] // 1000)
                test.assertEqual(marks(answers, "after", zone), (own, own + distance, own + 2 * distance))

        return {}, ops, check

    watermarks.__name__ = f"min_free_{kbytes}"
    CASES.append(watermarks)


watermark_case(512)
watermark_case(3000)
watermark_case(12345)


@case
def first_watermarks(machine):
    """Those of the header, before anything is written."""

    def check(test, answers):
        for zone in machine.header["zones"]:
            test.assertEqual(marks(answers, "start", zone), (zone["min"], zone["low"], zone["high"]))

    return {}, [], check


@case
def tmpfs_is_half_of_memory(machine):
    ops = [snapshot("before"), {"op": "create_file", "path": "/t/large", "kib": machine.total_kib, "fs": "tmpfs"}, snapshot("full"),
           {"op": "unlink", "path": "/t/large"}, snapshot("after")]

    def check(test, answers):
        test.assertAlmostEqual(answers.pairs("full/meminfo")["Shmem"], machine.total_kib // 2, delta=4)
        test.assertEqual(answers.change("Shmem", "after"), 0)

    return {}, ops, check


@case
def file_beyond_its_end(machine):
    """The last whole page of the file is there, the next one is SIGBUS."""
    ops = [start("p"), mmap("p", 17 << 10, 0, "file_shared", file="/e/data16m"), touch("p", 16 << 10, wr=False),
           touch("p", 17 << 10, wr=False)]
    return {}, ops, lambda test, answers: test.assertEqual(answers.killed(), ["p"])


@case
def refused_writes(machine):
    invalid, absent, denied = "Invalid argument", "No such file or directory", "Permission denied"
    wanted = [
        (sysctl("swappiness", 201), invalid),
        (sysctl("overcommit_memory", 3), invalid),
        (sysctl("nothing", 1), absent),
        (sysctl("drop_caches", 5), invalid),
        (sysctl("watermark_scale_factor", 0), invalid),
        (write("/sys/kernel/mm/ksm/run", 3), invalid),
        (write("/sys/kernel/mm/ksm/pages_shared", 1), denied),
        (write("/sys/kernel/mm/transparent_hugepage/enabled", "sometimes"), invalid),
        (MEMORY_CONTROLLER, ""),
        (write("/cg/a/memory.max", "much"), invalid),
        (write("/cg/a/memory.current", 0), denied),
        (write("/cg/a/memory.nothing", 0), absent),
        (write("/cg/memory.max", 0), absent),
        (write("/cg/a/memory.reclaim", "1M"), "Resource temporarily unavailable"),
    ]
    return {}, [op for op, _ in wanted], lambda test, answers: test.assertEqual(answers.errors(), [error for _, error in wanted])


def bookkeeping(test, answers):
    """Identities that hold whatever was done."""
    for folder in sorted(os.listdir(answers.folder)):
        if not os.path.exists(os.path.join(answers.folder, folder, "meminfo")):
            continue
        m = answers.pairs(folder + "/meminfo")
        for kind in ("Active", "Inactive"):
            test.assertEqual(m[kind], m[f"{kind}(anon)"] + m[f"{kind}(file)"], folder)
        test.assertEqual(m["Slab"], m["SReclaimable"] + m["SUnreclaim"], folder)
        test.assertLessEqual(m["MemFree"], m["MemTotal"], folder)
        test.assertLessEqual(m["MemAvailable"], m["MemTotal"], folder)
        test.assertLessEqual(m["SwapFree"], m["SwapTotal"], folder)
        used = sum(int(line.split()[3]) for line in answers.text(folder + "/swaps").splitlines()[1:])
        test.assertEqual(m["SwapTotal"] - m["SwapFree"], used, folder)


class ScenarioRules(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.checks = {}
        with tarfile.open(RECORDED) as tar:
            for name, scenario in MACHINES.items():
                header = json.loads(tar.extractfile(f"system/{name}/{scenario}/script.jsonl").readline())
                machine = Machine(name, header)
                for function in CASES:
                    changes, ops, check = function(machine)
                    place = f"{name}/{function.__name__}"
                    cls.write_script(place, {**header, "swap_devices": [], **changes, "name": function.__name__}, ops)
                    cls.checks[place] = check
        command = [os.path.join(BUILD, "bin", "mmlab"), "replay", "--in-process", "--answers", cls.path("answers"), cls.path("scripts")]
        cls.replay = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def path(cls, *parts):
        return os.path.join(cls.folder.name, *parts)

    @classmethod
    def write_script(cls, name, header, ops):
        os.makedirs(cls.path("scripts", name))
        with open(cls.path("scripts", name, "script.jsonl"), "w", encoding="utf-8") as f:
            for record in [header] + [{"kind": "op", **op} for op in [snapshot("start")] + ops]:
                f.write(json.dumps(record) + "\n")

    def test_all_are_performed(self):
        self.assertEqual(self.replay.returncode, 0, self.replay.stderr[-2000:])
        self.assertNotIn("not simulated", self.replay.stdout)

    def test_answers_follow_the_rules(self):
        for name, check in self.checks.items():
            with self.subTest(name):
                answers = Answers(self.path("answers", name))
                check(self, answers)
                bookkeeping(self, answers)


if __name__ == "__main__":
    unittest.main()
