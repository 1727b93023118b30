#ifndef MMLAB_SERVER_SERVICE_OPERATION_LIST_H_
#define MMLAB_SERVER_SERVICE_OPERATION_LIST_H_

// Every operation once: X(Name, field), where Name is the method, v1::NameRequest, v1::NameResponse and op::Name, and field its member of
// v1::Operation. From these lists come the unary methods of the services and the members of batches; what remains to be written for a new
// operation are its conversion and its checks (operation_converters.h).
#define MMLAB_PROCESS_OPERATIONS(X)        \
  X(CreateProcess, create_process)         \
  X(Exec, exec)                            \
  X(Fork, fork)                            \
  X(Exit, exit)                            \
  X(Mmap, mmap)                            \
  X(Munmap, munmap)                        \
  X(Mprotect, mprotect)                    \
  X(Mremap, mremap)                        \
  X(Madvise, madvise)                      \
  X(Mlock, mlock)                          \
  X(Munlock, munlock)                      \
  X(Mlockall, mlockall)                    \
  X(Munlockall, munlockall)                \
  X(Brk, brk)                              \
  X(Msync, msync)                          \
  X(Mincore, mincore)                      \
  X(Setrlimit, setrlimit)                  \
  X(SetVmaName, set_vma_name)              \
  X(WriteOomScoreAdj, write_oom_score_adj) \
  X(AccessMemory, access_memory)           \
  X(SwitchTo, switch_to)                   \
  X(Prctl, prctl)                          \
  X(Sbrk, sbrk)

#define MMLAB_MEMORY_OPERATIONS(X) X(WritePhysicalMemory, write_physical_memory)

#define MMLAB_FILE_OPERATIONS(X) \
  X(CreateFile, create_file)     \
  X(Open, open)                  \
  X(Pipe, pipe)                  \
  X(Close, close)                \
  X(MemfdCreate, memfd_create)   \
  X(Ftruncate, ftruncate)        \
  X(Pread, pread)                \
  X(Pwrite, pwrite)              \
  X(Shmget, shmget)              \
  X(Shmat, shmat)                \
  X(Shmdt, shmdt)                \
  X(ShmRemove, shm_remove)       \
  X(Unlink, unlink)              \
  X(Sync, sync)                  \
  X(Fsync, fsync)

#define MMLAB_SWAP_OPERATIONS(X) \
  X(Swapon, swapon)              \
  X(Swapoff, swapoff)

#define MMLAB_PAGE_REPLACEMENT_OPERATIONS(X) X(SetPageReplacement, set_page_replacement)

#define MMLAB_PAGE_OPERATIONS(X)        \
  X(AllocPages, alloc_pages)            \
  X(FreePages, free_pages)              \
  X(GetFreePages, get_free_pages)       \
  X(AllocPagesExact, alloc_pages_exact) \
  X(FreePagesExact, free_pages_exact)   \
  X(AllocPagesBulk, alloc_pages_bulk)   \
  X(FreePageList, free_page_list)       \
  X(SplitPage, split_page)              \
  X(DrainPages, drain_pages)            \
  X(CompactMemory, compact_memory)

#define MMLAB_SLAB_OPERATIONS(X)               \
  X(KmemCacheCreate, kmem_cache_create)        \
  X(KmemCacheDestroy, kmem_cache_destroy)      \
  X(KmemCacheShrink, kmem_cache_shrink)        \
  X(KmemCacheAlloc, kmem_cache_alloc)          \
  X(KmemCacheFree, kmem_cache_free)            \
  X(KmemCacheAllocBulk, kmem_cache_alloc_bulk) \
  X(KmemCacheFreeBulk, kmem_cache_free_bulk)   \
  X(WriteSlabinfo, write_slabinfo)             \
  X(WriteSlabMemory, write_slab_memory)        \
  X(Kmalloc, kmalloc)                          \
  X(Krealloc, krealloc)                        \
  X(Kfree, kfree)                              \
  X(Ksize, ksize)

#define MMLAB_KERNEL_ADDRESS_OPERATIONS(X) \
  X(Vmalloc, vmalloc)                      \
  X(Vfree, vfree)                          \
  X(Vmap, vmap)                            \
  X(Vunmap, vunmap)                        \
  X(GetVmArea, get_vm_area)                \
  X(Ioremap, ioremap)                      \
  X(Iounmap, iounmap)                      \
  X(VmMapRam, vm_map_ram)                  \
  X(VmUnmapRam, vm_unmap_ram)              \
  X(VmUnmapAliases, vm_unmap_aliases)      \
  X(Kmap, kmap)                            \
  X(Kunmap, kunmap)                        \
  X(KmapLocal, kmap_local)                 \
  X(KunmapLocal, kunmap_local)             \
  X(KmapFlushUnused, kmap_flush_unused)    \
  X(AllocPercpu, alloc_percpu)             \
  X(FreePercpu, free_percpu)

#define MMLAB_CGROUP_OPERATIONS(X) \
  X(CreateCgroup, create_cgroup)   \
  X(RemoveCgroup, remove_cgroup)   \
  X(WriteCgroupFile, write_cgroup_file)

#define MMLAB_MACHINE_OPERATIONS(X) \
  X(WriteSysctl, write_sysctl)      \
  X(WriteSysfs, write_sysfs)        \
  X(AdvanceTime, advance_time)

#define MMLAB_OPERATIONS(X)            \
  MMLAB_PROCESS_OPERATIONS(X)          \
  MMLAB_MEMORY_OPERATIONS(X)           \
  MMLAB_FILE_OPERATIONS(X)             \
  MMLAB_SWAP_OPERATIONS(X)             \
  MMLAB_PAGE_REPLACEMENT_OPERATIONS(X) \
  MMLAB_PAGE_OPERATIONS(X)             \
  MMLAB_SLAB_OPERATIONS(X)             \
  MMLAB_KERNEL_ADDRESS_OPERATIONS(X)   \
  MMLAB_CGROUP_OPERATIONS(X)           \
  MMLAB_MACHINE_OPERATIONS(X)

#endif  // MMLAB_SERVER_SERVICE_OPERATION_LIST_H_
