#ifndef MMLAB_SERVER_METRICS_PROCESS_METRICS_H_
#define MMLAB_SERVER_METRICS_PROCESS_METRICS_H_

#include "server/metrics/exposition.h"

namespace mmlab {

// process_*: what the server's own process uses of its host, with the meaning that all Prometheus client libraries give the names.
// Read from the host's /proc/self; what cannot be read is absent.
Families ProcessMetrics();

}  // namespace mmlab

#endif  // MMLAB_SERVER_METRICS_PROCESS_METRICS_H_
