#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/arch/layout.h"
#include "server/base/check.h"
#include "server/base/event.h"
#include "server/base/explanation.h"
#include "server/files/files.h"
#include "server/physical/contents.h"
#include "server/physical/physical_memory.h"
#include "server/process/address_space.h"
#include "server/process/commit_account.h"
#include "server/process/mm_call.h"
#include "server/process/paging.h"
#include "server/process/processes.h"

// exec: fs/exec.c, fs/binfmt_elf.c, the layouts of arch/x86/mm/mmap.c and mm/util.c, the vdso of both architectures.

namespace mmlab {
namespace {

constexpr uint64_t kStackGuardBytes = 256 << 12;
constexpr uint64_t kStackExpand = 131072;          // How far exec grows the stack beyond the arguments.
constexpr uint64_t kMaxArgString = 131072;         // MAX_ARG_STRLEN
constexpr uint64_t kArgMax = 131072;               // ARG_MAX
constexpr uint64_t kStackLimit = 8 << 20;          // _STK_LIM
constexpr uint64_t kMinGap = uint64_t{128} << 20;  // Between mmap_base and the top of the stack, at least.
constexpr uint64_t kStackFlags = kVmRead | kVmWrite | kVmMayRead | kVmMayWrite | kVmMayExec | kVmGrowsDown | kVmAccount;
constexpr uint32_t kMapFixedNoReplace = 0x100000;

// What ASLR may shift, in bits of pages: recorded in vm.mmap_rnd_bits and fixed in asm/elf.h.
int MmapRandomBits(const Layout& layout) { return layout.is_x86() ? 8 : 18; }
int StackRandomBits(const Layout& layout) { return layout.is_x86() ? 11 : 18; }

// ELF_ET_DYN_BASE: where position-independent programs go.
uint64_t DynBase(const Layout& layout) { return layout.is_x86() ? 0x400000 : layout.task_size.raw() / 3 * 2; }

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

// Whether each PT_LOAD segment stays in user space; checked before anything is given up.
bool HeadersSane(const ElfImage& image, uint64_t task_size) {
  bool any = false;
  for (const ProgramHeader& header : image.program_headers) {
    if (header.type != ProgramHeader::Type::kLoad) continue;
    any = true;
    if (header.filesz > header.memsz || header.memsz > task_size || header.vaddr > task_size - header.memsz) return false;
    if (((header.vaddr - header.offset) & 0xfff) != 0 && header.filesz != 0) return false;
    if (header.offset >= uint64_t{1} << 40) return false;
  }
  return any;
}

}  // namespace

// Argument and environment strings, as they lie below the top of the new stack.
struct Processes::ExecStack {
  std::string path;
  const std::vector<std::string>& arguments;
  const std::vector<std::string>& environment;
  uint64_t strings_length = 0;  // Of all of them with their NULs, without the path.
  uint64_t arguments_length = 0;
  bool executable = false;         // PT_GNU_STACK with PF_X.
  uint64_t top = 0;                // First address above the stack.
  uint64_t bottom_of_strings = 0;  // bprm->p
};

uint64_t Processes::RandomPages(int bits) { return (random_.Next() & ((uint64_t{1} << bits) - 1)) << layout_.page_size.shift(); }

// arch_pick_mmap_layout()
void Processes::PickMmapLayout(const Process& process, AddressSpace& mm, bool randomize) {
  const uint64_t task_size = mm.task_size.raw();
  const uint64_t random = randomize ? RandomPages(MmapRandomBits(layout_)) : 0;
  const uint64_t page_mask = layout_.page_size.mask();
  mm.mmap_legacy_base = VirtAddr(Align(task_size / (layout_.is_x86() ? 3 : 4), page_mask) + random);
  const uint64_t stack_limit = process.rlimit(RlimitKind::kStack).current;
  // An unlimited stack needs the bottom-up layout on ARM64 (mm/util.c); x86 looks at the sysctl alone.
  mm.top_down = !limits_.legacy_va_layout && (layout_.is_x86() || stack_limit != kRlimInfinity);
  if (!mm.top_down) {
    mm.mmap_base = mm.mmap_legacy_base;
    return;
  }
  const uint64_t pad = kStackGuardBytes + (randomize ? uint64_t{1} << (StackRandomBits(layout_) + layout_.page_size.shift()) : 0);
  const uint64_t word_max = layout_.word_bytes == 4 ? 0xffffffff : ~uint64_t{0};
  uint64_t gap = std::min(stack_limit, word_max);
  if (gap <= word_max - pad) gap += pad;
  gap = std::clamp(gap, kMinGap, task_size / 6 * 5);
  mm.mmap_base = VirtAddr(Align(task_size - gap - random, page_mask));
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kAddressLayout, "mmap_base: below the top of user space by the stack limit and its gap, at least 128 MiB")
        .Address("mmap_base", mm.mmap_base)
        .Size("gap", Bytes(gap))
        .Size("random", Bytes(random));
  }
}

// Copies bytes to where the kernel may write (get_user_pages, put_user), faulting pages in.
Errno Processes::WriteUser(Process& process, AddressSpace& mm, uint64_t address, const void* data, size_t size) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  while (size > 0) {
    VmArea* vma = mm.vmas.Lookup(VirtAddr(address));
    if (vma == nullptr) return Errno::kEFAULT;
    const uint64_t offset = address & layout_.page_size.mask();
    const size_t part = std::min<uint64_t>(size, layout_.page_size.bytes().raw() - offset);
    auto access = paging_->TryAccess(mm, VirtAddr(address), /*write=*/true, /*execute=*/false);
    if (access.verdict != PteVerdict::kAllowed) {
      const FaultOutcome outcome = paging_->HandleFault(process, *vma, VirtAddr(address), {.write = true, .execute = false, .user = false});
      if (outcome != FaultOutcome::kMinor && outcome != FaultOutcome::kMajor) return Errno::kEFAULT;
      access = paging_->TryAccess(mm, VirtAddr(address), /*write=*/true, /*execute=*/false);
      if (access.verdict != PteVerdict::kAllowed) return Errno::kEFAULT;
    }
    memory_.contents().Write(access.pfn, offset, bytes, part);
    bytes += part;
    address += part;
    size -= part;
  }
  return Errno::kOk;
}

// Makes the stack's VMA with the strings in it, then as large as exec leaves it: bprm_mm_init(), copy_strings(), setup_arg_pages().
Errno Processes::SetUpStack(Process& process, const ExecStack& stack) {
  AddressSpace& mm = *process.mm;
  MmCall call(Core(), process);
  auto vma = std::make_unique<VmArea>();
  vma->end = VirtAddr(stack.top);
  const uint64_t strings_page = stack.bottom_of_strings & ~layout_.page_size.mask();
  vma->start = VirtAddr(strings_page);
  vma->pgoff = PageIndex(strings_page >> layout_.page_size.shift());
  vma->flags = kStackFlags;
  if (stack.executable || process.read_implies_exec) vma->flags |= kVmExec;
  const auto pages = static_cast<int64_t>(vma->length().raw() >> layout_.page_size.shift());
  if (!commit_->Charge(pages)) return Errno::kENOMEM;
  mm.total_vm = mm.stack_vm = PageCount(static_cast<uint64_t>(pages));
  VmArea& area = *call.LinkVma(std::move(vma));

  std::string strings;
  for (const std::string& argument : stack.arguments) strings.append(argument).push_back('\0');
  for (const std::string& variable : stack.environment) strings.append(variable).push_back('\0');
  strings.append(stack.path).push_back('\0');
  // The pages that strings are copied to belong to an address space that is not yet the task's own: they are counted there at once.
  const std::shared_ptr<AddressSpace> own = std::exchange(process.mm, nullptr);
  const Errno error = WriteUser(process, *own, stack.bottom_of_strings, strings.data(), strings.size());
  process.mm = own;
  process.rss = TaskRss();  // exec_mmap() folds the task's small counters; from here they count for the new address space.
  MMLAB_TRY(error);

  const uint64_t limit = std::min(process.rlimit(RlimitKind::kStack).current, call.word_mask()) & ~layout_.page_size.mask();
  const uint64_t size = area.length().raw();
  const uint64_t base = size + kStackExpand > limit ? stack.top - std::min(limit, stack.top) : area.start.raw() - kStackExpand;
  mm.start_stack = VirtAddr(stack.bottom_of_strings);
  if (call.ExpandDownwards(area, base) != Errno::kOk) return Errno::kEFAULT;
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kAddressLayout, "stack: the strings, and 128 KiB more where RLIMIT_STACK allows")
        .Address("start", area.start)
        .Address("end", area.end);
  }
  return Errno::kOk;
}

// The PT_LOAD segments of one file (load_elf_binary(), load_elf_interp()).
Errno Processes::LoadImage(Process& process, const ElfImage& image, bool is_interpreter, bool with_interpreter, bool randomize,
                           uint64_t* load_bias, uint64_t* elf_break) {
  MmCall call(Core(), process);
  AddressSpace& mm = *process.mm;
  const uint64_t page_mask = layout_.page_size.mask();
  std::shared_ptr<Inode> inode = files_.Find(image.path);
  if (inode == nullptr) return Errno::kENOENT;
  const auto file = std::make_shared<OpenFile>(std::move(inode), true, false);
  const Span span = SpanOf(image, page_mask);
  uint64_t bias = 0;
  bool first = true;
  uint64_t start_code = ~uint64_t{0}, end_code = 0, start_data = 0, end_data = 0, end = 0;
  for (const ProgramHeader& header : image.program_headers) {
    if (header.type != ProgramHeader::Type::kLoad) continue;
    const uint32_t prot = ProtOf(header.flags);
    uint32_t flags = kMapPrivate | (first ? 0 : kMapFixed);
    uint64_t total = 0;
    if (first && !image.position_independent) {
      flags |= is_interpreter ? kMapFixed : kMapFixedNoReplace;
    } else if (first) {
      total = span.length;
      if (with_interpreter && !is_interpreter) {
        bias = DynBase(layout_) + (randomize ? RandomPages(MmapRandomBits(layout_)) : 0);
        if (span.alignment != 0) bias &= ~(span.alignment - 1);
        flags |= kMapFixedNoReplace;
        bias = (bias - header.vaddr) & ~page_mask;
      } else if (is_interpreter) {
        bias = (uint64_t{0} - header.vaddr) & ~page_mask;
      } else {
        bias = (uint64_t{0} - header.vaddr) & ~page_mask;
      }
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
  if (is_interpreter) return Errno::kOk;
  *elf_break = call.Wrap(end + bias);
  if (start_code == ~uint64_t{0}) start_code = 0;
  mm.start_code = VirtAddr(call.Wrap(start_code + bias));
  mm.end_code = VirtAddr(call.Wrap(end_code + bias));
  mm.start_data = VirtAddr(call.Wrap(start_data + bias));
  mm.end_data = VirtAddr(call.Wrap(end_data + bias));
  return Errno::kOk;
}

// arch_setup_additional_pages(): clock pages (vvar) below the code that reads them (vdso).
Errno Processes::InstallVdso(Process& process) {
  MmCall call(Core(), process);
  const uint64_t page = layout_.page_size.bytes().raw();
  const uint64_t vvar_pages = layout_.is_x86() ? 4 : 2;
  const uint64_t vdso_pages = layout_.is_x86() ? 2 : 1;
  MMLAB_TRY_ASSIGN(const uint64_t base, call.GetUnmappedArea(nullptr, 0, (vvar_pages + vdso_pages) * page, 0, 0));
  const uint64_t vdso = base + vvar_pages * page;
  uint64_t vvar_flags = kVmRead | kVmMayRead | kVmPfnMap;
  if (layout_.is_x86()) vvar_flags |= kVmIo | kVmDontDump;
  MMLAB_TRY(call.InstallSpecial(base, vvar_pages * page, vvar_flags, VmaBacking::kVvar));
  MMLAB_TRY(call.InstallSpecial(vdso, vdso_pages * page, kVmRead | kVmExec | kVmMayRead | kVmMayWrite | kVmMayExec, VmaBacking::kVdso));
  process.mm->vdso = VirtAddr(vdso);
  return Errno::kOk;
}

// create_elf_tables(): argc, the pointers to the strings and the auxiliary vector below the strings.
Errno Processes::FinishStack(Process& process, const ElfImage& image, const ExecStack& stack, uint64_t load_bias,
                             uint64_t interpreter_base) {
  AddressSpace& mm = *process.mm;
  const int word = layout_.word_bytes;
  std::string platform(layout_.is_x86() ? "i686" : "aarch64");
  platform.push_back('\0');
  const uint64_t platform_at = (stack.bottom_of_strings & ~uint64_t{15}) - platform.size();
  uint8_t random_bytes[16];
  for (uint8_t& byte : random_bytes) byte = static_cast<uint8_t>(random_.Next());
  const uint64_t random_at = platform_at - sizeof(random_bytes);
  MMLAB_TRY(WriteUser(process, mm, platform_at, platform.data(), platform.size()));
  MMLAB_TRY(WriteUser(process, mm, random_at, random_bytes, sizeof(random_bytes)));
  const uint64_t path_at = stack.top - word - stack.path.size() - 1;
  const uint64_t phdr_at = image.program_headers.empty() ? 0 : mm.start_code.raw() + (word == 4 ? 52 : 64);
  // AT_* numbers of include/uapi/linux/auxvec.h.
  std::vector<std::pair<uint64_t, uint64_t>> auxv = {{33, mm.vdso.raw()},
                                                     {16, 0},
                                                     {6, layout_.page_size.bytes().raw()},
                                                     {17, 100},
                                                     {3, phdr_at},
                                                     {4, word == 4 ? 32u : 56u},
                                                     {5, image.program_headers.size()},
                                                     {7, interpreter_base},
                                                     {8, 0},
                                                     {9, image.entry + load_bias},
                                                     {11, process.uid},
                                                     {12, process.uid},
                                                     {13, process.uid},
                                                     {14, process.uid},
                                                     {23, 0},
                                                     {25, random_at},
                                                     {26, 0},
                                                     {31, path_at},
                                                     {15, platform_at},
                                                     {0, 0}};
  mm.saved_auxv = auxv;
  std::vector<uint64_t> words;
  words.push_back(stack.arguments.size());
  uint64_t string_at = stack.bottom_of_strings;
  mm.arg_start = VirtAddr(string_at);
  for (const std::string& argument : stack.arguments) {
    words.push_back(string_at);
    string_at += argument.size() + 1;
  }
  words.push_back(0);
  mm.arg_end = mm.env_start = VirtAddr(string_at);
  for (const std::string& variable : stack.environment) {
    words.push_back(string_at);
    string_at += variable.size() + 1;
  }
  words.push_back(0);
  mm.env_end = VirtAddr(string_at);
  for (const auto& [kind, value] : auxv) {
    words.push_back(kind);
    words.push_back(value);
  }
  const uint64_t pointer = (random_at - words.size() * word) & ~uint64_t{15};
  std::string bytes;
  for (const uint64_t value : words) {
    for (int i = 0; i < word; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
  }
  MMLAB_TRY(WriteUser(process, mm, pointer, bytes.data(), bytes.size()));
  mm.start_stack = VirtAddr(pointer);
  return Errno::kOk;
}

SysResult<uint64_t> Processes::Exec(Pid pid, const ElfImage& image, const ElfImage* interpreter, const std::vector<std::string>& arguments,
                                    const std::vector<std::string>& environment) {
  Process* process = Enter(pid);
  if (process == nullptr) return Errno::kESRCH;
  if (process->kernel_thread) return Errno::kEINVAL;
  const uint64_t task_size = layout_.task_size.raw();
  if (files_.Find(image.path) == nullptr || (interpreter != nullptr && files_.Find(interpreter->path) == nullptr)) return Errno::kENOENT;
  if (!HeadersSane(image, task_size)) return Errno::kENOEXEC;
  if (interpreter != nullptr && !HeadersSane(*interpreter, task_size)) return Errno::kENOEXEC;

  // bprm_stack_limits(), copy_strings().
  ExecStack stack{image.path, arguments, environment};
  for (const std::string& argument : arguments) stack.arguments_length += argument.size() + 1;
  stack.strings_length = stack.arguments_length;
  for (const std::string& variable : environment) stack.strings_length += variable.size() + 1;
  const uint64_t pointers = (std::max<uint64_t>(arguments.size(), 1) + environment.size()) * layout_.word_bytes;
  const uint64_t limit = std::max(std::min(kStackLimit / 4 * 3, process->rlimit(RlimitKind::kStack).current / 4), kArgMax);
  for (const auto* list : {&arguments, &environment}) {
    for (const std::string& text : *list) {
      if (text.size() + 1 > kMaxArgString) return Errno::kE2BIG;
    }
  }
  if (limit <= pointers || stack.strings_length > limit - pointers) return Errno::kE2BIG;

  // Point of no return: what fails from here on ends the process. Other threads end, and a shared descriptor table is copied.
  process = &KillOtherThreads(*process);
  process->files = std::make_shared<DescriptorTable>(*process->files);
  const bool randomize = limits_.randomize_va_space != 0;
  bool stack_header = false;
  for (const ProgramHeader& header : image.program_headers) {
    if (header.type != ProgramHeader::Type::kGnuStack) continue;
    stack_header = true;
    stack.executable = (header.flags & 1) != 0;
  }
  std::shared_ptr<AddressSpace> mm = NewMm();
  if (mm == nullptr) return Errno::kENOMEM;
  mm->thp_disabled = process->mm != nullptr && process->mm->thp_disabled;
  DropMm(*process);
  process->mm = process->active_mm = mm;
  for (auto& [number, cpu] : cpus_) {
    if (cpu.current == process->pid) LoadMm(cpu, mm);
  }
  process->read_implies_exec = !stack_header && layout_.is_x86();
  PickMmapLayout(*process, *mm, randomize);

  stack.top = layout_.stack_top.raw();
  if (randomize) stack.top = (stack.top - RandomPages(StackRandomBits(layout_)) - random_.Below(8192)) & ~layout_.page_size.mask();
  stack.bottom_of_strings = stack.top - layout_.word_bytes - (image.path.size() + 1) - stack.strings_length;
  uint64_t load_bias = 0;
  uint64_t interpreter_base = 0;
  uint64_t elf_break = 0;
  Errno error = SetUpStack(*process, stack);
  if (error == Errno::kOk) error = LoadImage(*process, image, false, interpreter != nullptr, randomize, &load_bias, &elf_break);
  if (error == Errno::kOk && interpreter != nullptr) {
    error = LoadImage(*process, *interpreter, true, false, randomize, &interpreter_base, nullptr);
  }
  if (error == Errno::kOk) error = InstallVdso(*process);
  if (error == Errno::kOk) error = FinishStack(*process, image, stack, load_bias, interpreter_base);
  if (error != Errno::kOk) {
    Exit(process->pid, 0);
    return error;
  }
  // The heap: a loader run by itself keeps clear of the mmap area.
  bool brk_moved = false;
  if (image.position_independent && interpreter == nullptr) {
    elf_break = DynBase(layout_);
    brk_moved = true;
  }
  const uint64_t page = layout_.page_size.bytes().raw();
  uint64_t start_brk = Align(elf_break, page - 1);
  if (limits_.randomize_va_space > 1) {
    if (!brk_moved) start_brk += page;
    const uint64_t range = layout_.is_x86() ? uint64_t{32} << 20 : uint64_t{1} << 30;
    start_brk += random_.Below(range >> layout_.page_size.shift()) << layout_.page_size.shift();
  }
  mm->start_brk = mm->brk = VirtAddr(start_brk);
  if (Explanation* why = tracer_.explanation()) {
    why->Add(StepKind::kAddressLayout, "program, heap and entry")
        .Address("start_code", mm->start_code)
        .Address("start_brk", mm->start_brk)
        .Address("vdso", mm->vdso);
  }
  if (EventSink* events = tracer_.events()) events->Emit(EventKind::kSchedProcessExec, {image.path, process->pid.raw(), pid.raw()});
  return interpreter != nullptr ? interpreter->entry + interpreter_base : image.entry + load_bias;
}

}  // namespace mmlab
