#include "server/http/cross_origin.h"

#include <algorithm>
#include <optional>

namespace mmlab {
namespace {

// The request's origin, when it is an allowed one.
std::optional<std::string> AllowedOrigin(const std::vector<std::string>& allowed, const HttpRequest& request) {
  std::optional<std::string> origin = request.Header("origin");
  const bool fits = std::any_of(allowed.begin(), allowed.end(), [&](const std::string& one) { return one == "*" || one == origin; });
  if (!fits) return std::nullopt;
  return origin;
}

}  // namespace

bool IsPreflight(const std::vector<std::string>& allowed, const HttpRequest& request) {
  return request.method == "OPTIONS" && request.Header("access-control-request-method").has_value() &&
         AllowedOrigin(allowed, request).has_value();
}

HttpResponse AnswerPreflight() {
  HttpResponse answer{.status = 204, .body = {}};
  answer.headers = {{"Access-Control-Allow-Methods", "GET, POST"},
                    {"Access-Control-Allow-Headers",
                     "Content-Type, Content-Encoding, Connect-Protocol-Version, Connect-Timeout-Ms, Connect-Content-Encoding, "
                     "Connect-Accept-Encoding, X-User-Agent"},
                    {"Access-Control-Max-Age", "7200"}};
  return answer;
}

void AllowOrigin(const std::vector<std::string>& allowed, const HttpRequest& request, HttpResponse& response) {
  if (allowed.empty()) return;
  response.headers.emplace_back("Vary", "Origin");
  const std::optional<std::string> origin = AllowedOrigin(allowed, request);
  if (!origin.has_value()) return;
  response.headers.emplace_back("Access-Control-Allow-Origin", *origin);
  response.headers.emplace_back("Access-Control-Expose-Headers", "Content-Encoding, Connect-Content-Encoding");
}

}  // namespace mmlab
