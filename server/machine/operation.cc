#include "server/machine/operation.h"

#include <iterator>

namespace mmlab {
namespace {

// In the order of the Operation variant.
constexpr const char* kNames[] = {
    "create_process",
    "exec",
    "fork",
    "exit",
    "mmap",
    "munmap",
    "mprotect",
    "mremap",
    "madvise",
    "mlock",
    "munlock",
    "mlockall",
    "munlockall",
    "brk",
    "msync",
    "mincore",
    "setrlimit",
    "set_vma_name",
    "write_oom_score_adj",
    "access_memory",
    "switch_to",
    "create_file",
    "open",
    "pipe",
    "close",
    "memfd_create",
    "ftruncate",
    "pread",
    "pwrite",
    "shmget",
    "shmat",
    "shmdt",
    "shm_remove",
    "alloc_pages",
    "free_pages",
    "get_free_pages",
    "alloc_pages_exact",
    "free_pages_exact",
    "alloc_pages_bulk",
    "free_page_list",
    "split_page",
    "drain_pages",
    "kmem_cache_create",
    "kmem_cache_destroy",
    "kmem_cache_shrink",
    "kmem_cache_alloc",
    "kmem_cache_free",
    "kmalloc",
    "krealloc",
    "kfree",
    "ksize",
    "vmalloc",
    "vfree",
    "vmap",
    "vunmap",
    "get_vm_area",
    "ioremap",
    "iounmap",
    "vm_map_ram",
    "vm_unmap_ram",
    "vm_unmap_aliases",
    "kmap",
    "kunmap",
    "kmap_local",
    "kunmap_local",
    "kmap_flush_unused",
    "write_sysctl",
    "advance_time",
    "write_sysfs",
    "set_thp_disable",
};
static_assert(std::size(kNames) == std::variant_size_v<Operation>);

}  // namespace

const char* OperationName(const Operation& operation) { return kNames[operation.index()]; }

}  // namespace mmlab
