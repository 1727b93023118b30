// `mmlab compare slab-allocators`: one workload on three machines that differ only in how their kernel allocates small objects.

#include <fmt/core.h>
#include <google/protobuf/struct.pb.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"

namespace mmlab {
namespace {

constexpr int kPageBytes = 4096;  // Of every layout.
constexpr size_t kBatch = 1024;

struct Allocator {
  const char* name;
  v1::SlabAllocator value;
};
constexpr std::array<Allocator, 3> kAllocators = {{{"slub", v1::SLAB_ALLOCATOR_SLUB},  //
                                                   {"slab", v1::SLAB_ALLOCATOR_SLAB},
                                                   {"slob", v1::SLAB_ALLOCATOR_SLOB}}};

// What one allocator held after a phase of the workload.
struct Measure {
  std::string phase;
  std::string allocator;
  int64_t objects = 0;
  int64_t asked = 0;  // Bytes that the workload asked for,
  int64_t used = 0;   // and what these objects take with padding and headers.
  int64_t pages = 0;

  int64_t page_bytes() const { return pages * kPageBytes; }
  // Of what objects take, what nobody asked for.
  double internal() const { return used == 0 ? 0 : static_cast<double>(used - asked) / static_cast<double>(used); }
  // Of the pages, what no object takes.
  double external() const { return pages == 0 ? 0 : static_cast<double>(page_bytes() - used) / static_cast<double>(page_bytes()); }
  double bytes_for_each() const { return asked == 0 ? 0 : static_cast<double>(page_bytes()) / static_cast<double>(asked); }
};

// A machine that goes when this does.
class Guest {
 public:
  Guest(Session& session, const std::string& id, const std::string& preset, v1::SlabAllocator allocator) : session_(session) {
    v1::CreateMachineRequest request;
    request.set_machine_id(id);
    request.mutable_spec()->set_preset(preset);
    request.mutable_spec()->set_slab_allocator(allocator);
    v1::CreateMachineResponse response;
    session.Call(*session.connection().machines, &v1::MachineService::Stub::CreateMachine, request, &response);
    name_ = response.machine().name();
  }
  ~Guest() {
    v1::DeleteMachineRequest request;
    request.set_name(name_);
    v1::DeleteMachineResponse response;
    session_.connection().Call(*session_.connection().machines, &v1::MachineService::Stub::DeleteMachine, request, &response);
  }
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;

  // Performs all operations; each outcome goes to `each` with the operation's place.
  template <typename Each>
  void Perform(const std::vector<v1::Operation>& operations, const Each& each) {
    for (size_t start = 0; start < operations.size(); start += kBatch) {
      v1::ExecuteBatchRequest batch;
      batch.set_machine(name_);
      const size_t end = std::min(start + kBatch, operations.size());
      for (size_t i = start; i < end; ++i) *batch.add_operations() = operations[i];
      v1::ExecuteBatchResponse response;
      session_.Call(*session_.connection().operations, &v1::OperationService::Stub::ExecuteBatch, batch, &response);
      for (int i = 0; i < response.outcomes_size(); ++i) each(start + static_cast<size_t>(i), response.outcomes(i));
    }
  }
  v1::GetSlabUsageResponse Usage() {
    v1::GetSlabUsageRequest request;
    request.set_machine(name_);
    v1::GetSlabUsageResponse response;
    session_.Call(*session_.connection().slab, &v1::SlabService::Stub::GetSlabUsage, request, &response);
    return response;
  }

 private:
  Session& session_;
  std::string name_;
};

// The caches that the workload makes: objects as a file system, a network stack and an address space have them.
struct WorkCache {
  const char* name;
  uint32_t size;
  bool constructor;
  uint32_t flags;
};
constexpr std::array<WorkCache, 4> kCaches = {{{"work-mapping", 76, false, 0},
                                               {"work-name", 136, false, 0x20000},
                                               {"work-inode", 616, true, 0x20000},
                                               {"work-packet", 1500, false, 0x2000}}};

// 0 .. bound - 1; the same sequence on every host.
uint64_t Below(std::mt19937_64& random, uint64_t bound) { return random() % bound; }

// Sizes as kernels ask for them: mostly small ones of all kinds, few large.
uint64_t KmallocSize(std::mt19937_64& random) {
  const uint64_t dice = Below(random, 100);
  if (dice < 50) return 1 + Below(random, 64);
  if (dice < 80) return 1 + Below(random, 256);
  if (dice < 95) return 1 + Below(random, 2048);
  if (dice < 99) return 1 + Below(random, 8192);
  return 1 + Below(random, 32768);
}

// The workload on one machine: grows, loses three quarters of its objects here and there, and grows again with other sizes.
class Workload {
 public:
  Workload(Guest& guest, const char* allocator, uint64_t seed) : guest_(guest), allocator_(allocator), random_(seed) {
    std::vector<v1::Operation> operations;
    for (const WorkCache& cache : kCaches) {
      v1::KmemCacheCreateRequest& create = *operations.emplace_back().mutable_kmem_cache_create();
      create.set_cache(cache.name);
      create.set_object_size_bytes(cache.size);
      create.set_constructor(cache.constructor);
      create.set_flags(cache.flags);
    }
    guest_.Perform(operations, [](size_t, const v1::Outcome& outcome) {
      if (outcome.error_number() != 0) Fail(kExitCheckFailed, "compare: a cache was not made: " + outcome.error_name());
    });
  }

  void Grow(size_t count) {
    std::vector<v1::Operation> operations;
    std::vector<Held> wanted;
    for (size_t i = 0; i < count; ++i) {
      v1::Operation& operation = operations.emplace_back();
      if (Below(random_, 2) == 0) {
        const uint64_t size = KmallocSize(random_);
        operation.mutable_kmalloc()->set_size_bytes(size);
        wanted.push_back({0, size, nullptr});
      } else {
        const WorkCache& cache = kCaches[Below(random_, kCaches.size())];
        operation.mutable_kmem_cache_alloc()->set_cache(cache.name);
        wanted.push_back({0, cache.size, &cache});
      }
    }
    guest_.Perform(operations, [&](size_t at, const v1::Outcome& outcome) {
      if (outcome.error_number() != 0) Fail(kExitCheckFailed, "compare: an object was refused: " + outcome.error_name());
      wanted[at].address = outcome.value();
    });
    held_.insert(held_.end(), wanted.begin(), wanted.end());
  }

  void Shrink(size_t count) {
    std::vector<v1::Operation> operations;
    for (size_t i = 0; i < count && !held_.empty(); ++i) {
      std::swap(held_[Below(random_, held_.size())], held_.back());
      const Held& object = held_.back();
      v1::Operation& operation = operations.emplace_back();
      if (object.cache == nullptr) {
        operation.mutable_kfree()->set_address(object.address);
      } else {
        operation.mutable_kmem_cache_free()->set_cache(object.cache->name);
        operation.mutable_kmem_cache_free()->set_address(object.address);
      }
      held_.pop_back();
    }
    guest_.Perform(operations, [](size_t, const v1::Outcome& outcome) {
      if (outcome.error_number() != 0) Fail(kExitCheckFailed, "compare: a free was refused: " + outcome.error_name());
    });
  }

  Measure Look(const std::string& phase) {
    const v1::GetSlabUsageResponse usage = guest_.Usage();
    Measure measure{phase, allocator_, static_cast<int64_t>(held_.size()), 0, usage.object_bytes(), usage.pages()};
    for (const Held& object : held_) measure.asked += static_cast<int64_t>(object.size);
    return measure;
  }

 private:
  struct Held {
    uint64_t address;
    uint64_t size;
    const WorkCache* cache;  // Null: of kmalloc.
  };
  Guest& guest_;
  const char* allocator_;
  std::mt19937_64 random_;
  std::vector<Held> held_;
};

void PrintMeasures(const GlobalOptions& options, const std::vector<Measure>& measures) {
  google::protobuf::Struct result;
  google::protobuf::ListValue& list = *(*result.mutable_fields())["measures"].mutable_list_value();
  std::vector<std::vector<std::string>> rows;
  for (const Measure& m : measures) {
    auto& fields = *list.add_values()->mutable_struct_value()->mutable_fields();
    fields["phase"].set_string_value(m.phase);
    fields["allocator"].set_string_value(m.allocator);
    fields["objects"].set_number_value(static_cast<double>(m.objects));
    fields["asked_bytes"].set_number_value(static_cast<double>(m.asked));
    fields["used_bytes"].set_number_value(static_cast<double>(m.used));
    fields["pages"].set_number_value(static_cast<double>(m.pages));
    fields["internal_fragmentation"].set_number_value(m.internal());
    fields["external_fragmentation"].set_number_value(m.external());
    fields["page_bytes_for_each_byte"].set_number_value(m.bytes_for_each());
    rows.push_back({m.phase, m.allocator, fmt::format("{}", m.objects), fmt::format("{}", m.asked / 1024), fmt::format("{}", m.used / 1024),
                    fmt::format("{}", m.pages), fmt::format("{:.1f}%", 100 * m.internal()), fmt::format("{:.1f}%", 100 * m.external()),
                    fmt::format("{:.2f}", m.bytes_for_each())});
  }
  if (PrintStructured(options, result)) return;
  fmt::print("{}",
             TableText({"AFTER", "ALLOCATOR", "OBJECTS", "ASKED-KIB", "USED-KIB", "PAGES", "INTERNAL", "EXTERNAL", "BYTES/BYTE"}, rows));
}

}  // namespace

void AddCompareCommand(CLI::App& app, Session& session) {
  struct Options {
    std::string preset = "686-1G";
    std::string prefix = "compare";
    size_t objects = 20000;
    uint64_t seed = 1;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* compare = app.add_subcommand("compare", "Do the same on machines that differ in one thing, side by side");
  compare->require_subcommand(1);
  CLI::App* slab = compare->add_subcommand("slab-allocators", "SLUB, SLAB and SLOB: memory taken for one workload, and fragmentation");
  slab->add_option("--preset", options->preset, "Recorded machine to be like")->capture_default_str();
  slab->add_option("--objects", options->objects, "Objects that the workload allocates at first")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  slab->add_option("--seed", options->seed, "Seed of the workload")->capture_default_str();
  slab->add_option("--prefix", options->prefix, "Machines PREFIX-slub, PREFIX-slab, PREFIX-slob are made and deleted")
      ->capture_default_str();
  slab->footer(
      "ASKED-KIB is what the workload asked for, USED-KIB what its objects take with padding and headers, PAGES what the allocator holds.\n"
      "INTERNAL is the part of USED-KIB that nobody asked for, EXTERNAL the part of PAGES that no object takes.\n\n"
      "Example:\n  mmlab compare slab-allocators --preset arm64-1G");
  slab->callback([options, &session] {
    std::array<std::vector<Measure>, 3> by_phase;
    for (const Allocator& allocator : kAllocators) {
      Guest guest(session, options->prefix + "-" + allocator.name, options->preset, allocator.value);
      Workload workload(guest, allocator.name, options->seed);
      workload.Grow(options->objects);
      by_phase[0].push_back(workload.Look("grow"));
      workload.Shrink(options->objects * 3 / 4);
      by_phase[1].push_back(workload.Look("free 3 of 4"));
      workload.Grow(options->objects / 2);
      by_phase[2].push_back(workload.Look("grow again"));
    }
    std::vector<Measure> measures;
    for (std::vector<Measure>& phase : by_phase) measures.insert(measures.end(), phase.begin(), phase.end());
    PrintMeasures(session.options(), measures);
  });
}

}  // namespace mmlab
