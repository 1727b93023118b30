#include "server/kernel/boot_caches.h"

#include <iterator>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"

namespace mmlab {
namespace {

constexpr SlabFlags kHw = kSlabHwcacheAlign;
constexpr SlabFlags kRcl = kSlabReclaimAccount;
constexpr SlabFlags kPanic = kSlabPanic;
constexpr SlabFlags kRcu = kSlabTypesafeByRcu;
constexpr SlabFlags kAcct = kSlabAccount;

// Which kernels have a cache, or have it in this shape.
enum Kernels : uint8_t { kPlain = 1, kPae = 2, kArm64 = 4, kX86 = kPlain | kPae, kAll = kX86 | kArm64 };

struct Row {
  uint8_t kernels;
  BootCache cache;
};

// In the order in which each kernel makes them.
constexpr Row kRows[] = {
    {kPlain, {"vmap_area", 32, 32, 8, kPanic, false, 0, 8}},
    {kArm64, {"vmap_area", 64, 64, 8, kPanic, false, 0, 7}},
    {kPae, {"pgd_cache", 32, 32, 32, kPanic, false, 0, 9}},
    {kX86, {"mm_struct", 564, 564, 64, kHw | kPanic | kAcct, false, 192, 1}},
    {kArm64, {"mm_struct", 952, 952, 64, kHw | kPanic | kAcct, false, 368, 1}},
    {kPlain, {"task_group", 384, 384, 64, 0, false, 0, 2}},
    {kPae, {"task_group", 384, 384, 64, 0, false, 0, 3}},
    {kArm64, {"task_group", 640, 640, 64, 0, false, 0, 2}},
    {kX86, {"radix_tree_node", 300, 300, 8, kRcl | kPanic, true, 0, 1}},
    {kArm64, {"radix_tree_node", 576, 576, 8, kRcl | kPanic, true, 0, 1}},
    {kX86, {"maple_node", 256, 256, 256, kPanic, false, 0, 3}},
    {kArm64, {"maple_node", 256, 256, 256, kPanic, false, 0, 5}},
    {kX86, {"ftrace_event_field", 36, 36, 8, kPanic, false, 0, 3}},
    {kArm64, {"ftrace_event_field", 56, 56, 8, kPanic, false, 0, 2}},
    {kX86, {"trace_event_file", 52, 56, 8, kPanic, false, 0, 4}},
    {kArm64, {"trace_event_file", 96, 96, 8, kPanic, false, 0, 1}},
    {kX86, {"perf_event", 848, 848, 8, kPanic, false, 0, 1}},
    {kArm64, {"perf_event", 1248, 1248, 8, kPanic, false, 0, 1}},
    {kArm64, {"numa_policy", 32, 32, 8, kPanic, false, 0, 3}},
    {kArm64, {"shared_policy_node", 48, 48, 8, kPanic, false, 0, 2}},
    {kX86, {"Acpi-State", 44, 48, 8, 0, false, 0, 5}},
    {kX86, {"pid", 56, 64, 64, kHw | kPanic | kAcct, false, 0, 6}},
    {kArm64, {"pid", 112, 128, 64, kHw | kPanic | kAcct, false, 0, 5}},
    {kX86, {"anon_vma", 52, 52, 8, kPanic | kRcu | kAcct, true, 0, 1}},
    {kArm64, {"anon_vma", 96, 96, 8, kPanic | kRcu | kAcct, true, 0, 1}},
    {kX86, {"anon_vma_chain", 32, 32, 8, kPanic | kAcct, false, 0, 4}},
    {kArm64, {"anon_vma_chain", 64, 64, 8, kPanic | kAcct, false, 0, 4}},
    {kX86, {"cred_jar", 128, 128, 64, kHw | kPanic | kAcct, false, 0, 2}},
    {kArm64, {"cred_jar", 176, 176, 64, kHw | kPanic | kAcct, false, 0, 1}},
    {kPlain, {"task_struct", 2944, 2944, 64, kPanic | kAcct, false, 512, 1}},
    {kPae, {"task_struct", 3008, 3008, 64, kPanic | kAcct, false, 512, 1}},
    {kArm64, {"task_struct", 4160, 4160, 64, kPanic | kAcct, false, 544, 1}},
    {kX86, {"sighand_cache", 1300, 1300, 64, kHw | kPanic | kRcu | kAcct, true, 0, 1}},
    {kArm64, {"sighand_cache", 2080, 2080, 64, kHw | kPanic | kRcu | kAcct, true, 0, 1}},
    {kX86, {"signal_cache", 728, 768, 64, kHw | kPanic | kAcct, false, 0, 4}},
    {kArm64, {"signal_cache", 1104, 1152, 64, kHw | kPanic | kAcct, false, 0, 3}},
    {kX86, {"files_cache", 256, 256, 64, kHw | kPanic | kAcct, false, 0, 1}},
    {kArm64, {"files_cache", 704, 704, 64, kHw | kPanic | kAcct, false, 0, 1}},
    {kPlain, {"vm_area_struct", 72, 72, 8, kPanic | kAcct, false, 0, 2}},
    {kPae, {"vm_area_struct", 76, 80, 8, kPanic | kAcct, false, 0, 2}},
    {kArm64, {"vm_area_struct", 152, 152, 8, kPanic | kAcct, false, 0, 1}},
    {kX86, {"nsproxy", 36, 36, 8, kPanic | kAcct, false, 0, 2}},
    {kArm64, {"nsproxy", 72, 72, 8, kPanic | kAcct, false, 0, 2}},
    {kX86, {"uts_namespace", 416, 416, 8, kPanic | kAcct, false, 390, 1}},
    {kArm64, {"uts_namespace", 432, 432, 8, kPanic | kAcct, false, 390, 1}},
    {kX86, {"key_jar", 132, 192, 64, kHw | kPanic, false, 0, 5}},
    {kX86, {"lsm_file_cache", 12, 16, 8, kPanic, false, 0, 3}},
    {kArm64, {"lsm_file_cache", 24, 24, 8, kPanic, false, 0, 2}},
    {kX86, {"iint_cache", 72, 72, 8, kPanic, true, 0, 1}},
    {kArm64, {"iint_cache", 120, 120, 8, kPanic, true, 0, 1}},
    {kX86, {"net_namespace", 3264, 3264, 64, kPanic | kAcct, false, 0, 1}},
    {kArm64, {"net_namespace", 4480, 4480, 64, kPanic | kAcct, false, 0, 1}},
    {kAll, {"names_cache", 4096, 4096, 64, kHw | kPanic, false, 4096, 1}},
    {kX86, {"dentry", 128, 128, 8, kRcl | kPanic | kAcct, false, 36, 1}},
    {kArm64, {"dentry", 192, 192, 8, kRcl | kPanic | kAcct, false, 32, 1}},
    {kX86, {"inode_cache", 408, 408, 8, kRcl | kPanic | kAcct, true, 0, 1}},
    {kArm64, {"inode_cache", 632, 632, 8, kRcl | kPanic | kAcct, true, 0, 1}},
    {kX86, {"filp", 160, 168, 64, kHw | kPanic | kAcct, false, 0, 4}},
    {kArm64, {"filp", 224, 256, 64, kHw | kPanic | kAcct, false, 0, 4}},
    {kArm64, {"mnt_cache", 320, 320, 64, kHw | kPanic | kAcct, false, 0, 1}},
    {kX86, {"kernfs_node_cache", 76, 76, 8, kPanic, false, 0, 1}},
    {kArm64, {"kernfs_node_cache", 128, 128, 8, kPanic, false, 0, 2}},
    {kX86, {"kernfs_iattrs_cache", 64, 64, 8, kPanic, false, 0, 1}},
    {kArm64, {"kernfs_iattrs_cache", 88, 88, 8, kPanic, false, 0, 2}},
    {kX86, {"shmem_inode_cache", 480, 480, 8, kPanic | kAcct, true, 0, 1}},
    {kArm64, {"shmem_inode_cache", 776, 776, 8, kPanic | kAcct, true, 0, 1}},
    {kPlain, {"bdev_cache", 968, 968, 64, kHw | kRcl | kPanic | kAcct, true, 0, 1}},
    {kPae, {"bdev_cache", 976, 976, 64, kHw | kRcl | kPanic | kAcct, true, 0, 1}},
    {kArm64, {"bdev_cache", 1576, 1576, 64, kHw | kRcl | kPanic | kAcct, true, 0, 1}},
    {kX86, {"sigqueue", 48, 48, 8, kPanic | kAcct, false, 0, 4}},
    {kArm64, {"sigqueue", 80, 80, 8, kPanic | kAcct, false, 0, 3}},
    {kPae, {"seq_file", 72, 72, 8, kPanic | kAcct, false, 0, 1}},
    {kArm64, {"seq_file", 120, 120, 8, kPanic | kAcct, false, 0, 1}},
    {kX86, {"proc_inode_cache", 448, 448, 8, kRcl | kPanic | kAcct, true, 0, 1}},
    {kArm64, {"proc_inode_cache", 704, 704, 8, kRcl | kPanic | kAcct, true, 0, 1}},
    {kX86, {"pde_opener", 20, 20, 8, kPanic | kAcct, false, 0, 2}},
    {kArm64, {"pde_opener", 40, 40, 8, kPanic | kAcct, false, 0, 1}},
    {kX86, {"proc_dir_entry", 128, 128, 8, kPanic, false, 24, 1}},
    {kArm64, {"proc_dir_entry", 192, 192, 8, kPanic, false, 16, 1}},
    {kAll, {"taskstats", 416, 416, 8, kPanic, false, 0, 1}},
    {kX86, {"buffer_head", 60, 60, 8, kRcl | kPanic, false, 0, 1}},
    {kArm64, {"buffer_head", 104, 104, 8, kRcl | kPanic, false, 0, 1}},
    {kX86, {"fsnotify_mark_connector", 24, 24, 8, kPanic, false, 0, 2}},
    {kX86, {"file_lock_cache", 124, 128, 8, kPanic, false, 0, 9}},
    {kArm64, {"file_lock_cache", 216, 216, 8, kPanic, false, 0, 1}},
    {kX86, {"skbuff_head_cache", 192, 192, 64, kHw | kPanic, false, 48, 1}},
    {kArm64, {"skbuff_head_cache", 232, 232, 64, kHw | kPanic, false, 48, 1}},
    {kX86, {"skbuff_fclone_cache", 392, 448, 64, kHw | kPanic, false, 0, 2}},
    {kArm64, {"skbuff_fclone_cache", 464, 512, 64, kHw | kPanic, false, 0, 2}},
    {kArm64, {"skbuff_ext_cache", 160, 184, 64, kHw | kPanic, false, 0, 9}},
    {kX86, {"sock_inode_cache", 576, 576, 64, kHw | kRcl | kAcct, true, 0, 1}},
    {kArm64, {"sock_inode_cache", 768, 768, 64, kHw | kRcl | kAcct, true, 0, 1}},
    {kArm64, {"dmaengine-unmap-128", 1056, 1056, 64, kHw, false, 0, 1}},
    {kArm64, {"dmaengine-unmap-256", 2080, 2080, 64, kHw, false, 0, 1}},
    {kX86, {"user_namespace", 412, 412, 8, kPanic | kAcct, false, 0, 1}},
    {kArm64, {"user_namespace", 624, 624, 8, kPanic | kAcct, false, 0, 1}},
    {kArm64, {"khugepaged_mm_slot", 112, 112, 8, 0, false, 0, 1}},
    {kPlain, {"biovec-64", 768, 768, 64, kHw | kPanic, false, 0, 1}},
    {kPae, {"biovec-64", 768, 768, 64, kHw | kPanic, false, 0, 2}},
    {kArm64, {"biovec-64", 1024, 1024, 64, kHw | kPanic, false, 0, 2}},
    {kPlain, {"biovec-128", 1536, 1536, 64, kHw | kPanic, false, 0, 1}},
    {kPae, {"biovec-128", 1536, 1536, 64, kHw | kPanic, false, 0, 2}},
    {kArm64, {"biovec-128", 2048, 2048, 64, kHw | kPanic, false, 0, 2}},
    {kPlain, {"biovec-max", 3072, 3072, 64, kHw | kPanic, false, 0, 1}},
    {kPae, {"biovec-max", 3072, 3072, 64, kHw | kPanic, false, 0, 2}},
    {kArm64, {"biovec-max", 4096, 4096, 64, kHw | kPanic, false, 0, 2}},
    {kArm64, {"bio-192", 192, 192, 128, kHw | kRcu, false, 0, 1}},
    {kX86, {"bio-144", 144, 144, 64, kHw | kRcu, false, 0, 1}},
    {kX86, {"request_queue", 552, 552, 8, kPanic, false, 0, 1}},
    {kArm64, {"request_queue", 936, 936, 8, kPanic, false, 0, 1}},
    {kX86, {"request_queue_srcu", 756, 756, 8, kPanic, false, 0, 1}},
    {kArm64, {"request_queue_srcu", 1320, 1320, 8, kPanic, false, 0, 1}},
    {kPlain, {"sgpool-16", 320, 320, 64, kHw, false, 0, 1}},
    {kPlain, {"sgpool-32", 640, 640, 64, kHw, false, 0, 1}},
    {kPlain, {"sgpool-64", 1280, 1280, 64, kHw, false, 0, 1}},
    {kPlain, {"sgpool-128", 2560, 2560, 64, kHw, false, 0, 1}},
    {kX86, {"ep_head", 8, 8, 8, kPanic | kAcct, false, 0, 1}},
    {kArm64, {"ep_head", 16, 16, 8, kPanic | kAcct, false, 0, 1}},
    {kArm64, {"bio-256", 256, 256, 128, kHw | kRcu, false, 0, 1}},
    {kX86, {"bio-188", 188, 188, 64, kHw | kRcu, false, 0, 1}},
    {kX86, {"dquot", 156, 156, 64, kHw | kRcl | kPanic, false, 0, 1}},
    {kArm64, {"dquot", 208, 208, 64, kHw | kRcl | kPanic, false, 0, 1}},
    {kX86, {"hugetlbfs_inode_cache", 416, 416, 8, kAcct, true, 0, 1}},
    {kArm64, {"hugetlbfs_inode_cache", 656, 656, 8, kAcct, true, 0, 1}},
    {kX86, {"TCP", 1768, 1768, 64, kHw | kRcu | kAcct, false, 0, 1}},
    {kArm64, {"TCP", 2240, 2240, 64, kHw | kRcu | kAcct, false, 0, 1}},
    {kX86, {"request_sock_TCP", 232, 232, 8, kRcu | kAcct, false, 0, 1}},
    {kArm64, {"request_sock_TCP", 304, 304, 8, kRcu | kAcct, false, 0, 1}},
    {kX86, {"tw_sock_TCP", 200, 200, 8, kRcu | kAcct, false, 0, 1}},
    {kArm64, {"tw_sock_TCP", 264, 264, 8, kRcu | kAcct, false, 0, 1}},
    {kX86, {"UDP", 896, 896, 64, kHw | kAcct, false, 0, 3}},
    {kX86, {"RAW", 744, 744, 64, kHw | kAcct, false, 4, 1}},
    {kArm64, {"RAW", 1000, 1000, 64, kHw | kAcct, false, 4, 1}},
    {kArm64, {"PING", 992, 1024, 64, kHw | kAcct, false, 0, 3}},
    {kArm64, {"ip_fib_alias", 56, 56, 8, kPanic | kAcct, false, 0, 1}},
    {kArm64, {"ip_fib_trie", 48, 48, 8, kPanic | kAcct, false, 0, 2}},
    {kX86, {"xfrm_state", 540, 540, 64, kHw | kPanic, false, 0, 1}},
    {kArm64, {"xfrm_state", 736, 736, 64, kHw | kPanic, false, 0, 1}},
    {kArm64, {"xfrm_dst_cache", 304, 304, 64, kHw | kPanic, false, 0, 1}},
    {kX86, {"request_sock_subflow_v4", 288, 288, 8, kRcu | kAcct, false, 0, 1}},
    {kArm64, {"request_sock_subflow_v4", 376, 376, 8, kRcu | kAcct, false, 0, 1}},
    {kX86, {"MPTCP", 1440, 1440, 64, kHw | kRcu | kAcct, false, 0, 1}},
    {kArm64, {"MPTCP", 1912, 1912, 64, kHw | kRcu | kAcct, false, 0, 1}},
    {kX86, {"ip4-frags", 136, 136, 8, 0, false, 0, 1}},
    {kArm64, {"ip4-frags", 200, 200, 8, 0, false, 0, 1}},
    {kX86, {"posix_timers_cache", 164, 164, 8, kPanic | kAcct, false, 0, 1}},
    {kPlain, {"pid_namespace", 80, 80, 8, kPanic | kAcct, false, 0, 1}},
    {kArm64, {"pid_namespace", 136, 136, 8, kPanic | kAcct, false, 0, 1}},
    {kArm64, {"audit_tree_mark", 80, 80, 8, kPanic, false, 0, 1}},
    {kArm64, {"dnotify_struct", 32, 32, 8, kPanic | kAcct, false, 0, 1}},
    {kArm64, {"fanotify_fid_event", 72, 72, 8, kPanic, false, 0, 2}},
    {kX86, {"userfaultfd_ctx_cache", 76, 76, 64, kHw | kPanic, true, 0, 1}},
    {kArm64, {"userfaultfd_ctx_cache", 128, 128, 64, kHw | kPanic, true, 0, 1}},
    {kArm64, {"kioctx", 576, 576, 64, kHw | kPanic, false, 0, 1}},
    {kX86, {"mqueue_inode_cache", 608, 608, 64, kHw | kAcct, true, 0, 1}},
    {kArm64, {"mqueue_inode_cache", 952, 952, 64, kHw | kAcct, true, 0, 1}},
    {kX86, {"bio-208", 208, 208, 64, kHw | kRcu, false, 0, 1}},
    {kX86, {"bio-96", 96, 96, 64, kHw | kRcu, false, 0, 1}},
    {kX86, {"TCPv6", 1880, 1880, 64, kHw | kRcu | kAcct, false, 0, 1}},
    {kArm64, {"TCPv6", 2400, 2400, 64, kHw | kRcu | kAcct, false, 0, 1}},
    {kX86, {"request_sock_TCPv6", 232, 232, 8, kRcu | kAcct, false, 0, 1}},
    {kArm64, {"request_sock_TCPv6", 304, 304, 8, kRcu | kAcct, false, 0, 1}},
    {kX86, {"tw_sock_TCPv6", 200, 200, 8, kRcu | kAcct, false, 0, 1}},
    {kArm64, {"tw_sock_TCPv6", 264, 264, 8, kRcu | kAcct, false, 0, 1}},
    {kX86, {"UDPv6", 1024, 1024, 64, kHw | kAcct, false, 0, 2}},
    {kArm64, {"UDPv6", 1344, 1344, 64, kHw | kAcct, false, 0, 2}},
    {kX86, {"RAWv6", 896, 896, 64, kHw | kAcct, false, 32, 1}},
    {kArm64, {"RAWv6", 1200, 1200, 64, kHw | kAcct, false, 32, 1}},
    {kArm64, {"PINGv6", 1200, 1200, 64, kHw | kAcct, false, 0, 1}},
    {kArm64, {"ip6-frags", 184, 184, 8, 0, false, 0, 1}},
    {kX86, {"request_sock_subflow_v6", 288, 288, 8, kRcu | kAcct, false, 0, 1}},
    {kArm64, {"request_sock_subflow_v6", 376, 376, 8, kRcu | kAcct, false, 0, 1}},
    {kX86, {"MPTCPv6", 1552, 1552, 64, kHw | kRcu | kAcct, false, 0, 1}},
    {kArm64, {"MPTCPv6", 2072, 2072, 64, kHw | kRcu | kAcct, false, 0, 1}},
    {kX86, {"fscrypt_info", 96, 96, 8, kRcl, false, 0, 1}},
    {kArm64, {"fscrypt_info", 128, 128, 8, kRcl, false, 0, 1}},
    {kX86, {"fsverity_info", 240, 240, 8, kRcl, false, 64, 1}},
    {kArm64, {"fsverity_info", 256, 256, 8, kRcl, false, 64, 1}},
    {kArm64, {"bio-128", 128, 128, 128, kHw | kRcu, false, 0, 1}},
};

uint8_t KernelOf(LayoutKind layout) {
  switch (layout) {
    case LayoutKind::kX86_32:
      return kPlain;
    case LayoutKind::kX86_32Pae:
      return kPae;
    case LayoutKind::kArm64:
      break;
  }
  return kArm64;
}

}  // namespace

static std::optional<SlabFlags> FlagsOfKmallocCache(const SlabPlatform& platform, absl::string_view name) {
  constexpr std::pair<absl::string_view, SlabFlags> kPrefixes[] = {
      {"dma-kmalloc-", kSlabCacheDma}, {"kmalloc-rcl-", kSlabReclaimAccount}, {"kmalloc-cg-", kSlabAccount}, {"kmalloc-", 0}};
  constexpr KmallocType kTypes[] = {KmallocType::kDma, KmallocType::kReclaim, KmallocType::kCgroup, KmallocType::kNormal};
  for (size_t i = 0; i < std::size(kPrefixes); ++i) {
    absl::string_view size = name;
    if (!absl::ConsumePrefix(&size, kPrefixes[i].first)) continue;
    uint64_t bytes = 0;
    const uint64_t unit = absl::ConsumeSuffix(&size, "k") ? 1024 : 1;
    if (!absl::SimpleAtoi(size, &bytes) || bytes == 0 || bytes > KmallocMaxCacheSize(platform) / unit) return std::nullopt;
    if (name != KmallocName(kTypes[i], KmallocIndex(platform, bytes * unit))) return std::nullopt;
    return kPrefixes[i].second;
  }
  return std::nullopt;
}

std::optional<SlabFlags> FlagsOfBootCache(const SlabPlatform& platform, LayoutKind layout, absl::string_view name) {
  using FlagsByName = absl::btree_map<absl::string_view, std::pair<uint8_t, SlabFlags>>;
  // By kernel and name; a cache may have another shape, but not other flags, in another kernel.
  static const FlagsByName* const kFlags = [] {
    auto* const flags = new FlagsByName{{"kmem_cache", {kAll, kSlabHwcacheAlign}}, {"kmem_cache_node", {kAll, kSlabHwcacheAlign}}};
    for (const Row& row : kRows) {
      const auto [entry, made] = flags->try_emplace(row.cache.name, uint8_t{0}, row.cache.flags);
      entry->second.first |= row.kernels;
    }
    return flags;
  }();
  const auto found = kFlags->find(name);
  if (found != kFlags->end() && (found->second.first & KernelOf(layout)) != 0) return found->second.second;
  return FlagsOfKmallocCache(platform, name);
}

std::vector<BootCache> BootCachesOf(LayoutKind layout) {
  std::vector<BootCache> caches;
  for (const Row& row : kRows) {
    if ((row.kernels & KernelOf(layout)) != 0) caches.push_back(row.cache);
  }
  return caches;
}

}  // namespace mmlab
