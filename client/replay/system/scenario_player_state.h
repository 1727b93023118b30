#ifndef MMLAB_CLIENT_REPLAY_SYSTEM_SCENARIO_PLAYER_STATE_H_
#define MMLAB_CLIENT_REPLAY_SYSTEM_SCENARIO_PLAYER_STATE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "client/replay/system/scenario_player.h"

namespace mmlab {

// A scenario while it is being performed: the machine, who lives there, what was answered so far. Its functions are in scenario_player.cc,
// scenario_processes.cc and scenario_snapshots.cc.
class ScenarioPlayer {
 public:
  using Json = nlohmann::ordered_json;

  ScenarioPlayer(Connection& connection, Stage& stage, const Scenario& scenario, v1::Layout layout, ScenarioAnswers& answers)
      : connection_(connection), stage_(stage), header_(scenario.header), layout_(layout), answers_(answers) {}

  // Files, the init program.
  absl::Status SetUp();
  absl::Status Perform(const Json& op);

 private:
  struct Worker {
    int32_t pid = 0;
    std::vector<uint64_t> regions;  // Start addresses, by the script's number.
    std::vector<uint64_t> lengths;  // Bytes.
    std::vector<int32_t> pipes;     // Descriptors in init.
    std::vector<uint64_t> pipe_pages;
  };
  // How an operation of the machine ended: the outcome, or that there is no such operation.
  struct Tried {
    bool simulated = true;
    v1::Outcome outcome;
    bool ok() const { return simulated && outcome.error_number() == 0 && !outcome.has_signal(); }
    int64_t Return() const;         // 0 or -errno, as a raw system call returns it.
    std::string ErrorText() const;  // strerror(); empty when it went well.
  };
  // `what` is the name under which it is counted when it is not simulated.
  absl::StatusOr<Tried> Try(const std::string& what, const v1::Operation& operation);
  void CountMissing(const std::string& what) { ++answers_.not_simulated[what]; }

  // scenario_cgroups.cc
  // Makes the cgroup and those above it where they are not there yet: the scripts do not say when that was done.
  absl::Status MakeCgroup(const std::string& cgroup);
  absl::StatusOr<Tried> WriteCgroupFile(const std::string& cgroup, const std::string& file, const std::string& value);
  absl::Status SnapshotCgroup(const Json& op);

  // scenario_player.cc
  absl::Status WriteFile(const Json& op);
  absl::Status ReadWholeFile(const Json& op);
  absl::Status MakeFile(const Json& op);
  // unlink, sync, swapon, swapoff: of no process. The script wants no result of these.
  absl::Status WholeMachine(const Json& op);
  // What the recorded machine had read of its disks' own data before it was first looked at: the Buffers of its meminfo.
  absl::Status ReadDisk();
  absl::Status WaitForKsmd();
  // Nothing: it can't be opened.
  absl::StatusOr<std::optional<int32_t>> OpenIn(int32_t pid, const std::string& path);
  absl::Status CloseIn(int32_t pid, int32_t fd);
  absl::Status MoveBytes(bool write, int32_t fd, uint64_t bytes);

  // scenario_processes.cc
  absl::Status StartWorker(const Json& op);
  absl::Status EndWorker(const Json& op);
  absl::Status MakePipes(Worker& worker);
  absl::Status ClosePipes(const Worker& worker);
  absl::Status MapRegion(const Json& op);
  absl::StatusOr<Tried> MapHugeAligned(v1::Operation map);
  absl::Status TouchRegion(const Json& op);
  absl::Status RangeCall(const Json& op);
  absl::Status PunchRegion(const Json& op);
  absl::Status Hog(const Json& op);
  absl::StatusOr<Worker*> Acting(const Json& op);
  absl::StatusOr<uint64_t> RegionStart(const Worker& worker, const Json& op) const;
  // A process that does not handle the signal that its access ended with dies of it.
  absl::Status DieOfSignal(int32_t pid, const Tried& tried);
  // Adds a result for each process that is gone without having ended, the acting one first.
  absl::Status ReportKilled(const std::string& acting);
  absl::StatusOr<bool> Lives(int32_t pid);

  // scenario_snapshots.cc
  absl::Status Snapshot(const Json& op);
  absl::Status SmallSnapshot(const std::string& name);
  // The recorder looked at a few files in between, of which the script says nothing.
  absl::Status SnapshotBetween(const Json& op);
  absl::Status AddProcFile(const std::string& path, const std::string& as);
  absl::StatusOr<std::string> ReadProcFile(const std::string& path);
  absl::Status AddHugepageFiles(const std::string& folder);
  absl::Status ReadSysctls();
  // Takes away as much memory as the recorded machine did not have free when it was first looked at.
  absl::Status MatchBaseline();
  // What of it has to be known before anything is changed.
  absl::Status PlanBaseline();
  struct PfnSpan {
    uint64_t first = 0, end = 0;
  };
  // Allocates pages of that span of frames, in blocks of 2^highest_order and smaller ones for the rest; the blocks to `taken`.
  absl::Status TakePages(v1::GfpClass gfp, PfnSpan span, int64_t pages, int highest_order, std::vector<uint64_t>* taken);
  absl::Status GivePages(uint64_t pfn, int order);

  using Performer = absl::Status (ScenarioPlayer::*)(const Json&);

  Connection& connection_;
  Stage& stage_;
  const Json& header_;
  const v1::Layout layout_;
  ScenarioAnswers& answers_;
  int32_t init_ = 0;
  std::map<std::string, Worker> workers_;  // Living ones.
  std::vector<std::string> started_;       // Names in the order of their start.
  std::map<std::string, uint64_t> file_bytes_;
  bool huge_aligned_ = false;  // Huge pages are to be had: private mappings are aligned to them.
  bool baseline_matched_ = false;
  std::map<std::string, int64_t> kept_;  // By zone: pages that its CPUs keep when it is first looked at.
  int between_ = 0;                      // SnapshotBetween's count.
};

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_SYSTEM_SCENARIO_PLAYER_STATE_H_
