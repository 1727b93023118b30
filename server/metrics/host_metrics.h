#ifndef MMLAB_SERVER_METRICS_HOST_METRICS_H_
#define MMLAB_SERVER_METRICS_HOST_METRICS_H_

#include "server/metrics/exposition.h"

namespace mmlab {

class Host;

// What all machines of a host are and did together: mmlab_machines*, mmlab_operations*, mmlab_processes, mmlab_worker_*. Reads one machine
// after another, never holding more than one.
Families HostMetrics(const Host& host);

}  // namespace mmlab

#endif  // MMLAB_SERVER_METRICS_HOST_METRICS_H_
