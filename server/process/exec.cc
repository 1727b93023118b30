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
#include "server/process/exec_layout.h"
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
constexpr uint64_t kMaxFileOffset = uint64_t{1} << 40;

uint64_t Align(uint64_t value, uint64_t mask) { return (value + mask) & ~mask; }

// What is wrong with a file's program headers; null: nothing. Checked before anything is given up.
const char* HeadersFault(const ElfImage& image, uint64_t task_size, uint64_t page_mask) {
  bool any = false;
  for (const ProgramHeader& header : image.program_headers) {
    if (header.type != ProgramHeader::Type::kLoad) continue;
    any = true;
    if (header.filesz > header.memsz) return "a segment is larger in the file than in memory (p_filesz > p_memsz)";
    if (header.memsz > task_size || header.vaddr > task_size - header.memsz)
      return "a segment leaves user space (p_vaddr + p_memsz > TASK_SIZE)";
    if (header.filesz != 0 && ((header.vaddr ^ header.offset) & page_mask) != 0) {
      return "a segment's address and file offset lie differently in their pages";
    }
    if (header.offset >= kMaxFileOffset || header.filesz >= kMaxFileOffset) return "a segment lies beyond what a file can hold";
  }
  return any ? nullptr : "no PT_LOAD segment";
}

// elf_check_arch()
bool IsFor(const ElfImage& image, const Layout& layout) {
  if (image.machine == 0) return true;
  return layout.is_x86() ? image.machine == kElf386 : image.machine == kElfAarch64 || image.machine == kElfArm;
}

}  // namespace

// Argument and environment strings, as they lie below the top of the new stack.
struct Processes::ExecStack {
  ExecLayout layout;
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
void Processes::PickMmapLayout(const Process& process, AddressSpace& mm, const ExecLayout& layout, bool randomize) {
  const uint64_t random = randomize ? RandomPages(layout.mmap_random_bits) : 0;
  mm.mmap_legacy_base = VirtAddr(layout.unmapped_base + random);
  const uint64_t stack_limit = process.rlimit(RlimitKind::kStack).current;
  // An unlimited stack needs the bottom-up layout on ARM64 (mm/util.c); x86 looks at the sysctl alone.
  mm.top_down = !limits_.legacy_va_layout && (layout_.is_x86() || stack_limit != kRlimInfinity);
  Explanation* why = tracer_.explanation();
  if (!mm.top_down) {
    mm.mmap_base = mm.mmap_legacy_base;
    if (why != nullptr) {
      why->Add(StepKind::kAddressLayout, "mmap_base: bottom-up from TASK_UNMAPPED_BASE (vm.legacy_va_layout, or an unlimited stack)")
          .Address("mmap_base", mm.mmap_base)
          .Size("random", Bytes(random));
    }
    return;
  }
  const int page_shift = layout_.page_size.shift();
  const uint64_t pad = kStackGuardBytes + (randomize ? ((uint64_t{1} << layout.stack_random_bits) - 1) << page_shift : 0);
  const uint64_t word_max = layout_.word_bytes == 4 ? 0xffffffff : ~uint64_t{0};
  uint64_t gap = std::min(stack_limit, word_max);
  if (gap <= word_max - pad) gap += pad;
  gap = std::clamp(gap, kMinGap, layout.mmap_top / 6 * 5);
  mm.mmap_base = VirtAddr(Align(layout.mmap_top - gap - random, layout_.page_size.mask()));
  if (why != nullptr) {
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
  // The strings were written below STACK_TOP_MAX; moving the stack to its place leaves its page offset as it was.
  vma->pgoff = PageIndex((stack.layout.stack_top_max - (stack.top - strings_page)) >> layout_.page_size.shift());
  vma->flags = kStackFlags;
  if (layout_.kind == LayoutKind::kArm64) vma->flags |= kVmMteAllowed;
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

// Address of the program header table in memory: where the segment that holds it is mapped.
uint64_t Processes::ProgramHeaderAddress(const ElfImage& image, int word, uint64_t load_bias) const {
  const uint64_t table = word == 4 ? 52 : 64;  // e_phoff: behind the ELF header.
  for (const ProgramHeader& header : image.program_headers) {
    if (header.type == ProgramHeader::Type::kLoad && header.offset <= table && table - header.offset < header.filesz) {
      return table - header.offset + header.vaddr + load_bias;
    }
  }
  return load_bias;
}

// create_elf_tables(): argc, the pointers to the strings and the auxiliary vector below the strings.
Errno Processes::FinishStack(Process& process, const ElfImage& image, const ExecStack& stack, uint64_t load_bias,
                             uint64_t interpreter_base) {
  AddressSpace& mm = *process.mm;
  const int word = stack.layout.word_bytes;
  std::string platform(stack.layout.platform);
  platform.push_back('\0');
  const uint64_t platform_at = (stack.bottom_of_strings & ~uint64_t{15}) - platform.size();
  uint8_t random_bytes[16];
  for (uint8_t& byte : random_bytes) byte = static_cast<uint8_t>(random_.Next());
  const uint64_t random_at = platform_at - sizeof(random_bytes);
  MMLAB_TRY(WriteUser(process, mm, platform_at, platform.data(), platform.size()));
  MMLAB_TRY(WriteUser(process, mm, random_at, random_bytes, sizeof(random_bytes)));
  const uint64_t path_at = stack.top - layout_.word_bytes - stack.path.size() - 1;
  const uint64_t phdr_at = ProgramHeaderAddress(image, word, load_bias);
  // AT_* numbers of include/uapi/linux/auxvec.h, ARCH_DLINFO first.
  std::vector<std::pair<uint64_t, uint64_t>> auxv;
  if (stack.layout.vsyscall != 0) auxv.emplace_back(32, mm.vdso.raw() + stack.layout.vsyscall);
  auxv.emplace_back(33, mm.vdso.raw());
  if (stack.layout.min_sigstksz != 0) auxv.emplace_back(51, stack.layout.min_sigstksz);
  auxv.insert(auxv.end(), {{16, stack.layout.hwcap},
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
                           {26, stack.layout.hwcap2},
                           {31, path_at},
                           {15, platform_at},
                           {0, 0}});
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
  if (process->kernel_thread) return Refuse(Errno::kEINVAL, "a kernel thread executes nothing");
  const bool compat = layout_.kind == LayoutKind::kArm64 && image.machine == kElfArm;
  const ExecLayout layout = ExecLayoutOf(layout_, compat);
  for (const ElfImage* file : {&image, interpreter}) {
    if (file == nullptr) continue;
    if (files_.Find(file->path) == nullptr) return Refuse(Errno::kENOENT, "the machine has no such file");
    if (!IsFor(*file, layout_)) return Refuse(Errno::kENOEXEC, "a program for another kind of computer (e_machine)");
    if (file == interpreter && (interpreter->machine == kElfArm) != compat) {
      return Refuse(Errno::kENOEXEC, "program and interpreter are for different kinds of computers");
    }
    if (const char* fault = HeadersFault(*file, layout.task_size, layout_.page_size.mask())) return Refuse(Errno::kENOEXEC, fault);
  }

  // bprm_stack_limits(), copy_strings().
  ExecStack stack{layout, image.path, arguments, environment};
  for (const std::string& argument : arguments) stack.arguments_length += argument.size() + 1;
  stack.strings_length = stack.arguments_length;
  for (const std::string& variable : environment) stack.strings_length += variable.size() + 1;
  const uint64_t pointers = (std::max<uint64_t>(arguments.size(), 1) + environment.size()) * layout_.word_bytes;
  const uint64_t limit = std::max(std::min(kStackLimit / 4 * 3, process->rlimit(RlimitKind::kStack).current / 4), kArgMax);
  for (const auto* list : {&arguments, &environment}) {
    for (const std::string& text : *list) {
      if (text.size() + 1 > kMaxArgString) return Refuse(Errno::kE2BIG, "a string of more than 128 KiB");
    }
  }
  if (limit <= pointers || stack.strings_length > limit - pointers) {
    return Refuse(Errno::kE2BIG, "arguments and environment are longer than a quarter of RLIMIT_STACK");
  }

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
  mm->task_size = VirtAddr(layout.task_size);
  mm->compat = compat;
  if (process->mm != nullptr) mm->thp_disabled = process->mm->thp_disabled;
  DropMm(*process);
  // begin_new_exec(): the last part of the path names the task, in TASK_COMM_LEN bytes with the 0 behind it.
  const std::string comm = std::exchange(process->comm, image.path.substr(image.path.rfind('/') + 1, kCommBytes - 1));
  if (process->comm != comm) LeaveComm(*process, comm);
  process->objects.Exec(anon_vmas_->kernel_objects());
  process->mm = process->active_mm = mm;
  for (auto& [number, cpu] : cpus_) {
    if (cpu.current == process->pid) LoadMm(number, cpu, mm);
  }
  process->read_implies_exec = !stack_header && (layout_.is_x86() || compat);
  PickMmapLayout(*process, *mm, layout, randomize);

  stack.top = layout.stack_top;
  if (randomize) stack.top = (stack.top - RandomPages(layout.stack_random_bits) - random_.Below(8192)) & ~layout_.page_size.mask();
  stack.bottom_of_strings = stack.top - layout_.word_bytes - (image.path.size() + 1) - stack.strings_length;
  uint64_t load_bias = 0;
  uint64_t interpreter_base = 0;
  uint64_t elf_break = 0;
  Errno error = SetUpStack(*process, stack);
  LoadKind kind{.program = true, .with_interpreter = interpreter != nullptr, .randomize = randomize};
  if (error == Errno::kOk) error = LoadImage(*process, image, kind, layout, &load_bias, &elf_break);
  if (error == Errno::kOk && interpreter != nullptr) {
    kind.program = false;
    kind.program_was_moved = load_bias != 0;
    error = LoadImage(*process, *interpreter, kind, layout, &interpreter_base, nullptr);
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
    elf_break = layout.dyn_base;
    brk_moved = true;
  }
  const uint64_t page = layout_.page_size.bytes().raw();
  uint64_t start_brk = Align(elf_break, page - 1);
  if (limits_.randomize_va_space > 1) {
    if (!brk_moved) start_brk += page;
    start_brk += random_.Below(layout.brk_range >> layout_.page_size.shift()) << layout_.page_size.shift();
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
