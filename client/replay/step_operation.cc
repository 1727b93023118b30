#include "client/replay/step_operation.h"

#include <functional>

#include "absl/strings/str_cat.h"
#include "client/replay/observation.h"
#include "client/replay/recording.h"

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

// The arguments of a step by name; remembers the first that was missing or no number.
class Arguments {
 public:
  explicit Arguments(const Json& step) : args_(step.contains("args") ? step["args"] : Json::object()) {}

  uint64_t operator[](const char* name) {
    uint64_t value = 0;
    if (args_.contains(name) && ParseWord(args_[name], &value)) return value;
    if (missing_.empty()) missing_ = name;
    return 0;
  }
  const std::string& missing() const { return missing_; }

 private:
  const Json args_;
  std::string missing_;
};

using Translate = std::function<void(Arguments&, int32_t, const std::map<uint64_t, int32_t>&, v1::Operation&)>;

void FillAccess(v1::AccessKind kind, Arguments& args, int32_t pid, v1::Operation& operation) {
  v1::AccessMemoryRequest& request = *operation.mutable_access_memory();
  request.set_pid(pid);
  request.set_kind(kind);
  request.set_address(args["addr"]);
}

// addr and len, which many calls have.
template <typename Request>
Request& FillRange(Request* request, Arguments& args, int32_t pid) {
  request->set_pid(pid);
  request->set_address(args["addr"]);
  request->set_length_bytes(args["len"]);
  return *request;
}

int32_t ShmId(uint64_t number, const std::map<uint64_t, int32_t>& ids) {
  const auto found = ids.find(number);
  // A number that no shmget returned: an id that no segment has.
  return found == ids.end() ? -1 : found->second;
}

const std::map<std::string, Translate>& Translations() {
  using Ids = std::map<uint64_t, int32_t>;
  using Op = v1::Operation;
  static const auto* const kTranslations = new std::map<std::string, Translate>{
      {"mmap",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         v1::MmapRequest& request = FillRange(op.mutable_mmap(), args, pid);
         request.set_prot(static_cast<uint32_t>(args["prot"]));
         request.set_flags(static_cast<uint32_t>(args["flags"]));
         request.set_fd(static_cast<int32_t>(args["fd"]));
         request.set_offset_bytes(args["offset"]);
       }},
      {"munmap", [](Arguments& args, int32_t pid, const Ids&, Op& op) { FillRange(op.mutable_munmap(), args, pid); }},
      {"mprotect",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         FillRange(op.mutable_mprotect(), args, pid).set_prot(static_cast<uint32_t>(args["prot"]));
       }},
      {"mremap",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         v1::MremapRequest& request = *op.mutable_mremap();
         request.set_pid(pid);
         request.set_old_address(args["addr"]);
         request.set_old_length_bytes(args["old_len"]);
         request.set_new_length_bytes(args["new_len"]);
         request.set_flags(static_cast<uint32_t>(args["flags"]));
         request.set_new_address(args["new_addr"]);
       }},
      {"madvise",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         FillRange(op.mutable_madvise(), args, pid).set_advice(static_cast<int32_t>(args["advice"]));
       }},
      {"mlock", [](Arguments& args, int32_t pid, const Ids&, Op& op) { FillRange(op.mutable_mlock(), args, pid); }},
      {"mlock2",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         FillRange(op.mutable_mlock(), args, pid).set_flags(static_cast<uint32_t>(args["flags"]));
       }},
      {"munlock", [](Arguments& args, int32_t pid, const Ids&, Op& op) { FillRange(op.mutable_munlock(), args, pid); }},
      {"mlockall",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         op.mutable_mlockall()->set_pid(pid);
         op.mutable_mlockall()->set_flags(static_cast<uint32_t>(args["flags"]));
       }},
      {"munlockall", [](Arguments&, int32_t pid, const Ids&, Op& op) { op.mutable_munlockall()->set_pid(pid); }},
      {"brk",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         op.mutable_brk()->set_pid(pid);
         op.mutable_brk()->set_address(args["addr"]);
       }},
      {"msync",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         FillRange(op.mutable_msync(), args, pid).set_flags(static_cast<uint32_t>(args["flags"]));
       }},
      {"mincore", [](Arguments& args, int32_t pid, const Ids&, Op& op) { FillRange(op.mutable_mincore(), args, pid); }},
      {"setrlimit",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         v1::SetrlimitRequest& request = *op.mutable_setrlimit();
         request.set_pid(pid);
         request.set_resource(static_cast<uint32_t>(args["resource"]));
         request.set_current_bytes(args["cur"]);
         request.set_maximum_bytes(args["max"]);
       }},
      {"anon_name",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) { FillRange(op.mutable_set_vma_name(), args, pid).set_vma_name("lab"); }},
      {"ld",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         FillAccess(v1::ACCESS_KIND_LOAD, args, pid, op);
         op.mutable_access_memory()->set_length_bytes(args["size"]);
       }},
      {"st",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         FillAccess(v1::ACCESS_KIND_STORE, args, pid, op);
         op.mutable_access_memory()->set_length_bytes(args["size"]);
         op.mutable_access_memory()->set_value(args["value"]);
       }},
      {"touch_read",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         FillAccess(v1::ACCESS_KIND_TOUCH_READ, args, pid, op);
         op.mutable_access_memory()->set_length_bytes(args["len"]);
         op.mutable_access_memory()->set_stride_bytes(args["stride"]);
       }},
      {"touch_write",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         FillAccess(v1::ACCESS_KIND_TOUCH_WRITE, args, pid, op);
         op.mutable_access_memory()->set_length_bytes(args["len"]);
         op.mutable_access_memory()->set_stride_bytes(args["stride"]);
         op.mutable_access_memory()->set_value(args["value"]);
       }},
      {"hash",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         FillAccess(v1::ACCESS_KIND_HASH, args, pid, op);
         op.mutable_access_memory()->set_length_bytes(args["len"]);
       }},
      {"exec", [](Arguments& args, int32_t pid, const Ids&, Op& op) { FillAccess(v1::ACCESS_KIND_EXECUTE, args, pid, op); }},
      {"fork", [](Arguments&, int32_t pid, const Ids&, Op& op) { op.mutable_fork()->set_pid(pid); }},
      {"exit",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         op.mutable_exit()->set_pid(pid);
         op.mutable_exit()->set_code(static_cast<int32_t>(args["code"]));
       }},
      {"close",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         op.mutable_close()->set_pid(pid);
         op.mutable_close()->set_fd(static_cast<int32_t>(args["fd"]));
       }},
      {"memfd_create",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         op.mutable_memfd_create()->set_pid(pid);
         op.mutable_memfd_create()->set_memfd_name("lab");
         op.mutable_memfd_create()->set_flags(static_cast<uint32_t>(args["flags"]));
       }},
      {"ftruncate",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         op.mutable_ftruncate()->set_pid(pid);
         op.mutable_ftruncate()->set_fd(static_cast<int32_t>(args["fd"]));
         op.mutable_ftruncate()->set_length_bytes(args["len"]);
       }},
      {"pread",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         v1::PreadRequest& request = FillRange(op.mutable_pread(), args, pid);
         request.set_fd(static_cast<int32_t>(args["fd"]));
         request.set_offset_bytes(args["offset"]);
       }},
      {"pwrite",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         v1::PwriteRequest& request = FillRange(op.mutable_pwrite(), args, pid);
         request.set_fd(static_cast<int32_t>(args["fd"]));
         request.set_offset_bytes(args["offset"]);
       }},
      {"shmget",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         v1::ShmgetRequest& request = *op.mutable_shmget();
         request.set_pid(pid);
         request.set_key(static_cast<int32_t>(args["key"]));
         request.set_size_bytes(args["size"]);
         request.set_flags(static_cast<uint32_t>(args["flags"]));
       }},
      {"shmat",
       [](Arguments& args, int32_t pid, const Ids& ids, Op& op) {
         v1::ShmatRequest& request = *op.mutable_shmat();
         request.set_pid(pid);
         request.set_shm_id(ShmId(args["id"], ids));
         request.set_address(args["addr"]);
         request.set_flags(static_cast<uint32_t>(args["flags"]));
       }},
      {"shmdt",
       [](Arguments& args, int32_t pid, const Ids&, Op& op) {
         op.mutable_shmdt()->set_pid(pid);
         op.mutable_shmdt()->set_address(args["addr"]);
       }},
      {"shmrm",
       [](Arguments& args, int32_t pid, const Ids& ids, Op& op) {
         op.mutable_shm_remove()->set_pid(pid);
         op.mutable_shm_remove()->set_shm_id(ShmId(args["id"], ids));
       }},
  };
  return *kTranslations;
}

void AddSignal(const v1::Signal& signal, Json& answer) {
  Json json{{"signo", signal.name()}, {"code", signal.code_name()}, {"addr", Hex(signal.address())}};
  if (signal.x86_trap() != 0) {
    json["x86_trap"] = signal.x86_trap();
    json["x86_error_code"] = signal.x86_error_code();
  }
  answer["signal"] = std::move(json);
}

}  // namespace

absl::StatusOr<v1::Operation> StepOperation(const Json& step, int32_t pid, const std::map<uint64_t, int32_t>& shm_ids) {
  const std::string name = step.value("op", "");
  const auto found = Translations().find(name);
  if (found == Translations().end()) return absl::InvalidArgumentError(absl::StrCat("no operation of this format: \"", name, "\""));
  Arguments args(step);
  v1::Operation operation;
  found->second(args, pid, shm_ids, operation);
  if (!args.missing().empty()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": argument \"", args.missing(), "\" is missing or no number"));
  }
  return operation;
}

void AddOutcome(const Json& step, const v1::Outcome& outcome, Json& answer) {
  const std::string name = step.value("op", "");
  if (outcome.has_access()) {
    const v1::AccessResult& access = outcome.access();
    if (name == "ld" && !outcome.has_signal()) answer["value"] = Hex(access.value());
    if (outcome.has_signal()) AddSignal(outcome.signal(), answer);
    if (name == "touch_read" || name == "touch_write" || name == "hash") {
      answer["done"] = access.done();
      if (outcome.has_signal()) answer["failed_at"] = Hex(access.failed_at());
      if (name == "hash") answer["fnv1a64"] = Hex(access.fnv1a64());
    }
    return;
  }
  if (outcome.error_number() != 0) {
    answer["ret"] = -1;
    answer["errno"] = outcome.error_name();
    return;
  }
  if (name == "fork") {
    answer["ret"] = "child";
  } else if (name == "mmap" || name == "mremap" || name == "brk" || name == "shmat") {
    answer["ret"] = Hex(outcome.value());
  } else {
    answer["ret"] = static_cast<int64_t>(outcome.value());
  }
  if (name == "mincore" && !outcome.data().empty()) {
    std::string vector;
    for (const char byte : outcome.data()) vector.push_back((byte & 1) != 0 ? '1' : '0');
    answer["mincore"] = vector;
  }
}

}  // namespace mmlab
