#ifndef MMLAB_SERVER_HTTP_CROSS_ORIGIN_H_
#define MMLAB_SERVER_HTTP_CROSS_ORIGIN_H_

#include <string>
#include <vector>

#include "server/http/http_server.h"

namespace mmlab {

// What a browser asks before it lets a page of another origin call the server (fetch.spec.whatwg.org, "CORS protocol").

// Whether the request is a preflight of an allowed origin; `allowed` as HttpOptions::allowed_origins.
bool IsPreflight(const std::vector<std::string>& allowed, const HttpRequest& request);
// Permission for the methods and headers of the Connect protocol, for two hours.
HttpResponse AnswerPreflight();
// Lets the page read the answer, when its origin is allowed.
void AllowOrigin(const std::vector<std::string>& allowed, const HttpRequest& request, HttpResponse& response);

}  // namespace mmlab

#endif  // MMLAB_SERVER_HTTP_CROSS_ORIGIN_H_
