#include "server/service/status_bridge.h"

#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "server/host/errors.h"

namespace mmlab {
namespace {

google::rpc::Status ProtoOf(const absl::Status& status) {
  const grpc::Status bridged = ToGrpcStatus(status);
  google::rpc::Status proto;
  EXPECT_TRUE(proto.ParseFromString(bridged.error_details()));
  EXPECT_EQ(static_cast<int>(bridged.error_code()), static_cast<int>(status.code()));
  EXPECT_EQ(proto.code(), static_cast<int>(status.code()));
  EXPECT_EQ(proto.message(), bridged.error_message());
  return proto;
}

struct BridgeCase {
  const char* name;
  absl::Status status;
  const char* reason;
  const char* second;  // Type of the second detail; empty: none.
};
class BridgeTest : public testing::TestWithParam<BridgeCase> {};

TEST_P(BridgeTest, CarriesErrorInfoFirst) {
  const google::rpc::Status proto = ProtoOf(GetParam().status);
  google::rpc::ErrorInfo info;
  ASSERT_GE(proto.details_size(), 1);
  ASSERT_TRUE(proto.details(0).UnpackTo(&info));
  EXPECT_EQ(info.reason(), GetParam().reason);
  EXPECT_EQ(info.domain(), "mmlab");
  const std::string second = proto.details_size() > 1 ? proto.details(1).type_url() : "";
  EXPECT_EQ(second, GetParam().second);
}

#define DETAIL(name) "type.googleapis.com/google.rpc." name
INSTANTIATE_TEST_SUITE_P(
    Errors, BridgeTest,
    testing::Values(
        BridgeCase{"Field", InvalidField("a.b", "must be set"), "FIELD_INVALID", DETAIL("BadRequest")},
        BridgeCase{"Range", FieldOutOfRange("a", "must be small"), "OUT_OF_RANGE", DETAIL("BadRequest")},
        BridgeCase{"Missing", ResourceNotFound("machine", "machines/a"), "MACHINE_NOT_FOUND", DETAIL("ResourceInfo")},
        BridgeCase{"MissingFile", ResourceNotFound("proc_file", "x"), "PROC_FILE_NOT_FOUND", DETAIL("ResourceInfo")},
        BridgeCase{"Exists", ResourceExists("machine", "machines/a"), "MACHINE_ALREADY_EXISTS", DETAIL("ResourceInfo")},
        BridgeCase{"Limit", LimitReached("TOO_MANY_MACHINES", "machines", "at most 3"), "TOO_MANY_MACHINES", DETAIL("QuotaFailure")},
        BridgeCase{"State", WrongState("MACHINE_QUARANTINED", "machines/a", "is"), "MACHINE_QUARANTINED", DETAIL("PreconditionFailure")},
        BridgeCase{"Stopping", ShuttingDown(), "SHUTTING_DOWN", DETAIL("RetryInfo")},
        BridgeCase{"NotSimulated", NotSimulated("MAP_HUGETLB"), "NOT_SIMULATED", ""},
        BridgeCase{"Broken", InvariantBroken("machines/a", "x"), "INVARIANT_BROKEN", ""},
        BridgeCase{"Anonymous", absl::CancelledError("gone"), "CANCELLED", ""}),
    [](const auto& tested) { return tested.param.name; });

TEST(StatusBridgeTest, OkHasNoDetails) { EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).error_details().empty()); }

TEST(StatusBridgeTest, CutsLongMessages) {
  EXPECT_LE(ToGrpcStatus(absl::InternalError(std::string(100000, 'x'))).error_message().size(), 1024u);
}

TEST(StatusBridgeTest, PutsFieldsIntoTheirMessage) {
  google::rpc::BadRequest bad;
  const google::rpc::Status proto = ProtoOf(InField("operations[3]", InField("mmap", InvalidField("request_id", "must be empty"))));
  ASSERT_TRUE(proto.details(1).UnpackTo(&bad));
  EXPECT_EQ(bad.field_violations(0).field(), "operations[3].mmap.request_id");
  EXPECT_EQ(proto.message(), "operations[3].mmap.request_id must be empty");
}

}  // namespace
}  // namespace mmlab
