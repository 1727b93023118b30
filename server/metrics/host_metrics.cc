#include "server/metrics/host_metrics.h"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/host/host.h"
#include "server/metrics/machine_labels.h"
#include "server/physical/page_allocator.h"
#include "server/process/processes.h"

namespace mmlab {
namespace {

Families MachineMetrics(const Host& host) {
  std::map<std::pair<std::string, std::string>, uint64_t> machines;  // By architecture and state.
  for (const absl::string_view arch : kArchLabels) {
    for (const absl::string_view state : kStateLabels) machines[{std::string(arch), std::string(state)}] = 0;
  }
  uint64_t host_bytes = 0;
  uint64_t simulated_bytes = 0;
  uint64_t processes = 0;
  for (const std::shared_ptr<HostedMachine>& hosted : host.All()) {
    ++machines[{std::string(ArchLabel(hosted->layout())), std::string(StateLabel(hosted->state()))}];
    const MachineReader reader = hosted->Read();
    const Machine& machine = reader.machine();
    host_bytes += machine.HostMemory().raw();
    simulated_bytes += machine.memory().page_size().BytesOf(machine.memory().managed_pages()).raw();
    processes += machine.processes().all().size();
  }
  auto now = GaugeFamily("mmlab_machines", "Machines that exist now.");
  for (const auto& [key, count] : machines) AddSample(now, {{"arch", key.first}, {"state", key.second}}, static_cast<double>(count));
  return {
      std::move(now),
      Gauge("mmlab_machines_host_memory_bytes", "Memory of this server that the machines' state takes.", static_cast<double>(host_bytes)),
      Gauge("mmlab_machines_simulated_memory_bytes", "Sum of the machines' MemTotal.", static_cast<double>(simulated_bytes)),
      Gauge("mmlab_processes", "Simulated processes.", static_cast<double>(processes))};
}

Families TotalsMetrics(const HostTotals& totals) {
  auto created = CounterFamily("mmlab_machines_created_total", "Machines created.");
  std::map<std::string, uint64_t> created_by_arch;
  for (const auto& [layout, count] : totals.machines_created) created_by_arch[std::string(ArchLabel(layout))] += count;
  for (const auto& [arch, count] : created_by_arch) AddSample(created, {{"arch", arch}}, static_cast<double>(count));

  auto deleted = CounterFamily("mmlab_machines_deleted_total", "Machines deleted.");
  AddSample(deleted, {{"reason", "request"}}, static_cast<double>(totals.machines_deleted));

  auto operations = CounterFamily("mmlab_operations_total", "Operations applied, of all machines.");
  auto errors = CounterFamily("mmlab_operation_errors_total", "Operations that ended in an error or a signal of the simulated kernel.");
  for (size_t kind = 0; kind < kOperationKinds; ++kind) {
    const Labels labels = {{"operation", std::string(OperationNames()[kind])}};
    AddSampleOf(operations, labels, static_cast<double>(totals.operations[kind]));
    AddSampleOf(errors, labels, static_cast<double>(totals.operation_errors[kind]));
  }
  return {std::move(created), std::move(deleted), std::move(operations), std::move(errors)};
}

}  // namespace

Families HostMetrics(const Host& host) {
  Families families = MachineMetrics(host);
  Append(families, TotalsMetrics(host.Totals()));
  const WorkerPool& pool = host.pool();
  families.push_back(Gauge("mmlab_worker_threads", "Threads that carry long work.", pool.threads()));
  families.push_back(Gauge("mmlab_worker_threads_busy", "Of these, those at work.", pool.busy()));
  families.push_back(Gauge("mmlab_worker_queue_length", "Work that waits for a worker thread.", static_cast<double>(pool.queued())));
  const WatchTotals& watch = host.watch_totals();
  families.push_back(Gauge("mmlab_watch_streams", "Open event streams.", static_cast<double>(watch.streams.load())));
  families.push_back(Counter("mmlab_watch_events_sent_total", "Events sent to watchers.", static_cast<double>(watch.sent.load())));
  families.push_back(Counter("mmlab_watch_events_dropped_total", "Events lost because their reader was too slow.",
                             static_cast<double>(watch.dropped.load())));
  return families;
}

}  // namespace mmlab
