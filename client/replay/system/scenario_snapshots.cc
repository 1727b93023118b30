#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/replay/system/scenario_player_state.h"
#include "client/replay/system/worker_program.h"
#include "server/base/status_macros.h"

// What is looked at in a scenario, and bringing the machine to where the recorded one was when it was first looked at.

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kMachineFiles[] = {"meminfo", "vmstat", "zoneinfo", "buddyinfo", "swaps", "pagetypeinfo", "slabinfo"};
constexpr const char* kKsmFiles[] = {"full_scans",
                                     "max_page_sharing",
                                     "pages_shared",
                                     "pages_sharing",
                                     "pages_to_scan",
                                     "pages_unshared",
                                     "pages_volatile",
                                     "run",
                                     "sleep_millisecs",
                                     "stable_node_chains",
                                     "stable_node_chains_prune_millisecs",
                                     "stable_node_dups",
                                     "use_zero_pages"};
constexpr const char* kThpFiles[] = {"defrag", "enabled", "hpage_pmd_size", "shmem_enabled", "use_zero_page"};
constexpr const char* kProcessFiles[] = {"maps", "oom_score", "oom_score_adj", "smaps_rollup", "stat", "status"};

// The number behind the first such label of a zone: of "Node 0, zone   Normal\n  pages free     1234", with "pages free", 1234; -1 when
// there is none.
int64_t NumberOf(const std::string& zoneinfo, const std::string& zone, absl::string_view label) {
  bool here = false;
  for (absl::string_view line : absl::StrSplit(zoneinfo, '\n')) {
    if (absl::StartsWith(line, "Node ")) here = absl::EndsWith(line, absl::StrCat(" ", zone));
    line = absl::StripLeadingAsciiWhitespace(line);
    int64_t number = 0;
    if (here && absl::ConsumePrefix(&line, label) && absl::SimpleAtoi(line, &number)) return number;
  }
  return -1;
}

// "Hugepagesize:       2048 kB" -> "2048".
std::string MeminfoCount(const std::string& meminfo, const std::string& name) {
  for (absl::string_view line : absl::StrSplit(meminfo, '\n')) {
    if (!absl::StartsWith(line, absl::StrCat(name, ":"))) continue;
    const std::vector<absl::string_view> words = absl::StrSplit(line.substr(name.size() + 1), ' ', absl::SkipEmpty());
    if (!words.empty()) return std::string(words[0]);
  }
  return "";
}

}  // namespace

absl::StatusOr<std::string> ScenarioPlayer::ReadProcFile(const std::string& path) {
  v1::ReadProcFileRequest request;
  request.set_machine(stage_.machine());
  request.set_path(path);
  v1::ReadProcFileResponse response;
  MMLAB_RETURN_IF_ERROR(ToAbsl(connection_.Call(*connection_.proc, &v1::ProcService::Stub::ReadProcFile, request, &response)));
  return std::move(*response.mutable_content());
}

absl::Status ScenarioPlayer::AddProcFile(const std::string& path, const std::string& as) {
  absl::StatusOr<std::string> content = ReadProcFile(path);
  if (absl::IsUnimplemented(content.status()) || absl::IsNotFound(content.status())) {
    CountMissing(absl::StrCat("/proc/", path.substr(path.find('/') + 1)));
    return absl::OkStatus();
  }
  MMLAB_RETURN_IF_ERROR(content.status());
  answers_.snapshot_files[as] = *std::move(content);
  return absl::OkStatus();
}

// The files of the pool of huge pages of the default size.
absl::Status ScenarioPlayer::AddHugepageFiles(const std::string& folder) {
  const std::string size = MeminfoCount(answers_.snapshot_files[absl::StrCat(folder, "/meminfo")], "Hugepagesize");
  const bool numa = absl::StartsWith(header_.value("flavour", ""), "arm64");
  for (const char* file : {"demote_size", "free_hugepages", "nr_hugepages", "nr_hugepages_mempolicy", "nr_overcommit_hugepages",
                           "resv_hugepages", "surplus_hugepages"}) {
    if (!numa && (absl::string_view(file) == "demote_size" || absl::string_view(file) == "nr_hugepages_mempolicy")) continue;
    MMLAB_RETURN_IF_ERROR(
        AddProcFile(absl::StrCat("/sys/kernel/mm/hugepages/hugepages-", size, "kB/", file), absl::StrCat(folder, "/hugepages_", file)));
  }
  return absl::OkStatus();
}

absl::Status ScenarioPlayer::Snapshot(const Json& op) {
  const std::string name = op.at("name");
  MMLAB_RETURN_IF_ERROR(RunRecorder(stage_, layout_, init_));
  // What the CPUs still hold of the counters is added up before anybody looks.
  v1::Operation refresh;
  refresh.mutable_write_sysctl()->set_sysctl("vm.stat_refresh");
  refresh.mutable_write_sysctl()->set_value("1");
  MMLAB_RETURN_IF_ERROR(stage_.MustApply(refresh).status());
  const bool first = !std::exchange(baseline_matched_, true);
  if (first) MMLAB_RETURN_IF_ERROR(MatchBaseline());
  for (const char* file : kMachineFiles) MMLAB_RETURN_IF_ERROR(AddProcFile(file, absl::StrCat(name, "/", file)));
  MMLAB_RETURN_IF_ERROR(AddHugepageFiles(name));
  for (const char* file : kKsmFiles) {
    MMLAB_RETURN_IF_ERROR(AddProcFile(absl::StrCat("/sys/kernel/mm/ksm/", file), absl::StrCat(name, "/ksm_", file)));
  }
  for (const char* file : kThpFiles) {
    MMLAB_RETURN_IF_ERROR(AddProcFile(absl::StrCat("/sys/kernel/mm/transparent_hugepage/", file), absl::StrCat(name, "/thp_", file)));
  }
  if (first && header_.value("name", "") == "watermarks") MMLAB_RETURN_IF_ERROR(ReadSysctls());
  for (const auto& [process, worker] : workers_) {
    for (const char* file : kProcessFiles) {
      MMLAB_RETURN_IF_ERROR(AddProcFile(absl::StrCat(worker.pid, "/", file), absl::StrCat(name, "/process-", process, "-", file)));
    }
  }
  return absl::OkStatus();
}

// A read of a sysctl takes a buffer in the kernel that is as large as the reader's and one byte more (proc_sys_call_handler()): the
// recorder's needed the largest block. Whether such a block stays on the CPU's list afterwards is the allocator's to decide.
absl::Status ScenarioPlayer::ReadSysctls() {
  constexpr int kHighestOrder = 10;  // MAX_ORDER - 1
  v1::Operation alloc;
  alloc.mutable_alloc_pages()->set_gfp(v1::GFP_CLASS_KERNEL);
  alloc.mutable_alloc_pages()->set_order(kHighestOrder);
  MMLAB_ASSIGN_OR_RETURN(const Tried tried, Try("alloc_pages", alloc));
  return tried.ok() ? GivePages(tried.outcome.value(), kHighestOrder) : absl::OkStatus();
}

absl::Status ScenarioPlayer::SmallSnapshot(const std::string& name) {
  MMLAB_RETURN_IF_ERROR(AddProcFile("meminfo", absl::StrCat(name, "/meminfo")));
  return AddProcFile("zoneinfo", absl::StrCat(name, "/zoneinfo"));
}

absl::Status ScenarioPlayer::SnapshotBetween(const Json& op) {
  const std::string scenario = header_.value("name", "");
  const std::string name = op.at("op");
  const std::string path = op.value("path", "");
  const std::string value = op.value("value", "");
  const std::string file = path.substr(path.rfind('/') + 1);
  if (scenario == "watermarks" && name == "write_file") {
    ++between_;
    const std::string shown = absl::StrReplaceAll(value, {{" ", "_"}});
    return SmallSnapshot(absl::StrCat(between_ < 10 ? "0" : "", between_, "-", file, "-", shown.substr(0, 6)));
  }
  if (scenario != "overcommit") return absl::OkStatus();
  if (name == "write_file" && (file == "overcommit_ratio" || file == "overcommit_kbytes")) {
    return SmallSnapshot(absl::StrCat(file.substr(sizeof "overcommit_" - 1), "-", value));
  }
  if (name == "swapon") return SmallSnapshot("ratio-100-with-swap");
  if (name == "write_file" && file == "nr_hugepages" && value != "0") {
    return SmallSnapshot(absl::StrCat("ratio-100-with-swap-", value, "-hugepages"));
  }
  if (name == "start") return SmallSnapshot("mapped-0");
  if (name == "mmap") return SmallSnapshot(absl::StrCat("mapped-", ++between_));
  return absl::OkStatus();
}

// About a third of what the lists may hold, which is the kernel's own share of them: not in high memory, which is the processes'.
absl::Status ScenarioPlayer::PlanBaseline() {
  MMLAB_ASSIGN_OR_RETURN(const std::string zoneinfo, ReadProcFile("zoneinfo"));
  for (const char* zone : {"Normal", "DMA"}) {
    const int64_t high = NumberOf(zoneinfo, zone, "high:");
    if (high < 0) continue;
    kept_[zone] = high / 3;
    break;
  }
  return absl::OkStatus();
}

absl::Status ScenarioPlayer::MatchBaseline() {
  MMLAB_ASSIGN_OR_RETURN(const std::string zoneinfo, ReadProcFile("zoneinfo"));
  const Json zones = header_.value("zones", Json::array());
  for (auto it = zones.rbegin(); it != zones.rend(); ++it) {
    const std::string name = it->at("name");
    const auto first = it->at("start_pfn").get<uint64_t>();
    const PfnSpan span{first, first + it->at("spanned").get<uint64_t>()};
    const v1::GfpClass gfp = name == "HighMem"                              ? v1::GFP_CLASS_HIGHUSER
                             : name == "DMA" && layout_ != v1::LAYOUT_ARM64 ? v1::GFP_CLASS_DMA
                                                                            : v1::GFP_CLASS_KERNEL;
    // A kernel that has run for a while keeps pages of its own on the lists of its CPUs.
    std::vector<uint64_t> held;
    if (const auto kept = kept_.find(name); kept != kept_.end()) {
      MMLAB_RETURN_IF_ERROR(TakePages(gfp, span, kept->second - NumberOf(zoneinfo, name, "count:"), 0, &held));
    }
    if (!it->contains("free_at_start")) continue;
    const auto wanted = it->at("free_at_start").get<int64_t>();
    MMLAB_ASSIGN_OR_RETURN(const std::string now, ReadProcFile("zoneinfo"));
    // Large enough to be quick, small enough not to leave a hole that nothing fits in.
    MMLAB_RETURN_IF_ERROR(TakePages(gfp, span, NumberOf(now, name, "pages free") - wanted, /*highest_order=*/6, nullptr));
    for (const uint64_t pfn : held) MMLAB_RETURN_IF_ERROR(GivePages(pfn, 0));
  }
  return absl::OkStatus();
}

absl::Status ScenarioPlayer::TakePages(v1::GfpClass gfp, PfnSpan span, int64_t pages, int highest_order, std::vector<uint64_t>* taken) {
  for (int order = highest_order; order >= 0 && pages > 0; --order) {
    for (; pages >= int64_t{1} << order; pages -= int64_t{1} << order) {
      v1::Operation alloc;
      alloc.mutable_alloc_pages()->set_gfp(gfp);
      alloc.mutable_alloc_pages()->set_order(order);
      MMLAB_ASSIGN_OR_RETURN(const Tried tried, Try("alloc_pages", alloc));
      if (!tried.ok()) break;
      const uint64_t pfn = tried.outcome.value();
      // The zone is at its watermark: what another one gave goes back.
      if (pfn < span.first || pfn >= span.end) return GivePages(pfn, order);
      if (taken != nullptr) taken->push_back(pfn);
    }
  }
  return absl::OkStatus();
}

absl::Status ScenarioPlayer::GivePages(uint64_t pfn, int order) {
  v1::Operation free;
  free.mutable_free_pages()->set_pfn(pfn);
  free.mutable_free_pages()->set_order(order);
  return stage_.MustApply(free).status();
}

}  // namespace mmlab
