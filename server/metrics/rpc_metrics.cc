#include "server/metrics/rpc_metrics.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <limits>
#include <string>

#include "server/base/check.h"

namespace mmlab {
namespace {

// By number; the names that Go's grpc library prints.
constexpr std::array<const char*, 17> kCodeNames = {
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};
constexpr size_t kUnknownCode = 2;

constexpr double kSecondsBounds[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
constexpr size_t kSecondsBuckets = std::size(kSecondsBounds) + 1;  // And one for what is longer.
constexpr double kBatchBounds[] = {1, 4, 16, 64, 256, 1024, 4096, 16384, 65536};
constexpr size_t kBatchBuckets = std::size(kBatchBounds) + 1;

// Where a method's counters are, from the first one of the method on.
enum Cell : size_t {
  kStarted,
  kReceived,
  kSent,
  kHandled,
  kBuckets = kHandled + kCodeNames.size(),
  kNanoseconds = kBuckets + kSecondsBuckets,
  kCellsPerMethod
};
// Behind those of all methods.
enum BatchCell : size_t { kBatch, kBatchSum = kBatch + kBatchBuckets, kBatchCells };

const char* TypeName(RpcType type) {
  switch (type) {
    case RpcType::kUnary:
      return "unary";
    case RpcType::kClientStream:
      return "client_stream";
    case RpcType::kServerStream:
      return "server_stream";
    case RpcType::kBidiStream:
      return "bidi_stream";
  }
  return "unary";
}

template <size_t N>
size_t BucketOf(const double (&bounds)[N], double value) {
  return static_cast<size_t>(std::lower_bound(std::begin(bounds), std::end(bounds), value) - std::begin(bounds));
}

template <size_t N>
void AddHistogram(prometheus::MetricFamily& family, Labels labels, const double (&bounds)[N], const uint64_t* counts, double sum) {
  prometheus::ClientMetric& metric = family.metric.emplace_back();
  metric.label = std::move(labels);
  uint64_t total = 0;
  for (size_t i = 0; i <= N; ++i) {
    total += counts[i];
    metric.histogram.bucket.push_back({total, i < N ? bounds[i] : std::numeric_limits<double>::infinity()});
  }
  metric.histogram.sample_count = total;
  metric.histogram.sample_sum = sum;
}

}  // namespace

void RpcMetrics::SetMethods(const std::vector<RpcMethod>& methods) {
  MMLAB_CHECK(counters_ == nullptr);
  methods_ = methods;
  counters_ = std::make_unique<ThreadCounters>(methods.size() * kCellsPerMethod + kBatchCells);
}

void RpcMetrics::Started(size_t method) { counters_->Add(method * kCellsPerMethod + kStarted); }

void RpcMetrics::MessageReceived(size_t method) { counters_->Add(method * kCellsPerMethod + kReceived); }

void RpcMetrics::MessageSent(size_t method) { counters_->Add(method * kCellsPerMethod + kSent); }

void RpcMetrics::Handled(size_t method, absl::StatusCode code, absl::Duration handling_time) {
  const size_t first = method * kCellsPerMethod;
  const auto number = static_cast<size_t>(code);
  counters_->Add(first + kHandled + (number < kCodeNames.size() ? number : kUnknownCode));
  counters_->Add(first + kBuckets + BucketOf(kSecondsBounds, absl::ToDoubleSeconds(handling_time)));
  counters_->Add(first + kNanoseconds, static_cast<uint64_t>(std::max<int64_t>(0, absl::ToInt64Nanoseconds(handling_time))));
}

void RpcMetrics::BatchReceived(size_t operations) {
  const size_t first = methods_.size() * kCellsPerMethod;
  counters_->Add(first + kBatch + BucketOf(kBatchBounds, static_cast<double>(operations)));
  counters_->Add(first + kBatchSum, operations);
}

Families RpcMetrics::Collect() const {
  if (counters_ == nullptr) return {};
  auto started = CounterFamily("grpc_server_started_total", "Total number of RPCs started on the server.");
  auto handled =
      CounterFamily("grpc_server_handled_total", "Total number of RPCs completed on the server, regardless of success or failure.");
  auto received = CounterFamily("grpc_server_msg_received_total", "Total number of RPC stream messages received on the server.");
  auto sent = CounterFamily("grpc_server_msg_sent_total", "Total number of gRPC stream messages sent by the server.");
  auto handling = HistogramFamily("grpc_server_handling_seconds",
                                  "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.");
  auto batches = HistogramFamily("mmlab_batch_operations", "Operations in one batch request.");

  const std::vector<uint64_t> sums = counters_->Sums();
  for (size_t i = 0; i < methods_.size(); ++i) {
    const uint64_t* cells = &sums[i * kCellsPerMethod];
    const Labels labels = {{"grpc_method", std::string(methods_[i].method)},
                           {"grpc_service", std::string(methods_[i].service)},
                           {"grpc_type", TypeName(methods_[i].type)}};
    AddSampleOf(started, labels, static_cast<double>(cells[kStarted]));
    AddSampleOf(received, labels, static_cast<double>(cells[kReceived]));
    AddSampleOf(sent, labels, static_cast<double>(cells[kSent]));
    for (size_t code = 0; code < kCodeNames.size(); ++code) {
      Labels with_code = labels;
      with_code.insert(with_code.begin(), {"grpc_code", kCodeNames[code]});
      AddSampleOf(handled, std::move(with_code), static_cast<double>(cells[kHandled + code]));
    }
    AddHistogram(handling, labels, kSecondsBounds, &cells[kBuckets], static_cast<double>(cells[kNanoseconds]) / 1e9);
  }
  const uint64_t* batch = &sums[methods_.size() * kCellsPerMethod];
  AddHistogram(batches, {}, kBatchBounds, &batch[kBatch], static_cast<double>(batch[kBatchSum]));
  return {std::move(started), std::move(handled), std::move(received), std::move(sent), std::move(handling), std::move(batches)};
}

}  // namespace mmlab
