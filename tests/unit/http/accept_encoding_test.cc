#include "server/http/accept_encoding.h"

#include <gtest/gtest.h>

namespace mmlab {
namespace {

struct Case {
  const char* name;
  const char* accept_encoding;
  bool gzip;
};
class AcceptsGzipTest : public testing::TestWithParam<Case> {};

TEST_P(AcceptsGzipTest, FollowsNamesAndWeights) { EXPECT_EQ(AcceptsGzip(GetParam().accept_encoding), GetParam().gzip); }

INSTANTIATE_TEST_SUITE_P(Headers, AcceptsGzipTest,
                         testing::Values(Case{"Absent", "", false}, Case{"Prometheus", "gzip", true},
                                         Case{"Browser", "gzip, deflate, br", true}, Case{"Upper", "GZIP", true},
                                         Case{"Weighted", "br;q=1.0, gzip;q=0.8", true}, Case{"RefusedByWeight", "gzip;q=0", false},
                                         Case{"RefusedByWeightInDigits", "gzip; q=0.000", false}, Case{"Any", "*", true},
                                         Case{"AnyButGzip", "gzip;q=0, *", false}, Case{"NothingElse", "*;q=0", false},
                                         Case{"Other", "br", false}, Case{"Lookalike", "notgzip", false},
                                         Case{"BadWeight", "gzip;q=x", false}),
                         [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace mmlab
