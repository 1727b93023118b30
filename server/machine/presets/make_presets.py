#!/usr/bin/env python3
"""Writes presets (*.textproto, v1.MachineSpec) from directories with the files of freshly booted machines.

    make_presets.py CAPTURES OUT

CAPTURES holds one directory a machine (686-1G, arm64-1G ...) with cmdline, version, dmesg, iomem, zoneinfo, HOW.txt, sys_vm/, and
firmware_memmap.tsv (x86) or debug_memblock/ (ARM64). The kernel's early reservations come from debug_memblock/reserved where there is one.
On x86 they come from the log of the capture <flavour>-1G-memblock-debug: the same allocations are done again, top down, with the sizes
that differ (memory map, per-CPU areas, hash tables) taken from this capture. What then still differs from the capture's managed pages is
one range of its own, named "residue".

The presets in this directory were written by it; run it again only for new captures.
"""

import re
import sys
from pathlib import Path

PAGE = 4096
MIB = 1 << 20
# x86: pages of SMP alternatives, right below .bss; free before the watermarks are computed. The init sections end where they begin.
SMP_ALTERNATIVES = 8


def parse_iomem(text):
    """Nodes [start, last, name, children]."""
    root = []
    stack = [(-1, root)]
    for line in text.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        where, name = line.strip().split(" : ", 1)
        start, last = (int(x, 16) for x in where.split("-"))
        while stack[-1][0] >= depth:
            stack.pop()
        node = [start, last, name, []]
        stack[-1][1].append(node)
        stack.append((depth, node[3]))
    return root


def zones(text):
    """zoneinfo: name -> figures."""
    out = {}
    for block in re.split(r"^Node 0, zone\s+", text, flags=re.M)[1:]:
        figures = {k: int(v) for k, v in re.findall(r"^\s+(spanned|present|managed)\s+(\d+)$", block, flags=re.M)}
        match = re.search(r"start_pfn:\s+(\d+)", block)
        figures["start"] = int(match.group(1)) if match else 0
        out[block.split()[0]] = figures
    return out


def kib(dmesg, pattern):
    match = re.search(pattern, dmesg)
    return int(match.group(1)) * 1024 if match else 0


class Memblock:
    """Top-down allocation among free byte ranges, as memblock does it."""

    def __init__(self, free):
        self.free = sorted(free)
        self.taken = []

    def take_out(self, start, end):
        out = []
        for a, b in self.free:
            if b <= start or end <= a:
                out.append((a, b))
                continue
            if a < start:
                out.append((a, start))
            if end < b:
                out.append((end, b))
        self.free = out

    def alloc(self, size, align, purpose):
        for a, b in reversed(self.free):
            start = (b - size) // align * align
            if start >= a:
                self.take_out(start, start + size)
                self.taken.append((start, start + size, purpose))
                return start
        raise ValueError(f"no room for {size} bytes of {purpose}")

    def release(self, start, end):
        self.taken = [t for t in self.taken if t[:2] != (start, end)]
        self.free = sorted(self.free + [(start, end)])
        joined = []
        for a, b in self.free:
            if joined and joined[-1][1] == a:
                joined[-1] = (joined[-1][0], b)
            else:
                joined.append((a, b))
        self.free = joined


def replay_early_allocations(debug_log, sizes, memblock):
    """The allocations between the memory map's and the page allocator's start, with other sizes."""
    purposes = [("memmap_alloc", "mem_map"), ("setup_usemap", "page block types"), ("pcpu_embed_first_chunk+0xc", "per-CPU areas"),
                ("alloc_large_system_hash", "hash"), ("alloc_low_pages", "page tables of cpu_entry_area")]
    names = {}
    lines = debug_log.splitlines()
    first = next(i for i, line in enumerate(lines) if "memmap_alloc" in line)
    hashes = iter([("dentry hash table", sizes["dentry"]), ("inode hash table", sizes["inode"])])
    usemaps = iter(sizes["usemaps"])
    firmware_entries = sizes["firmware_entries"]
    pending = {}
    for line in lines[first:]:
        match = re.search(r"memblock_(?:alloc_try_nid(?:_raw)?|phys_alloc_range): (\d+) bytes align=0x(\w+).* (\S+)$", line)
        if match:
            size, align, caller = int(match.group(1)), int(match.group(2), 16), match.group(3)
            purpose = next((p for key, p in purposes if key in caller), "boot structures")
            if purpose == "mem_map":
                size = sizes["mem_map"]
            elif purpose == "page block types":
                size = next(usemaps, 0)
            elif size == 135168:
                purpose, size = "per-CPU areas", 135168 * sizes["cpus"]
            elif purpose == "hash":
                purpose, size = next(hashes, ("boot structures", size))
            if "firmware_map_add_early" in caller:
                firmware_entries -= 1
                if firmware_entries < 0:
                    continue
            pending = {"size": size, "align": align, "purpose": purpose}
            continue
        match = re.search(r"memblock_reserve: \[0x(\w+)-0x(\w+)\] memblock_alloc_range_nid", line)
        if match and pending:
            if pending["size"]:
                names[int(match.group(1), 16)] = (memblock.alloc(pending["size"], pending["align"], pending["purpose"]), pending["size"])
            pending = {}
            continue
        match = re.search(r"memblock_phys_free: \[0x(\w+)-0x(\w+)\]", line)
        if match and int(match.group(1), 16) in names and int(match.group(2), 16) >= int(match.group(1), 16):
            start, size = names.pop(int(match.group(1), 16))
            memblock.release(start, start + size)


def join_boot_structures(ranges):
    """Small neighbours on the same page become one range."""
    out = []
    for start, end, purpose in sorted(ranges):
        if out and purpose == out[-1][2] == "boot structures" and start - out[-1][1] < PAGE and start // PAGE == (out[-1][1] - 1) // PAGE:
            out[-1] = (out[-1][0], end, purpose)
        else:
            out.append((start, end, purpose))
    return out


def pages_touched(ranges):
    pages = set()
    for start, end, *_ in ranges:
        pages.update(range(start // PAGE, (end + PAGE - 1) // PAGE))
    return pages


def x86_reservations(capture, captures, sections, firmware, zone, max_low, pageblock_order):
    dmesg = (capture / "dmesg").read_text()
    flavour = "686-pae" if capture.name.startswith("686-pae") else "686"
    debug_log = (captures / f"{flavour}-1G-memblock-debug" / "dmesg").read_text()
    brk = re.search(r"memblock_reserve: \[0x\w+-0x(\w+)\] setup_arch", debug_log)
    image_end = int(brk.group(1), 16) + 1
    bss = next(s for s in sections if s[2] == "Kernel bss")[0]
    init_end = bss - SMP_ALTERNATIVES * PAGE
    init_start = init_end - kib(dmesg, r"\(initmem\) memory: (\d+)K")
    image_start = sections[0][0]
    fixed = [(0, MIB, "low memory: real mode, BIOS"), (image_start, init_start, "kernel image"), (bss, image_end, "kernel bss and brk")]
    late = [(init_start, init_end, "init sections")]

    low_ram = [(max(a, MIB), min(b, max_low)) for a, b, kind in firmware if kind == "System RAM" and b > MIB and max(a, MIB) < max_low]
    memblock = Memblock([(a, b // PAGE * PAGE) for a, b in low_ram])
    memblock.take_out(image_start, image_end)
    moved = re.search(r"Allocated new RAMDISK: \[mem 0x(\w+)-0x(\w+)\]", dmesg)
    ramdisk = moved or re.search(r"RAMDISK: \[mem 0x(\w+)-0x(\w+)\]", dmesg)
    start, end = int(ramdisk.group(1), 16), (int(ramdisk.group(2), 16) + PAGE) // PAGE * PAGE
    memblock.take_out(start, end)
    late.append((start, end, "initramfs"))

    end_frame = max(b for a, b, kind in firmware if kind == "System RAM" and b <= (1 << (36 if "pae" in flavour else 32))) // PAGE
    usemaps = []
    for figures in zone.values():
        if figures["spanned"]:
            block = 1 << pageblock_order
            blocks = -(-(figures["spanned"] + figures["start"] % block) // block)
            usemaps.append(-(-blocks * 4 // 32) * 4)
    table = {k: int(v) for k, v in re.findall(r"(Dentry|Inode)[- ]cache hash table entries: \d+ \(order: \d+, (\d+) bytes", dmesg)}
    sizes = {"mem_map": -(-end_frame // 1024) * 1024 * 40, "usemaps": usemaps, "cpus": len(re.findall(r"^processor", (capture / "cpuinfo").read_text(), re.M)),
             "dentry": table["Dentry"], "inode": table["Inode"], "firmware_entries": len(firmware)}
    replay_early_allocations(debug_log, sizes, memblock)
    if "software IO TLB: mapped" in dmesg:  # Bounce buffers, and 16 bytes for each slot of 2 KiB.
        memblock.alloc(64 * MIB, PAGE, "software IO TLB")
        memblock.alloc(64 * MIB // 2048 * 16, PAGE, "software IO TLB slots")
    reserved = fixed + join_boot_structures(memblock.taken)

    # The capture's figure when the page allocator got its memory, before anything was freed late.
    ram_pages = set()
    for a, b, kind in firmware:
        if kind == "System RAM" and a < max_low:
            ram_pages.update(range(-(-a // PAGE), min(b, max_low) // PAGE))
    ram_pages.discard(0)
    kept = pages_touched(reserved) & ram_pages
    managed = sum(z["managed"] for name, z in zone.items() if name in ("DMA", "Normal"))
    residue = len(ram_pages) - len(kept) - managed
    return reserved, late, residue, memblock


def x86_add_residue(reserved, residue, memblock):
    """Makes the reserved pages as many as the capture shows; returns what was done, in words."""
    if residue == 0:
        return "none"
    if residue > 0:
        memblock.alloc(residue * PAGE, PAGE, "residue")
        reserved.append(memblock.taken[-1])
        return f"{residue} pages more are reserved than these rules find"
    raise ValueError(f"{-residue} pages too many are reserved")


def arm64_reservations(capture, sections, iomem, zone):
    dmesg = (capture / "dmesg").read_text()
    ranges = []
    for line in (capture / "debug_memblock" / "reserved").read_text().splitlines():
        start, end = re.search(r"0x(\w+)\.\.0x(\w+)", line).groups()
        ranges.append((int(start, 16), int(end, 16) + 1))
    cma = []
    match = re.search(r"cma: Reserved (\d+) MiB at 0x(\w+)", dmesg)
    if match:
        start = int(match.group(2), 16)
        cma.append((start, start + int(match.group(1)) * MIB))
    io_tlb = re.search(r"software IO TLB: mapped \[mem 0x(\w+)-0x(\w+)\]", dmesg)
    io_tlb = (int(io_tlb.group(1), 16), int(io_tlb.group(2), 16)) if io_tlb else (0, 0)
    children = [n for top in iomem if top[2] == "System RAM" for n in top[3]]
    code = next(n for n in children if n[2] == "Kernel code")
    data = next(n for n in children if n[2] == "Kernel data")
    init = (code[1] + 1, data[0])
    cpus = len(re.findall(r"^processor", (capture / "cpuinfo").read_text(), re.M))
    last = ranges[-1]
    reserved, late = [], [(*init, "init sections")]
    for start, end in ranges:
        pieces = [(start, end)]
        for cut in cma + [io_tlb, init]:
            pieces = [p for a, b in pieces for p in ((a, min(b, cut[0])), (max(a, cut[1]), b)) if p[0] < p[1]]
        for a, b in pieces:
            if a >= code[0] and b <= data[1] + 1:
                purpose = "kernel image"
            elif b - a == 31 * PAGE * cpus or (b - a > 31 * PAGE * cpus and a % PAGE and b % PAGE == 0 and b - a < 64 * PAGE * cpus):
                purpose = "per-CPU areas"
            elif a % (2 * MIB) == 0 and b % (2 * MIB) == 0:
                purpose = "mem_map"
            elif (a, b) == (last[0], last[1]):
                purpose = "page tables of the linear map"
            elif b - a == MIB and a % (2 * MIB) == 0:
                purpose = "device tree"
            elif b - a > 32 * PAGE:
                purpose = "hash tables" if a < last[0] - 0x40000 else "node and section structures"
            else:
                purpose = "boot structures"
            reserved.append((a, b, purpose))
    if io_tlb[1]:
        reserved.append((*io_tlb, "software IO TLB"))
    # The initramfs was given back in whole pages; its last page is not whole.
    freed = kib(dmesg, r"Freeing initrd memory: (\d+)K")
    for n in children:
        size = n[1] + 1 - n[0]
        if n[2] == "reserved" and freed <= size <= freed + PAGE and not any(a <= n[0] < b for a, b in ranges):
            late.append((n[0], n[0] + freed, "initramfs"))
            if size > freed:
                reserved.append((n[0] + freed, n[1] + 1, "initramfs, last page"))
    reserved = join_boot_structures(reserved)
    ram = sum(z["present"] for z in zone.values())
    residue = ram - len(pages_touched(reserved)) - sum(z["managed"] for z in zone.values())
    if residue:
        raise ValueError(f"{capture.name}: {residue} pages unexplained")
    return reserved, late, cma


def boot_slabs(capture):
    """Lines of slabinfo of the caches that have slabs, and the slab pages in no cache: large kmalloc()s."""
    account = {}
    for line in (capture / "slab_attrs.tsv").read_text().splitlines()[1:]:
        fields = line.split("\t")
        account[fields[0]] = fields[10] == "1"
    lines, unreclaimable = [], 0
    for line in (capture / "slabinfo").read_text().splitlines()[2:]:
        fields = line.split()
        slabs = int(fields[14])
        if slabs == 0:
            continue
        lines.append(" ".join(fields))
        if not account[fields[0]]:
            unreclaimable += slabs * int(fields[5])
    shown = int(re.search(r"^SUnreclaim:\s+(\d+) kB", (capture / "meminfo").read_text(), re.M).group(1)) * 1024 // PAGE
    return lines, max(shown - unreclaimable, 0)


def hexadecimal(value):
    return f"0x{value:x}"


def text(value):
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def write_node(out, node, indent):
    start, last, name, children = node
    head = f"{indent}{'children' if indent else 'iomem_resources'} {{ start_address: {hexadecimal(start)} last_address: {hexadecimal(last)} name: {text(name)}"
    if not children:
        out.append(head + " }")
        return
    out.append(head)
    for child in children:
        write_node(out, child, indent + "  ")
    out.append(indent + "}")


def make(capture, captures):
    arm64 = capture.name.startswith("arm64")
    pae = capture.name.startswith("686-pae")
    iomem = parse_iomem((capture / "iomem").read_text())
    zone = zones((capture / "zoneinfo").read_text())
    version = (capture / "version").read_text().strip()
    banner = re.match(r"Linux version (\S+) \((\S+)\) \((.*)\) (#.*)$", version)
    release, built_by, compiler, number = banner.groups()
    how = ", ".join((capture / "HOW.txt").read_text().strip().splitlines())
    sections = [n for top in iomem if top[2] == "System RAM" for n in top[3] if n[2].startswith("Kernel ")]
    cma, residue = [], "none"
    if arm64:
        firmware = []
        for line in (capture / "debug_memblock" / "memory").read_text().splitlines():
            start, end = re.search(r"0x(\w+)\.\.0x(\w+)", line).groups()
            firmware.append((int(start, 16), int(end, 16) + 1, "System RAM"))
        reserved, late, cma = arm64_reservations(capture, sections, iomem, zone)
        source = "debug_memblock/reserved (what stayed reserved), iomem and dmesg (what was freed late)"
    else:
        firmware = []
        for line in (capture / "firmware_memmap.tsv").read_text().splitlines():
            start, last, kind = line.split("\t")
            firmware.append((int(start, 16), int(last, 16) + 1, kind))
        max_low = int(re.search(r"low ram: 0 - (\w+)", (capture / "dmesg").read_text()).group(1), 16)
        reserved, late, residue_pages, memblock = x86_reservations(capture, captures, sections, firmware, zone, max_low, 9 if pae else 10)
        residue = x86_add_residue(reserved, residue_pages, memblock)
        source = "the memblock log of this flavour's 1 GiB machine, its allocations done again with this machine's sizes" \
            if "memblock-debug" not in capture.name else "dmesg (memblock=debug)"
    cpus = len(re.findall(r"^processor", (capture / "cpuinfo").read_text(), re.M))
    layout = "LAYOUT_ARM64" if arm64 else "LAYOUT_X86_32_PAE" if pae else "LAYOUT_X86_32"
    types = {"System RAM": "TYPE_RAM", "Reserved": "TYPE_RESERVED", "ACPI Tables": "TYPE_ACPI", "ACPI Non-volatile Storage": "TYPE_NVS",
             "Unusable memory": "TYPE_UNUSABLE"}

    out = [
        f"# proto-file: mmlab/v1/machine.proto",
        f"# proto-message: MachineSpec",
        f"#",
        f"# {capture.name}: a recorded boot of Linux {release}.",
        f"# Written by make_presets.py from the recording's files:",
        f"#   firmware_ranges    {'debug_memblock/memory' if arm64 else 'firmware_memmap.tsv'}",
        f"#   kernel_sections    iomem",
        f"#   iomem_resources    iomem, without RAM, firmware's own ranges{'' if arm64 else ' and the kernel'}{' and kernel sections' if arm64 else ''}",
        f"#   reserved_ranges    {source}",
        f"#   residue            {residue}",
        f"#   kernel, command_line, cpus    version, cmdline, cpuinfo",
        f"#   recorded           sys_vm, sys_kernel_threads_max, vmallocinfo, slabinfo, SUnreclaim of meminfo; managed pages of zoneinfo, as a check",
        f"layout: {layout}",
        f"cpus: {cpus}",
        "kernel {",
        f"  release: {text(release)}",
        f"  version: {text(number)}",
        f"  machine: {text('aarch64' if arm64 else 'i686')}",
        f"  built_by: {text(built_by)}",
        f"  compiler: {text(compiler)}",
        "}",
        f"command_line: {text((capture / 'cmdline').read_text().rstrip(chr(10)))}",
        "transparent_hugepage: TRANSPARENT_HUGEPAGE_NEVER",
        "",
    ]
    for start, end, kind in firmware:
        out.append(f"firmware_ranges {{ start_address: {hexadecimal(start)} end_address: {hexadecimal(end)} type: {types[kind]} }}")
    out.append("")
    for start, last, name, _ in sections:
        out.append(f"kernel_sections {{ start_address: {hexadecimal(start)} end_address: {hexadecimal(last + 1)} name: {text(name)} }}")
    out.append("")
    for start, end, purpose, freed in sorted([(*r, False) for r in reserved] + [(*r, True) for r in late]):
        tail = " freed_late: true" if freed else ""
        out.append(f"reserved_ranges {{ start_address: {hexadecimal(start)} end_address: {hexadecimal(end)} purpose: {text(purpose)}{tail} }}")
    for start, end in cma:
        out.append(f"cma_areas {{ start_address: {hexadecimal(start)} end_address: {hexadecimal(end)} name: \"cma\" }}")
    out.append("")
    firmware_names = set(types)
    for node in iomem:
        if node[2] in firmware_names:
            for child in node[3]:
                if not child[2].startswith("Kernel "):
                    write_node(out, child, "")
        else:
            write_node(out, node, "")
    out.append("")
    out.append("recorded {")
    for name in ("admin_reserve_kbytes", "user_reserve_kbytes"):
        out.append(f"  sysctls {{ key: \"vm.{name}\" value: {text((capture / 'sys_vm' / name).read_text().strip())} }}")
    out.append(f"  sysctls {{ key: \"kernel.threads-max\" value: {text((capture / 'sys_kernel_threads_max').read_text().strip())} }}")
    for name, figures in zone.items():
        if figures["managed"]:
            out.append(f"  managed_pages {{ key: {text(name)} value: {figures['managed']} }}")
    for line in (capture / "vmallocinfo").read_text().splitlines():
        out.append(f"  vmallocinfo: {text(line)}")
    slabs, large = boot_slabs(capture)
    for line in slabs:
        out.append(f"  slabinfo: {text(line)}")
    out.append(f"  large_kmalloc_pages: {large}")
    out.append(f"  how: {text(how)}")
    out.append("}")
    return "\n".join(out) + "\n", residue


def main():
    captures, target = Path(sys.argv[1]), Path(sys.argv[2])
    for capture in sorted(p for p in captures.iterdir() if (p / "zoneinfo").exists()):
        content, residue = make(capture, captures)
        (target / f"{capture.name}.textproto").write_text(content)
        print(f"{capture.name}: residue {residue}")


if __name__ == "__main__":
    main()
