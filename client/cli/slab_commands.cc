#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"

namespace mmlab {
namespace {

constexpr int kPageKib = 4;  // Of every layout.

std::vector<v1::SlabCache> AllCaches(Session& session, const std::string& machine) {
  std::vector<v1::SlabCache> caches;
  v1::ListSlabCachesRequest request;
  request.set_parent("machines/" + machine);
  request.set_page_size(1000);
  do {
    v1::ListSlabCachesResponse page;
    session.Call(*session.connection().slab, &v1::SlabService::Stub::ListSlabCaches, request, &page);
    caches.insert(caches.end(), page.caches().begin(), page.caches().end());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  return caches;
}

double Percent(int64_t part, int64_t whole) { return whole == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole); }

// What slabtop can sort by: most first, names in their order.
struct SlabSort {
  char key;
  const char* what;
  int64_t (*value)(const v1::SlabCache&);  // Null: its name.
};
constexpr SlabSort kSlabSorts[] = {
    {'a', "active objects", [](const v1::SlabCache& c) -> int64_t { return c.active_objects(); }},
    {'b', "objects per slab", [](const v1::SlabCache& c) -> int64_t { return c.objs_per_slab(); }},
    {'c', "cache size", [](const v1::SlabCache& c) -> int64_t { return (c.slabs() << c.order()) * kPageKib; }},
    {'l', "slabs", [](const v1::SlabCache& c) -> int64_t { return c.slabs(); }},
    {'n', "name", nullptr},
    {'o', "objects", [](const v1::SlabCache& c) -> int64_t { return c.total_objects(); }},
    {'p', "pages per slab", [](const v1::SlabCache& c) -> int64_t { return int64_t{1} << c.order(); }},
    {'s', "object size", [](const v1::SlabCache& c) -> int64_t { return c.slab_size_bytes(); }},
    {'u', "use",
     [](const v1::SlabCache& c) -> int64_t { return c.total_objects() == 0 ? 0 : 100 * c.active_objects() / c.total_objects(); }},
};

std::string SlabSortHelp() {
  std::string text = "Sort by";
  for (const SlabSort& sort : kSlabSorts) text += fmt::format("{} {}: {}", &sort == kSlabSorts ? "" : ",", sort.key, sort.what);
  return text;
}

void SortSlabs(std::vector<v1::SlabCache>& caches, char key) {
  const SlabSort& by = *std::find_if(std::begin(kSlabSorts), std::end(kSlabSorts), [key](const SlabSort& sort) { return sort.key == key; });
  std::stable_sort(caches.begin(), caches.end(), [&](const v1::SlabCache& a, const v1::SlabCache& b) {
    return by.value == nullptr ? a.name() < b.name() : by.value(a) > by.value(b);
  });
}

// As slabtop(1) of procps shows it; `rows` at most, 0 = all.
std::string SlabtopText(std::vector<v1::SlabCache> caches, char sort, size_t rows) {
  int64_t objects = 0, active = 0, slabs = 0, used_caches = 0, bytes = 0, active_bytes = 0;
  int64_t smallest = caches.empty() ? 0 : caches[0].slab_size_bytes(), largest = 0;
  for (const v1::SlabCache& cache : caches) {
    objects += cache.total_objects();
    active += cache.active_objects();
    slabs += cache.slabs();
    used_caches += cache.slabs() > 0;
    bytes += cache.total_objects() * cache.slab_size_bytes();
    active_bytes += cache.active_objects() * cache.slab_size_bytes();
    smallest = std::min(smallest, cache.slab_size_bytes());
    largest = std::max(largest, cache.slab_size_bytes());
  }
  const auto kib = [](int64_t size) { return static_cast<double>(size) / 1024; };
  std::string text = fmt::format(
      " Active / Total Objects (% used)    : {} / {} ({:.1f}%)\n"
      " Active / Total Slabs (% used)      : {} / {} ({:.1f}%)\n"
      " Active / Total Caches (% used)     : {} / {} ({:.1f}%)\n"
      " Active / Total Size (% used)       : {:.2f}K / {:.2f}K ({:.1f}%)\n"
      " Minimum / Average / Maximum Object : {:.2f}K / {:.2f}K / {:.2f}K\n\n",
      active, objects, Percent(active, objects), slabs, slabs, Percent(slabs, slabs), used_caches, caches.size(),
      Percent(used_caches, static_cast<int64_t>(caches.size())), kib(active_bytes), kib(bytes), Percent(active_bytes, bytes), kib(smallest),
      kib(objects == 0 ? 0 : bytes / objects), kib(largest));
  text += fmt::format("{:>6} {:>6} {:>4} {:>8} {:>6} {:>8} {:>10} {:<23}\n", "OBJS", "ACTIVE", "USE", "OBJ SIZE", "SLABS", "OBJ/SLAB",
                      "CACHE SIZE", "NAME");
  SortSlabs(caches, sort);
  if (rows != 0 && caches.size() > rows) caches.resize(rows);
  for (const v1::SlabCache& cache : caches) {
    text += fmt::format("{:>6} {:>6} {:>3}% {:>7.2f}K {:>6} {:>8} {:>9}K {:<23}\n", cache.total_objects(), cache.active_objects(),
                        cache.total_objects() == 0 ? 0 : 100 * cache.active_objects() / cache.total_objects(), kib(cache.slab_size_bytes()),
                        cache.slabs(), cache.objs_per_slab(), (cache.slabs() << cache.order()) * kPageKib, cache.name());
  }
  return text;
}

void AddSlabtop(CLI::App& app, Session& session) {
  struct Options {
    std::string machine;
    double delay = 3;
    std::string sort = "o";
    bool once = false;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* slabtop = app.add_subcommand("slabtop", "Show a machine's slab caches by size, again and again on a terminal");
  slabtop->add_option("machine", options->machine, "Machine")->required();
  slabtop->add_option("-d,--delay", options->delay, "Seconds between two looks")->check(CLI::Range(0.1, 3600.0));
  slabtop->add_flag("-o,--once", options->once, "Print once; so it does where the output is no terminal");
  std::vector<std::string> keys;
  for (const SlabSort& sort : kSlabSorts) keys.emplace_back(1, sort.key);
  slabtop->add_option("-s,--sort", options->sort, SlabSortHelp())->check(CLI::IsMember(keys).description(""));
  slabtop->footer("Examples:\n  mmlab slabtop lab1 --once\n  mmlab slabtop lab1 -s c");
  slabtop->callback([options, &session] {
    constexpr size_t kRows = 20;
    const char sort = options->sort[0];
    if (options->once || isatty(STDOUT_FILENO) == 0) {
      fmt::print("{}", SlabtopText(AllCaches(session, options->machine), sort, 0));
      return;
    }
    while (true) {
      fmt::print("\x1b[H\x1b[J{}", SlabtopText(AllCaches(session, options->machine), sort, kRows));
      std::fflush(stdout);
      std::this_thread::sleep_for(std::chrono::duration<double>(options->delay));
    }
  });
}

std::string SlabText(const v1::SlabPage& slab) {
  return fmt::format("pfn {:#x} order {} {}{} objects {} inuse {} allocated {}", slab.pfn(), slab.order(), slab.place(),
                     slab.cpu() >= 0 ? fmt::format(" of CPU {}", slab.cpu()) : "", slab.objects(), slab.inuse(), slab.allocated());
}

void AddGetCaches(CLI::App& app, Session& session) {
  const auto machine = std::make_shared<std::string>();
  CLI::App* caches = app.get_subcommand("get")->add_subcommand("caches", "Slab caches of a machine, newest first");
  caches->add_option("machine", *machine, "Machine")->required();
  caches->callback([machine, &session] {
    v1::ListSlabCachesResponse all;
    std::vector<std::vector<std::string>> rows;
    for (v1::SlabCache& cache : AllCaches(session, *machine)) {
      rows.push_back({cache.name(), fmt::format("{}", cache.object_size_bytes()), fmt::format("{}", cache.slab_size_bytes()),
                      fmt::format("{}", cache.objs_per_slab()), fmt::format("{}", cache.order()), fmt::format("{}", cache.slabs()),
                      fmt::format("{}", cache.allocated_objects()), absl::StrJoin(cache.aliases(), ",")});
      *all.add_caches() = std::move(cache);
    }
    if (PrintStructured(session.options(), all)) return;
    fmt::print("{}", TableText({"NAME", "OBJECT", "SIZE", "PER-SLAB", "ORDER", "SLABS", "ALLOCATED", "ALIASES"}, rows));
  });
}

void AddSlabCache(CLI::App& app, Session& session) {
  struct Options {
    std::string machine;
    std::string cache;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.get_subcommand("describe")->add_subcommand("cache", "A slab cache with the attributes of /sys/kernel/slab, and its slabs");
  command->add_option("machine", options->machine, "Machine")->required();
  command->add_option("cache", options->cache, "Name, as /proc/slabinfo shows it")->required();
  command->callback([options, &session] {
    v1::GetSlabCacheRequest request;
    request.set_machine("machines/" + options->machine);
    request.set_cache(options->cache);
    v1::GetSlabCacheResponse response;
    session.Call(*session.connection().slab, &v1::SlabService::Stub::GetSlabCache, request, &response);
    if (PrintStructured(session.options(), response)) return;
    const v1::SlabCache& cache = response.cache();
    fmt::print("name              {}\n", cache.name());
    if (cache.aliases_size() > 0) fmt::print("aliases           {}\n", absl::StrJoin(cache.aliases(), " "));
    fmt::print("object_size       {}\nslab_size         {}\nalign             {}\norder             {}\nobjs_per_slab     {}\n",
               cache.object_size_bytes(), cache.slab_size_bytes(), cache.align_bytes(), cache.order(), cache.objs_per_slab());
    fmt::print("min_partial       {}\ncpu_partial       {} (at most {} slabs)\nflags             {:#x}\nctor              {}\n",
               cache.min_partial(), cache.cpu_partial(), cache.cpu_partial_slabs_limit(), cache.flags(),
               cache.constructor() ? "yes" : "no");
    fmt::print("usersize          {}\nrefcount          {}\n", cache.usersize_bytes(), cache.refcount());
    if (cache.limit() > 0) {
      fmt::print("limit             {}\nbatchcount        {}\nsharedfactor      {}\nshared_avail      {}\narray_objects     {}\n",
                 cache.limit(), cache.batchcount(), cache.sharedfactor(), cache.shared_avail(), cache.array_objects());
      fmt::print("active_slabs      {}\ncolours           {} ({} bytes apart)\nfreelist          {}\n", cache.active_slabs(),
                 cache.colours(), cache.colour_offset_bytes(), cache.freelist());
    }
    fmt::print("slabs             {}\ntotal_objects     {}\nallocated         {}\npartial           {}\nslabs_cpu_partial {}\n",
               cache.slabs(), cache.total_objects(), cache.allocated_objects(), cache.partial(), cache.cpu_partial_slabs());
    for (const v1::SlabPage& slab : response.slabs()) fmt::print("{}\n", SlabText(slab));
  });
}

void AddSlabObject(CLI::App& app, Session& session) {
  struct Options {
    std::string machine;
    std::string address;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      app.get_subcommand("describe")->add_subcommand("object", "Which slab object lies at a kernel address, and its neighbours");
  command->add_option("machine", options->machine, "Machine")->required();
  command->add_option("address", options->address, "Kernel address, 0x...")->required();
  command->callback([options, &session] {
    const std::optional<uint64_t> address = ParseSize(options->address);
    if (!address.has_value()) Fail(kExitUsage, "describe object: not an address: " + options->address);
    v1::GetSlabObjectRequest request;
    request.set_machine("machines/" + options->machine);
    request.set_address(*address);
    v1::GetSlabObjectResponse response;
    session.Call(*session.connection().slab, &v1::SlabService::Stub::GetSlabObject, request, &response);
    if (PrintStructured(session.options(), response)) return;
    if (response.cache().empty() && response.neighbours().empty()) {
      fmt::print("whole pages of kmalloc at {:#x}, order {}\n", response.object_address(), response.slab().order());
      return;
    }
    fmt::print("cache  {}\nslab   {}\nobject {:#x} index {} {}\n", response.cache().empty() ? "none (kmalloc)" : response.cache(),
               SlabText(response.slab()), response.object_address(), response.index(), response.allocated() ? "allocated" : "free");
    constexpr size_t kPerLine = 64;
    for (size_t at = 0; at < response.neighbours().size(); at += kPerLine) {
      fmt::print("{:>6} {}\n", at, response.neighbours().substr(at, kPerLine));
    }
  });
}

void AddGetPercpu(CLI::App& app, Session& session) {
  const auto machine = std::make_shared<std::string>();
  CLI::App* command = app.get_subcommand("get")->add_subcommand("percpu", "Chunks of the per-CPU allocator, as a request looks at them");
  command->add_option("machine", *machine, "Machine")->required();
  command->footer("Example:\n  mmlab alloc-percpu lab1 --size 100 && mmlab get percpu lab1");
  command->callback([machine, &session] {
    v1::ListPercpuChunksRequest request;
    request.set_parent("machines/" + *machine);
    v1::ListPercpuChunksResponse response;
    session.Call(*session.connection().kernel_addresses, &v1::KernelAddressService::Stub::ListPercpuChunks, request, &response);
    if (PrintStructured(session.options(), response)) return;
    std::vector<std::vector<std::string>> rows;
    for (const v1::PercpuChunk& chunk : response.chunks()) {
      rows.push_back({fmt::format("{:#x}", chunk.base_address()), fmt::format("{}/{}", chunk.populated_pages(), chunk.unit_pages()),
                      fmt::format("{}", chunk.empty_populated_pages()), fmt::format("{}", chunk.free_bytes()),
                      fmt::format("{}", chunk.largest_free_bytes()), fmt::format("{}", chunk.allocations()),
                      fmt::format("{}", chunk.slot()),
                      chunk.immutable()  ? "first chunk"
                      : chunk.isolated() ? "isolated"
                                         : ""});
    }
    fmt::print("{}", TableText({"BASE", "PAGES", "EMPTY", "FREE", "LARGEST", "TAKEN", "SLOT", "NOTE"}, rows));
    fmt::print("unit {} bytes a CPU, {} pages in all, {} of a unit there and empty\n", response.unit_size_bytes(), response.pages(),
               response.empty_populated_pages());
  });
}

}  // namespace

void AddSlabCommands(CLI::App& app, Session& session) {
  AddSlabtop(app, session);
  AddGetCaches(app, session);
  AddSlabCache(app, session);
  AddSlabObject(app, session);
  AddGetPercpu(app, session);
}

}  // namespace mmlab
