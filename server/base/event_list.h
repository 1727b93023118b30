// Every event that a machine can tell of, by its tracepoint in Linux 6.1: group, name, and how trace_pipe prints its fields. The fields are
// the {name} places, in this order; an emitter gives their values in the same order.
//
//   {x}    a signed number           {x:x}  hexadecimal, without 0x       {x:p}  an address of the kernel: 8 digits, 16 on ARM64
//   {x:s}  text                      {x:8s} text, left in eight columns
//
// Pointers to `struct page` and `struct mm_struct` are hidden as the kernel hides them before it can hash: (____ptrval____). Append within
// a group; nothing depends on the order.
//
//   X(kind, group, name, print)
MMLAB_EVENT(kMmPageAlloc, "kmem", "mm_page_alloc",
            "page=(____ptrval____) pfn=0x{pfn:x} order={order} migratetype={migratetype} gfp_flags={gfp_flags:s}")
MMLAB_EVENT(kMmPageFree, "kmem", "mm_page_free", "page=(____ptrval____) pfn=0x{pfn:x} order={order}")
MMLAB_EVENT(kMmPageFreeBatched, "kmem", "mm_page_free_batched", "page=(____ptrval____) pfn=0x{pfn:x} order=0")
MMLAB_EVENT(kMmPageAllocZoneLocked, "kmem", "mm_page_alloc_zone_locked",
            "page=(____ptrval____) pfn=0x{pfn:x} order={order} migratetype={migratetype} percpu_refill={percpu_refill}")
MMLAB_EVENT(kMmPagePcpuDrain, "kmem", "mm_page_pcpu_drain", "page=(____ptrval____) pfn=0x{pfn:x} order={order} migratetype={migratetype}")
MMLAB_EVENT(
    kMmPageAllocExtfrag, "kmem", "mm_page_alloc_extfrag",
    "page=(____ptrval____) pfn=0x{pfn:x} alloc_order={alloc_order} fallback_order={fallback_order} pageblock_order={pageblock_order} "
    "alloc_migratetype={alloc_migratetype} fallback_migratetype={fallback_migratetype} fragmenting={fragmenting} "
    "change_ownership={change_ownership}")
MMLAB_EVENT(kKmalloc, "kmem", "kmalloc",
            "call_site={call_site:s} ptr={ptr:p} bytes_req={bytes_req} bytes_alloc={bytes_alloc} gfp_flags={gfp_flags:s} node={node} "
            "accounted={accounted:s}")
MMLAB_EVENT(kKfree, "kmem", "kfree", "call_site={call_site:s} ptr={ptr:p}")
MMLAB_EVENT(kKmemCacheAlloc, "kmem", "kmem_cache_alloc",
            "call_site={call_site:s} ptr={ptr:p} bytes_req={bytes_req} bytes_alloc={bytes_alloc} gfp_flags={gfp_flags:s} node={node} "
            "accounted={accounted:s}")
MMLAB_EVENT(kKmemCacheFree, "kmem", "kmem_cache_free", "call_site={call_site:s} ptr={ptr:p} name={name:s}")

MMLAB_EVENT(kPageFaultUser, "exceptions", "page_fault_user", "address=0x{address:x} ip=0x{ip:x} error_code=0x{error_code:x}")
MMLAB_EVENT(kVmUnmappedArea, "mmap", "vm_unmapped_area",
            "addr=0x{addr:x} err={err} total_vm=0x{total_vm:x} flags=0x{flags:x} len=0x{len:x} lo=0x{lo:x} hi=0x{hi:x} mask=0x{mask:x} "
            "ofs=0x{ofs:x}")

MMLAB_EVENT(kMmCompactionBegin, "compaction", "mm_compaction_begin",
            "zone_start=0x{zone_start:x} migrate_pfn=0x{migrate_pfn:x} free_pfn=0x{free_pfn:x} zone_end=0x{zone_end:x}, mode={mode:s}")
MMLAB_EVENT(kMmCompactionEnd, "compaction", "mm_compaction_end",
            "zone_start=0x{zone_start:x} migrate_pfn=0x{migrate_pfn:x} free_pfn=0x{free_pfn:x} zone_end=0x{zone_end:x}, mode={mode:s} "
            "status={status:s}")
MMLAB_EVENT(kMmCompactionIsolateMigratepages, "compaction", "mm_compaction_isolate_migratepages",
            "range=(0x{start_pfn:x} ~ 0x{end_pfn:x}) nr_scanned={nr_scanned} nr_taken={nr_taken}")
MMLAB_EVENT(kMmCompactionIsolateFreepages, "compaction", "mm_compaction_isolate_freepages",
            "range=(0x{start_pfn:x} ~ 0x{end_pfn:x}) nr_scanned={nr_scanned} nr_taken={nr_taken}")
MMLAB_EVENT(kMmCompactionMigratepages, "compaction", "mm_compaction_migratepages", "nr_migrated={nr_migrated} nr_failed={nr_failed}")
MMLAB_EVENT(kMmCompactionTryToCompactPages, "compaction", "mm_compaction_try_to_compact_pages",
            "order={order} gfp_mask={gfp_mask:s} priority={priority}")
MMLAB_EVENT(kMmCompactionFinished, "compaction", "mm_compaction_finished", "node={node} zone={zone:8s} order={order} ret={ret:s}")
MMLAB_EVENT(kMmCompactionSuitable, "compaction", "mm_compaction_suitable", "node={node} zone={zone:8s} order={order} ret={ret:s}")
MMLAB_EVENT(kMmCompactionDeferred, "compaction", "mm_compaction_deferred",
            "node={node} zone={zone:8s} order={order} order_failed={order_failed} consider={consider} limit={limit}")
MMLAB_EVENT(kMmCompactionDeferCompaction, "compaction", "mm_compaction_defer_compaction",
            "node={node} zone={zone:8s} order={order} order_failed={order_failed} consider={consider} limit={limit}")
MMLAB_EVENT(kMmCompactionDeferReset, "compaction", "mm_compaction_defer_reset",
            "node={node} zone={zone:8s} order={order} order_failed={order_failed} consider={consider} limit={limit}")
MMLAB_EVENT(kMmCompactionKcompactdSleep, "compaction", "mm_compaction_kcompactd_sleep", "nid={nid}")
MMLAB_EVENT(kMmCompactionWakeupKcompactd, "compaction", "mm_compaction_wakeup_kcompactd",
            "nid={nid} order={order} classzone_idx={classzone_idx:8s}")
MMLAB_EVENT(kMmCompactionKcompactdWake, "compaction", "mm_compaction_kcompactd_wake",
            "nid={nid} order={order} classzone_idx={classzone_idx:8s}")

MMLAB_EVENT(kMmVmscanKswapdSleep, "vmscan", "mm_vmscan_kswapd_sleep", "nid={nid}")
MMLAB_EVENT(kMmVmscanKswapdWake, "vmscan", "mm_vmscan_kswapd_wake", "nid={nid} order={order}")
MMLAB_EVENT(kMmVmscanWakeupKswapd, "vmscan", "mm_vmscan_wakeup_kswapd", "nid={nid} order={order} gfp_flags={gfp_flags:s}")
MMLAB_EVENT(kMmVmscanDirectReclaimBegin, "vmscan", "mm_vmscan_direct_reclaim_begin", "order={order} gfp_flags={gfp_flags:s}")
MMLAB_EVENT(kMmVmscanDirectReclaimEnd, "vmscan", "mm_vmscan_direct_reclaim_end", "nr_reclaimed={nr_reclaimed}")
MMLAB_EVENT(kMmVmscanMemcgReclaimBegin, "vmscan", "mm_vmscan_memcg_reclaim_begin", "order={order} gfp_flags={gfp_flags:s}")
MMLAB_EVENT(kMmVmscanMemcgReclaimEnd, "vmscan", "mm_vmscan_memcg_reclaim_end", "nr_reclaimed={nr_reclaimed}")
MMLAB_EVENT(kMmVmscanLruIsolate, "vmscan", "mm_vmscan_lru_isolate",
            "isolate_mode={isolate_mode} classzone={classzone} order={order} nr_requested={nr_requested} nr_scanned={nr_scanned} "
            "nr_skipped={nr_skipped} nr_taken={nr_taken} lru={lru:s}")
MMLAB_EVENT(kMmVmscanWriteFolio, "vmscan", "mm_vmscan_write_folio", "page=(____ptrval____) pfn=0x{pfn:x} flags={flags:s}")
MMLAB_EVENT(kMmVmscanLruShrinkInactive, "vmscan", "mm_vmscan_lru_shrink_inactive",
            "nid={nid} nr_scanned={nr_scanned} nr_reclaimed={nr_reclaimed} nr_dirty={nr_dirty} nr_writeback={nr_writeback} "
            "nr_congested={nr_congested} nr_immediate={nr_immediate} nr_activate_anon={nr_activate_anon} "
            "nr_activate_file={nr_activate_file} nr_ref_keep={nr_ref_keep} nr_unmap_fail={nr_unmap_fail} priority={priority} "
            "flags={flags:s}")
MMLAB_EVENT(kMmVmscanLruShrinkActive, "vmscan", "mm_vmscan_lru_shrink_active",
            "nid={nid} nr_taken={nr_taken} nr_active={nr_active} nr_deactivated={nr_deactivated} nr_referenced={nr_referenced} "
            "priority={priority} flags={flags:s}")

MMLAB_EVENT(kMarkVictim, "oom", "mark_victim",
            "pid={pid} comm={comm:s} total-vm={total_vm}kB anon-rss={anon_rss}kB file-rss:{file_rss}kB shmem-rss:{shmem_rss}kB uid={uid} "
            "pgtables={pgtables}kB oom_score_adj={oom_score_adj}")
MMLAB_EVENT(kOomScoreAdjUpdate, "oom", "oom_score_adj_update", "pid={pid} comm={comm:s} oom_score_adj={oom_score_adj}")
MMLAB_EVENT(kReclaimRetryZone, "oom", "reclaim_retry_zone",
            "node={node} zone={zone:8s} order={order} reclaimable={reclaimable} available={available} min_wmark={min_wmark} "
            "no_progress_loops={no_progress_loops} wmark_check={wmark_check}")
MMLAB_EVENT(kCompactRetry, "oom", "compact_retry",
            "order={order} priority={priority:s} compaction_result={compaction_result:s} retries={retries} max_retries={max_retries} "
            "should_retry={should_retry}")

MMLAB_EVENT(kMmMigratePages, "migrate", "mm_migrate_pages",
            "nr_succeeded={nr_succeeded} nr_failed={nr_failed} nr_thp_succeeded={nr_thp_succeeded} nr_thp_failed={nr_thp_failed} "
            "nr_thp_split={nr_thp_split} mode={mode:s} reason={reason:s}")
MMLAB_EVENT(kMmKhugepagedScanPmd, "huge_memory", "mm_khugepaged_scan_pmd",
            "mm=(____ptrval____), scan_pfn=0x{pfn:x}, writable={writable}, referenced={referenced}, none_or_zero={none_or_zero}, "
            "status={status:s}, unmapped={unmapped}")
MMLAB_EVENT(kMmCollapseHugePage, "huge_memory", "mm_collapse_huge_page", "mm=(____ptrval____), isolated={isolated}, status={status:s}")

MMLAB_EVENT(kMmFilemapAddToPageCache, "filemap", "mm_filemap_add_to_page_cache",
            "dev {major}:{minor} ino {i_ino:x} pfn=0x{pfn:x} ofs={ofs} order={order}")
MMLAB_EVENT(kMmFilemapDeleteFromPageCache, "filemap", "mm_filemap_delete_from_page_cache",
            "dev {major}:{minor} ino {i_ino:x} pfn=0x{pfn:x} ofs={ofs} order={order}")
MMLAB_EVENT(kWritebackDirtyFolio, "writeback", "writeback_dirty_folio", "bdi {name:s}: ino={ino} index={index}")

MMLAB_EVENT(kTaskNewtask, "task", "task_newtask", "pid={pid} comm={comm:s} clone_flags={clone_flags:x} oom_score_adj={oom_score_adj}")
MMLAB_EVENT(kSchedProcessFork, "sched", "sched_process_fork", "comm={comm:s} pid={pid} child_comm={child_comm:s} child_pid={child_pid}")
MMLAB_EVENT(kSchedProcessExec, "sched", "sched_process_exec", "filename={filename:s} pid={pid} old_pid={old_pid}")
MMLAB_EVENT(kSchedProcessExit, "sched", "sched_process_exit", "comm={comm:s} pid={pid} prio={prio}")
