"""A small load for machines under observation: pages taken and given back, processes that map, touch, fork and end."""

PROT_READ_WRITE = 3
MAP_PRIVATE_ANONYMOUS = 0x22
TOUCH_READ, TOUCH_WRITE = 3, 4
PROGRAM = "/bin/worker"
PT_LOAD, PF_READ_EXECUTE = 1, 5


class Load:
    def __init__(self, api, machine, base_address):
        self.api = api
        self.machine = machine
        self.steps = 0
        self.pages = []
        header = {"type": PT_LOAD, "virtual_address": base_address, "file_size_bytes": 4096, "memory_size_bytes": 4096,
                  "flags": PF_READ_EXECUTE, "align_bytes": 4096}
        self.image = {"path": PROGRAM, "entry_address": base_address, "program_headers": [header]}
        api.batch(machine, [("create_file", {"path": PROGRAM, "size_bytes": 4096})])

    def step(self):
        """About forty operations; every outcome must be what a healthy machine answers."""
        self.steps += 1
        self._take_and_give_pages()
        self._run_a_process()

    def _one(self, name, **fields):
        outcome = self.api.batch(self.machine, [(name, fields)])[0]
        assert outcome.error_number == 0 and not outcome.HasField("signal"), f"{self.machine}: {name}: {outcome}"
        return outcome

    def _take_and_give_pages(self):
        taken = self.api.batch(self.machine, [("alloc_pages", {"gfp": 1, "order": order}) for order in (0, 0, 1, 2, 3, 5)])
        given, self.pages = self.pages, [(outcome.value, order) for outcome, order in zip(taken, (0, 0, 1, 2, 3, 5))]
        if given:
            self.api.batch(self.machine, [("free_pages", {"pfn": pfn, "order": order}) for pfn, order in given])

    def _run_a_process(self):
        pid = self._one("create_process", comm="worker", uid=1000).value
        self._one("exec", pid=pid, image=self.image, arguments=["worker"])
        address = self._one("mmap", pid=pid, length_bytes=64 * 4096, prot=PROT_READ_WRITE, flags=MAP_PRIVATE_ANONYMOUS, fd=-1).value
        self._one("access_memory", pid=pid, kind=TOUCH_WRITE, address=address, length_bytes=48 * 4096, value=self.steps % 256)
        child = self._one("fork", pid=pid).value
        self._one("access_memory", pid=child, kind=TOUCH_WRITE, address=address, length_bytes=16 * 4096, value=7)
        self._one("access_memory", pid=child, kind=TOUCH_READ, address=address, length_bytes=64 * 4096)
        self._one("exit", pid=child)
        self._one("munmap", pid=pid, address=address, length_bytes=32 * 4096)
        if self.steps % 3 == 0:
            self._one("exit", pid=pid)
