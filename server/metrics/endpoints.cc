#include "server/metrics/endpoints.h"

#include <chrono>

#include "server/metrics/discovery.h"
#include "server/metrics/exposition.h"
#include "server/metrics/probe.h"

namespace mmlab {

void ServeMetrics(HttpServer& http, const Host& host, ServerMetrics& metrics, const std::string& external_address) {
  for (const char* path : {"/metrics", "/probe", "/sd/prometheus"}) metrics.DeclareHandler(path);
  http.Route("GET", "/metrics", [&metrics](const HttpRequest&) {
    return HttpResponse{.content_type = kExpositionContentType, .body = Exposition(metrics.Collect()), .headers = {}};
  });
  http.Route("GET", "/probe", [&host, &metrics](const HttpRequest& request) {
    const auto start = std::chrono::steady_clock::now();
    HttpResponse response = AnswerProbe(host, request);
    if (response.status == 200) metrics.OnProbe(std::chrono::steady_clock::now() - start);
    return response;
  });
  http.Route("GET", "/sd/prometheus",
             [&host, external_address](const HttpRequest& request) { return AnswerDiscovery(host, request, external_address); });
}

}  // namespace mmlab
