#include "client/replay/observation.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

Json StatusJson(const v1::MemoryStatus& status) {
  return Json{{"vm_peak", status.vm_peak_bytes()},   {"vm_size", status.vm_size_bytes()},   {"vm_lck", status.vm_lck_bytes()},
              {"vm_pin", status.vm_pin_bytes()},     {"vm_hwm", status.vm_hwm_bytes()},     {"vm_rss", status.vm_rss_bytes()},
              {"rss_anon", status.rss_anon_bytes()}, {"rss_file", status.rss_file_bytes()}, {"rss_shmem", status.rss_shmem_bytes()},
              {"vm_data", status.vm_data_bytes()},   {"vm_stk", status.vm_stk_bytes()},     {"vm_exe", status.vm_exe_bytes()},
              {"vm_lib", status.vm_lib_bytes()},     {"vm_pte", status.vm_pte_bytes()},     {"vm_swap", status.vm_swap_bytes()}};
}

Json SmapsJson(const v1::VmArea& area) {
  const v1::Smaps& smaps = area.smaps();
  const std::pair<const char*, int64_t> fields[] = {{"rss", smaps.rss_bytes()},
                                                    {"pss", smaps.pss_bytes()},
                                                    {"pss_dirty", smaps.pss_dirty_bytes()},
                                                    {"shared_clean", smaps.shared_clean_bytes()},
                                                    {"shared_dirty", smaps.shared_dirty_bytes()},
                                                    {"private_clean", smaps.private_clean_bytes()},
                                                    {"private_dirty", smaps.private_dirty_bytes()},
                                                    {"referenced", smaps.referenced_bytes()},
                                                    {"anonymous", smaps.anonymous_bytes()},
                                                    {"lazy_free", smaps.lazy_free_bytes()},
                                                    {"anon_huge_pages", smaps.anon_huge_pages_bytes()},
                                                    {"shmem_pmd_mapped", smaps.shmem_pmd_mapped_bytes()},
                                                    {"file_pmd_mapped", smaps.file_pmd_mapped_bytes()},
                                                    {"shared_hugetlb", smaps.shared_hugetlb_bytes()},
                                                    {"private_hugetlb", smaps.private_hugetlb_bytes()},
                                                    {"swap", smaps.swap_bytes()},
                                                    {"swap_pss", smaps.swap_pss_bytes()},
                                                    {"locked", smaps.locked_bytes()}};
  Json json = Json::object();
  for (const auto& [name, value] : fields) {
    if (value != 0) json[name] = value;
  }
  json["vm_flags"] = area.vm_flags();
  return json;
}

}  // namespace

std::string Hex(uint64_t value) { return absl::StrFormat("0x%x", value); }

std::string RecordedFilePath(int index) { return index == kDevZeroIndex ? "/dev/zero" : absl::StrCat("/file", index); }

std::string BackingName(const std::string& backing) {
  if (backing.empty() || absl::StartsWith(backing, "[anon")) return "anon";
  if (backing.front() == '[') return backing.substr(1, backing.size() - 2);  // heap, stack, vvar, vdso
  if (backing == kSubjectPath) return "subject";
  if (backing == "/dev/zero") return absl::StrCat("file", kDevZeroIndex);
  if (absl::StartsWith(backing, "/dev/zero ")) return "shared_anon";
  if (absl::StartsWith(backing, "/SYSV")) return "sysv_shm";
  if (absl::StartsWith(backing, "/memfd:")) return "memfd";
  return backing.substr(1);
}

ProcessObserver::Seen ProcessObserver::Look(const v1::Process& process) {
  Seen seen;
  seen.status = StatusJson(process.status());
  seen.rss = Json{
      {"anon", process.resident().anon_bytes()}, {"file", process.resident().file_bytes()}, {"shmem", process.resident().shmem_bytes()}};
  seen.oom_score = process.oom_score();
  if (process.vm_areas_size() > kMostVmasListed) {
    seen.vma_count = process.vm_areas_size();
    return seen;
  }
  seen.vmas = Json::array();
  for (const v1::VmArea& area : process.vm_areas()) {
    seen.vmas.push_back(Json::array(
        {Hex(area.start_address()), Hex(area.end_address()), area.permissions(), area.offset_bytes(), BackingName(area.backing())}));
    seen.smaps[Hex(area.start_address())] = SmapsJson(area);
  }
  return seen;
}

Json ProcessObserver::Changes(const v1::Process& process) {
  Json changes;
  if (process.minor_faults() != minor_faults_) changes["minflt_delta"] = process.minor_faults() - minor_faults_;
  if (process.major_faults() != major_faults_) changes["majflt_delta"] = process.major_faults() - major_faults_;
  minor_faults_ = process.minor_faults();
  major_faults_ = process.major_faults();
  Seen now = Look(process);
  if (now.oom_score != last_.oom_score) changes["oom_score"] = now.oom_score;
  if (now.status != last_.status) changes["status"] = now.status;
  if (now.vmas != last_.vmas && !now.vmas.is_null()) changes["vmas"] = now.vmas;
  if (now.vma_count != last_.vma_count && !now.vma_count.is_null()) changes["vma_count"] = now.vma_count;
  Json smaps = Json::object();
  for (const auto& [start, entry] : now.smaps.items()) {
    const auto before = last_.smaps.find(start);
    if (before == last_.smaps.end() || *before != entry) smaps[start] = entry;
  }
  if (!smaps.empty()) changes["smaps"] = smaps;
  if (now.rss != last_.rss) changes["rss"] = now.rss;
  if (now.vmas.is_null()) now.smaps = last_.smaps;  // Not looked at: as they were last seen.
  last_ = std::move(now);
  return changes;
}

Json ProcessObserver::Initial(const v1::Process& process) {
  Json json = Changes(process);
  json.erase("minflt_delta");
  json.erase("majflt_delta");
  json["minflt"] = process.minor_faults();
  json["majflt"] = process.major_faults();
  return json;
}

}  // namespace mmlab
