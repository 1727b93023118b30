#ifndef MMLAB_CLIENT_REPLAY_OBSERVATION_H_
#define MMLAB_CLIENT_REPLAY_OBSERVATION_H_

#include <nlohmann/json.hpp>
#include <string>

#include "mmlab/v1/process.pb.h"

namespace mmlab {

// Above so many VMAs a recording holds their number alone.
inline constexpr int kMostVmasListed = 400;

// What can be seen of a process, in the recordings' words, and what of it changed since the last look.
class ProcessObserver {
 public:
  // The keys of one process in a step's "procs": only what changed. Null when nothing did.
  nlohmann::ordered_json Changes(const v1::Process& process);
  // The same with absolute fault counts and everything that is not zero, as the "initial" record has it.
  nlohmann::ordered_json Initial(const v1::Process& process);

 private:
  struct Seen {
    nlohmann::ordered_json status, vmas, vma_count, rss, oom_score;
    nlohmann::ordered_json smaps = nlohmann::ordered_json::object();
  };
  static Seen Look(const v1::Process& process);

  Seen last_;
  int64_t minor_faults_ = 0;
  int64_t major_faults_ = 0;
};

// The recordings' name for the last column of maps: "subject", "file3", "heap", "anon", ...
std::string BackingName(const std::string& backing);

std::string Hex(uint64_t value);  // "0x1f"

// Where the replayer puts the program and the files of a recording inside the machine.
inline constexpr char kSubjectPath[] = "/subject";
std::string RecordedFilePath(int index);  // "/file3"
inline constexpr int kDevZeroIndex = 7;   // The recordings' file 7 is /dev/zero.

}  // namespace mmlab

#endif  // MMLAB_CLIENT_REPLAY_OBSERVATION_H_
