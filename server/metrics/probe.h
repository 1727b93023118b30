#ifndef MMLAB_SERVER_METRICS_PROBE_H_
#define MMLAB_SERVER_METRICS_PROBE_H_

#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "server/http/http_server.h"
#include "server/metrics/collector.h"

namespace mmlab {

class Host;

// GET /probe?target=MACHINE: one machine's page, as if node_exporter ran inside it. 400 without target or with a wrong choice of
// collectors, 404 no such machine, 503 when the scrape's deadline has passed meanwhile.
HttpResponse AnswerProbe(const Host& host, const HttpRequest& request);

// What the chosen collectors say of a machine, one snapshot for all, and node_scrape_collector_* for each. `read` calls its argument with
// the machine held. A collector that finds the machine broken gives no samples and success 0; one that
// the machine cannot serve is not there at all.
using WithMachine = absl::FunctionRef<void(absl::FunctionRef<void(const Machine&)>)>;
Families CollectMachine(absl::Span<const Collector* const> collectors, WithMachine with_machine);

}  // namespace mmlab

#endif  // MMLAB_SERVER_METRICS_PROBE_H_
