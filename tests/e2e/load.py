"""A small load for machines under observation: pages, slab objects and vmalloc areas taken and given back, processes that map, touch, fork
and end; on request one that takes all memory, until files are reclaimed and it is killed."""

PROT_READ, PROT_READ_WRITE = 1, 3
MAP_PRIVATE, MAP_PRIVATE_ANONYMOUS = 0x02, 0x22
TOUCH_READ, TOUCH_WRITE = 3, 4
FILE_SYSTEM_EXT4, FILE_SYSTEM_BLOCK_DEVICE = 2, 3
SWAP_DEVICE, SWAP_BYTES = "/dev/sdb", 32 << 20
CGROUP = "workers"
PROGRAMS = ("worker", "squeezed", "reader", "hog")  # What a program is called names its tasks.
PT_LOAD, PF_READ_EXECUTE = 1, 5


class Load:
    def __init__(self, api, machine, base_address):
        self.api = api
        self.machine = machine
        self.steps = 0
        self.pages = []
        self.kernel_memory = []  # (kfree or vfree, address)
        header = {"type": PT_LOAD, "virtual_address": base_address, "file_size_bytes": 4096, "memory_size_bytes": 4096,
                  "flags": PF_READ_EXECUTE, "align_bytes": 4096}
        self.image = {"entry_address": base_address, "program_headers": [header]}
        api.batch(machine, [("create_file", {"path": f"/bin/{name}", "size_bytes": 4096}) for name in PROGRAMS])
        self._one("create_file", path=SWAP_DEVICE, size_bytes=SWAP_BYTES, file_system=FILE_SYSTEM_BLOCK_DEVICE)
        self._one("swapon", path=SWAP_DEVICE)
        self._one("write_cgroup_file", file="cgroup.subtree_control", value="+memory")
        self._one("create_cgroup", cgroup=CGROUP)
        self._one("write_cgroup_file", cgroup=CGROUP, file="memory.max", value="64M")

    def step(self):
        """About forty operations; every outcome must be what a healthy machine answers."""
        self.steps += 1
        self._take_and_give_pages()
        self._take_and_give_kernel_memory()
        self._run_a_process()

    def squeeze(self, megabytes):
        """A process in a memory cgroup touches four times what that may have: the rest goes to swap."""
        pid = self._start("squeezed")
        self._one("create_cgroup", cgroup="small")
        self._one("write_cgroup_file", cgroup="small", file="memory.max", value=f"{megabytes}M")
        self._one("write_cgroup_file", cgroup="small", file="cgroup.procs", value=str(pid))
        address = self._one("mmap", pid=pid, length_bytes=megabytes << 22, prot=PROT_READ_WRITE, flags=MAP_PRIVATE_ANONYMOUS, fd=-1).value
        self._one("access_memory", pid=pid, kind=TOUCH_WRITE, address=address, length_bytes=megabytes << 22)
        self._one("exit", pid=pid)
        self._one("remove_cgroup", cgroup="small")

    def exhaust(self, megabytes):
        """Fills the page cache, then lets a process touch so much more memory that files are reclaimed and it is killed."""
        cached = megabytes // 4 << 20
        self.api.batch(self.machine, [("create_file", {"path": "/data", "size_bytes": cached, "file_system": FILE_SYSTEM_EXT4})])
        reader = self._start("reader")
        fd = self._one("open", pid=reader, path="/data").value
        mapped = self._one("mmap", pid=reader, length_bytes=cached, prot=PROT_READ, flags=MAP_PRIVATE, fd=fd).value
        self._one("access_memory", pid=reader, kind=TOUCH_READ, address=mapped, length_bytes=cached)
        self._one("exit", pid=reader)
        hog = self._start("hog")
        part = megabytes // 4 << 20
        for _ in range(6):
            address = self._one("mmap", pid=hog, length_bytes=part, prot=PROT_READ_WRITE, flags=MAP_PRIVATE_ANONYMOUS, fd=-1).value
            touched = self.api.batch(self.machine, [("access_memory", {"pid": hog, "kind": TOUCH_WRITE, "address": address, "length_bytes": part})])[0]
            if touched.HasField("signal"):
                assert touched.signal.name == "SIGKILL", touched
                return
        raise AssertionError(f"{self.machine}: nobody was killed")

    def _one(self, name, **fields):
        outcome = self.api.batch(self.machine, [(name, fields)])[0]
        assert outcome.error_number == 0 and not outcome.HasField("signal"), f"{self.machine}: {name}: {outcome}"
        return outcome

    def _take_and_give_pages(self):
        taken = self.api.batch(self.machine, [("alloc_pages", {"gfp": 1, "order": order}) for order in (0, 0, 1, 2, 3, 5)])
        given, self.pages = self.pages, [(outcome.value, order) for outcome, order in zip(taken, (0, 0, 1, 2, 3, 5))]
        if given:
            self.api.batch(self.machine, [("free_pages", {"pfn": pfn, "order": order}) for pfn, order in given])

    def _take_and_give_kernel_memory(self):
        sizes = (24, 100, 700, 3000)
        given, self.kernel_memory = self.kernel_memory, [("kfree", self._one("kmalloc", size_bytes=size, gfp=1).value) for size in sizes * 4]
        self.kernel_memory.append(("vfree", self._one("vmalloc", size_bytes=5 * 4096, gfp=1, caller="load").value))
        if given:
            self.api.batch(self.machine, [(name, {"address": address}) for name, address in given])

    def _start(self, comm):
        pid = self._one("create_process", comm=comm, uid=1000).value
        self._one("exec", pid=pid, image={"path": f"/bin/{comm}", **self.image}, arguments=[comm])
        return pid

    def _run_a_process(self):
        pid = self._start("worker")
        self._one("write_cgroup_file", cgroup=CGROUP, file="cgroup.procs", value=str(pid))
        address = self._one("mmap", pid=pid, length_bytes=64 * 4096, prot=PROT_READ_WRITE, flags=MAP_PRIVATE_ANONYMOUS, fd=-1).value
        self._one("access_memory", pid=pid, kind=TOUCH_WRITE, address=address, length_bytes=48 * 4096, value=self.steps % 256)
        child = self._one("fork", pid=pid).value
        self._one("access_memory", pid=child, kind=TOUCH_WRITE, address=address, length_bytes=16 * 4096, value=7)
        self._one("access_memory", pid=child, kind=TOUCH_READ, address=address, length_bytes=64 * 4096)
        self._one("exit", pid=child)
        self._one("munmap", pid=pid, address=address, length_bytes=32 * 4096)
        if self.steps % 3 == 0:
            self._one("exit", pid=pid)
