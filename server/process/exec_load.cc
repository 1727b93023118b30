#include <algorithm>
#include <utility>

#include "server/arch/layout.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/process/address_space.h"
#include "server/process/exec_layout.h"
#include "server/process/mm_call.h"
#include "server/process/processes.h"

// What exec maps: the segments of program and interpreter (fs/binfmt_elf.c), the pages of the kernel (arch_setup_additional_pages()).

namespace mmlab {
namespace {

constexpr uint32_t kMapFixedNoReplace = 0x100000;

uint32_t ProtOf(uint32_t elf_flags) {
  return ((elf_flags & 4) != 0 ? kProtRead : 0) | ((elf_flags & 2) != 0 ? kProtWrite : 0) | ((elf_flags & 1) != 0 ? kProtExec : 0);
}

uint64_t Align(uint64_t value, uint64_t mask) { return (value + mask) & ~mask; }

// The address space that the PT_LOAD segments span; 0 when there are none.
struct Span {
  uint64_t first = 0;
  uint64_t length = 0;
  uint64_t alignment = 0;
};
Span SpanOf(const ElfImage& image, uint64_t page_mask) {
  uint64_t low = ~uint64_t{0};
  uint64_t high = 0;
  Span span;
  for (const ProgramHeader& header : image.program_headers) {
    if (header.type != ProgramHeader::Type::kLoad) continue;
    low = std::min(low, header.vaddr & ~page_mask);
    high = std::max(high, header.vaddr + header.memsz);
    const bool power_of_two = header.align != 0 && (header.align & (header.align - 1)) == 0;
    if (power_of_two) span.alignment = std::max(span.alignment, header.align);
  }
  if (high == 0) return span;
  span.first = low;
  span.length = high - low;
  span.alignment = Align(span.alignment, page_mask);
  return span;
}

}  // namespace

// Where the first segment of a position-independent file is asked for, less its own address: load_elf_binary(), load_elf_interp().
SysResult<uint64_t> Processes::ChooseLoadBias(MmCall& call, const std::shared_ptr<OpenFile>& file, const ElfImage& image, LoadKind kind,
                                              const ProgramHeader& first, const ExecLayout& layout, uint32_t* flags) {
  const uint64_t page_mask = layout_.page_size.mask();
  const Span span = SpanOf(image, page_mask);
  uint64_t bias = 0;
  if (kind.program && kind.with_interpreter) {
    bias = layout.dyn_base + (kind.randomize ? RandomPages(layout.mmap_random_bits) : 0);
    if (span.alignment != 0) bias &= ~(span.alignment - 1);
    *flags |= kMapFixedNoReplace;
  } else if (kind.program && span.alignment > page_mask + 1) {
    // A loader by itself that wants more than a page's alignment: a first mapping shows where there is room.
    uint64_t populate = 0;
    const uint64_t length = Align(span.length, page_mask);
    MMLAB_TRY_ASSIGN(bias, call.DoMmap(file, 0, length, ProtOf(first.flags), *flags, 0, &populate));
    MMLAB_TRY(call.DoMunmap(bias, length));
    bias &= ~(span.alignment - 1);
    *flags |= kMapFixedNoReplace;
  } else if (!kind.program && !kind.program_was_moved) {
    // The interpreter of a program with fixed addresses: its own address is a hint.
    return uint64_t{0};
  }
  return (bias - first.vaddr) & ~page_mask;
}

// The PT_LOAD segments of one file (load_elf_binary(), load_elf_interp()).
Errno Processes::LoadImage(Process& process, const ElfImage& image, const LoadKind& kind, const ExecLayout& layout, uint64_t* load_bias,
                           uint64_t* elf_break) {
  MmCall call(Core(), process);
  AddressSpace& mm = *process.mm;
  const uint64_t page_mask = layout_.page_size.mask();
  std::shared_ptr<Inode> inode = files_.Find(image.path);
  if (inode == nullptr) return Errno::kENOENT;
  const auto file = std::make_shared<OpenFile>(std::move(inode), true, false);
  file->Account(anon_vmas_->kernel_objects());
  if (kind.program) mm.exe_file = file;
  uint64_t bias = 0;
  bool first = true;
  uint64_t start_code = ~uint64_t{0}, end_code = 0, start_data = 0, end_data = 0, end = 0;
  for (const ProgramHeader& header : image.program_headers) {
    if (header.type != ProgramHeader::Type::kLoad) continue;
    const uint32_t prot = ProtOf(header.flags);
    uint32_t flags = kMapPrivate | (first ? 0 : kMapFixed);
    uint64_t total = 0;
    if (first && !image.position_independent) {
      flags |= kind.program ? kMapFixedNoReplace : kMapFixed;
    } else if (first) {
      total = SpanOf(image, page_mask).length;
      MMLAB_TRY_ASSIGN(bias, ChooseLoadBias(call, file, image, kind, header, layout, &flags));
    }
    const uint64_t address = call.Wrap(bias + header.vaddr);
    uint64_t mapped = address & ~page_mask;
    uint64_t file_end = mapped + (header.vaddr & page_mask);
    if (header.filesz != 0) {
      const uint64_t length = Align(header.filesz + (header.vaddr & page_mask), page_mask);
      const uint64_t pgoff = (header.offset - (header.vaddr & page_mask)) >> layout_.page_size.shift();
      uint64_t populate = 0;
      // The first segment of a position-independent file reserves room for all of them, then gives the rest back.
      const uint64_t wanted = total != 0 ? Align(total, page_mask) : length;
      MMLAB_TRY_ASSIGN(mapped, call.DoMmap(file, address & ~page_mask, wanted, prot, flags, pgoff, &populate));
      if (wanted > length) MMLAB_TRY(call.DoMunmap(mapped + length, wanted - length));
      file_end = mapped + (header.vaddr & page_mask) + header.filesz;
    }
    if (first && image.position_independent) bias = call.Wrap(bias + mapped - (address & ~page_mask));
    first = false;
    if (header.memsz > header.filesz) {
      // padzero(): the rest of the last page becomes zero where it may be written; then .bss in whole pages.
      const uint64_t partial = header.filesz != 0 ? (uint64_t{0} - file_end) & page_mask : 0;
      if (partial != 0 && (prot & kProtWrite) != 0) {
        const std::string zeros(partial, '\0');
        WriteUser(process, mm, file_end, zeros.data(), zeros.size());
      }
      const uint64_t bss_start = Align(file_end, page_mask);
      const uint64_t bss_end = Align(mapped + (header.vaddr & page_mask) + header.memsz, page_mask);
      if (bss_end > bss_start) MMLAB_TRY(call.VmBrk(bss_start, bss_end - bss_start, (prot & kProtExec) != 0));
    }
    if ((header.flags & 1) != 0) start_code = std::min(start_code, header.vaddr);
    start_data = std::max(start_data, header.vaddr);
    if ((header.flags & 1) != 0) end_code = std::max(end_code, header.vaddr + header.filesz);
    end_data = std::max(end_data, header.vaddr + header.filesz);
    end = std::max(end, header.vaddr + header.memsz);
  }
  *load_bias = bias;
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kAddressLayout, !image.position_independent ? "loaded at the addresses that the file names"
                                       : !kind.program             ? "the interpreter lies where mmap found room"
                                       : kind.with_interpreter     ? "a position-independent program lies at ELF_ET_DYN_BASE"
                                                                   : "a loader by itself lies where mmap found room")
        .Text("file", image.path)
        .Address("load_bias", VirtAddr(bias));
  }
  if (!kind.program) return Errno::kOk;
  *elf_break = call.Wrap(end + bias);
  if (start_code == ~uint64_t{0}) start_code = 0;
  mm.start_code = VirtAddr(call.Wrap(start_code + bias));
  mm.end_code = VirtAddr(call.Wrap(end_code + bias));
  mm.start_data = VirtAddr(call.Wrap(start_data + bias));
  mm.end_data = VirtAddr(call.Wrap(end_data + bias));
  return Errno::kOk;
}

// arch_setup_additional_pages(): clock pages (vvar) below the code that reads them (vdso); for 32-bit ARM programs the vectors' page at its
// fixed place before, and the page that signal handlers return through after them.
Errno Processes::InstallVdso(Process& process) {
  MmCall call(Core(), process);
  const uint64_t page = layout_.page_size.bytes().raw();
  const uint64_t vvar_pages = layout_.is_x86() ? 4 : 2;
  const uint64_t vdso_pages = layout_.is_x86() ? 2 : 1;
  constexpr uint64_t kCode = kVmRead | kVmExec | kVmMayRead | kVmMayExec;
  const bool compat = process.mm->compat;
  if (compat) MMLAB_TRY(call.InstallSpecial(ExecLayoutOf(layout_, true).stack_top, page, kCode, VmaBacking::kVectors));
  MMLAB_TRY_ASSIGN(const uint64_t base, call.GetUnmappedArea(nullptr, 0, (vvar_pages + vdso_pages) * page, 0, 0));
  const uint64_t vdso = base + vvar_pages * page;
  uint64_t vvar_flags = kVmRead | kVmMayRead | kVmPfnMap;
  if (layout_.is_x86()) vvar_flags |= kVmIo | kVmDontDump;
  MMLAB_TRY(call.InstallSpecial(base, vvar_pages * page, vvar_flags, VmaBacking::kVvar));
  MMLAB_TRY(call.InstallSpecial(vdso, vdso_pages * page, kCode | kVmMayWrite, VmaBacking::kVdso));
  process.mm->vdso = VirtAddr(vdso);
  if (!compat) return Errno::kOk;
  MMLAB_TRY_ASSIGN(const uint64_t sigpage, call.GetUnmappedArea(nullptr, 0, page, 0, 0));
  return call.InstallSpecial(sigpage, page, kCode | kVmMayWrite, VmaBacking::kSigpage);
}

}  // namespace mmlab
