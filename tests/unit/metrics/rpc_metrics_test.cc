#include "server/metrics/rpc_metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace mmlab {
namespace {

using testing::HasSubstr;
using testing::Not;

class RpcMetricsTest : public testing::Test {
 protected:
  RpcMetricsTest() {
    metrics_.SetMethods(
        {{"mmlab.v1.ProcessService", "Mmap", RpcType::kUnary}, {"mmlab.v1.OperationService", "Execute", RpcType::kBidiStream}});
  }
  std::string Text() const { return Exposition(metrics_.Collect()); }

  RpcMetrics metrics_;
};

constexpr char kMmap[] = R"(grpc_method="Mmap",grpc_service="mmlab.v1.ProcessService",grpc_type="unary")";
constexpr char kExecute[] = R"(grpc_method="Execute",grpc_service="mmlab.v1.OperationService",grpc_type="bidi_stream")";

TEST(RpcMetrics, IsEmptyBeforeTheMethodsAreKnown) { EXPECT_TRUE(RpcMetrics().Collect().empty()); }

TEST_F(RpcMetricsTest, EveryMethodIsThereFromTheStart) {
  const std::string text = Text();
  for (const std::string labels : {kMmap, kExecute}) {
    EXPECT_THAT(text, HasSubstr("\ngrpc_server_started_total{" + labels + "} 0\n"));
    EXPECT_THAT(text, HasSubstr("\ngrpc_server_msg_received_total{" + labels + "} 0\n"));
    EXPECT_THAT(text, HasSubstr("\ngrpc_server_msg_sent_total{" + labels + "} 0\n"));
    EXPECT_THAT(text, HasSubstr("\ngrpc_server_handled_total{grpc_code=\"OK\"," + labels + "} 0\n"));
    EXPECT_THAT(text, HasSubstr("\ngrpc_server_handled_total{grpc_code=\"Unauthenticated\"," + labels + "} 0\n"));
    EXPECT_THAT(text, HasSubstr("\ngrpc_server_handling_seconds_bucket{" + labels + ",le=\"+Inf\"} 0\n"));
  }
}

TEST_F(RpcMetricsTest, CountsCallsByCode) {
  for (int i = 0; i < 3; ++i) {
    metrics_.Started(0);
    metrics_.Handled(0, i == 0 ? absl::StatusCode::kNotFound : absl::StatusCode::kOk, absl::Microseconds(1));
  }
  metrics_.Started(1);
  metrics_.MessageReceived(1);
  metrics_.MessageReceived(1);
  metrics_.MessageSent(1);
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr(std::string("\ngrpc_server_started_total{") + kMmap + "} 3\n"));
  EXPECT_THAT(text, HasSubstr(std::string("\ngrpc_server_handled_total{grpc_code=\"OK\",") + kMmap + "} 2\n"));
  EXPECT_THAT(text, HasSubstr(std::string("\ngrpc_server_handled_total{grpc_code=\"NotFound\",") + kMmap + "} 1\n"));
  EXPECT_THAT(text, HasSubstr(std::string("\ngrpc_server_msg_received_total{") + kExecute + "} 2\n"));
  EXPECT_THAT(text, HasSubstr(std::string("\ngrpc_server_msg_sent_total{") + kExecute + "} 1\n"));
  EXPECT_THAT(text, HasSubstr(std::string("\ngrpc_server_handled_total{grpc_code=\"OK\",") + kExecute + "} 0\n"));
}

TEST_F(RpcMetricsTest, BucketsAreCumulativeAndIncludeTheirBounds) {
  for (const absl::Duration took : {absl::Microseconds(50), absl::Microseconds(100), absl::Milliseconds(2), absl::Seconds(11)}) {
    metrics_.Handled(0, absl::StatusCode::kOk, took);
  }
  const std::string text = Text();
  const auto bucket = [](const std::string& le) {
    return std::string("grpc_server_handling_seconds_bucket{") + kMmap + ",le=\"" + le + "\"} ";
  };
  EXPECT_THAT(text, HasSubstr(bucket("0.0001") + "2\n"));
  EXPECT_THAT(text, HasSubstr(bucket("0.001") + "2\n"));
  EXPECT_THAT(text, HasSubstr(bucket("0.0025") + "3\n"));
  EXPECT_THAT(text, HasSubstr(bucket("10") + "3\n"));
  EXPECT_THAT(text, HasSubstr(bucket("+Inf") + "4\n"));
  EXPECT_THAT(text, HasSubstr(std::string("grpc_server_handling_seconds_count{") + kMmap + "} 4\n"));
  EXPECT_THAT(text, HasSubstr(std::string("grpc_server_handling_seconds_sum{") + kMmap + "} 11.00215\n"));
}

TEST_F(RpcMetricsTest, BatchesAreCountedBySize) {
  metrics_.BatchReceived(1);
  metrics_.BatchReceived(1000);
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("mmlab_batch_operations_bucket{le=\"1\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("mmlab_batch_operations_bucket{le=\"1024\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("mmlab_batch_operations_sum 1001\n"));
}

TEST_F(RpcMetricsTest, ACodeThatIsNoneOfGrpcsIsUnknown) {
  metrics_.Handled(0, static_cast<absl::StatusCode>(99), absl::ZeroDuration());
  EXPECT_THAT(Text(), HasSubstr(std::string("\ngrpc_server_handled_total{grpc_code=\"Unknown\",") + kMmap + "} 1\n"));
}

}  // namespace
}  // namespace mmlab
