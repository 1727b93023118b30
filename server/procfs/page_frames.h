#ifndef MMLAB_SERVER_PROCFS_PAGE_FRAMES_H_
#define MMLAB_SERVER_PROCFS_PAGE_FRAMES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/base/address.h"

namespace mmlab {

class Machine;

// /proc/kpageflags, kpagecount and kpagecgroup: eight bytes, lowest first, for each page frame. Linux: fs/proc/page.c.
inline constexpr absl::string_view kFrameFiles[] = {"kpagecgroup", "kpagecount", "kpageflags"};
inline constexpr uint64_t kMaxFrameFileBytes = uint64_t{1} << 20;  // Of one read.

// stable_page_flags(): bits KPF_* of include/uapi/linux/kernel-page-flags.h. REQUIRES: below the machine's end_pfn().
uint64_t KpageFlags(const Machine& machine, Pfn pfn);

// page->flags of struct page. 0: none. REQUIRES: below the machine's end_pfn().
uint64_t PageFlagsWord(const Machine& machine, Pfn pfn);

// The names of these bits as tools/vm/page-types.c prints them: "uptodate", "lru", "mmap".
std::vector<std::string> KpageFlagNames(uint64_t bits);

// `path` below /proc.
bool IsFrameFile(absl::string_view path);
// The bytes from `offset` on, at most `length` of them; none beyond the end. REQUIRES: IsFrameFile(path); both multiples of 8.
std::string ReadFrameFile(const Machine& machine, absl::string_view path, uint64_t offset, uint64_t length);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCFS_PAGE_FRAMES_H_
