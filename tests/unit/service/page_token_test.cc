#include "server/service/page_token.h"

#include "gtest/gtest.h"

namespace mmlab {
namespace {

TEST(PageTokenTest, GoesRoundTrip) {
  for (const std::string last : {"a", "machine-7", "18446744073709551615", "\x01\xff/+"}) {
    EXPECT_EQ(*ParsePageToken("List", MakePageToken("List", last)), last);
  }
}

TEST(PageTokenTest, TheFirstPageHasNone) { EXPECT_EQ(*ParsePageToken("List", ""), ""); }

TEST(PageTokenTest, RefusesWhatIsNotOurs) {
  const std::string good = MakePageToken("List", "a");
  std::string changed = good;
  changed[0] = changed[0] == 'M' ? 'N' : 'M';
  for (const std::string& bad : {changed, good.substr(4), std::string("x"), std::string("!!!!"), MakePageToken("Other", "a")}) {
    EXPECT_EQ(ParsePageToken("List", bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

struct SizeCase {
  const char* name;
  int32_t wished;
  int want;  // -1: refused.
};
class PageSizeTest : public testing::TestWithParam<SizeCase> {};
TEST_P(PageSizeTest, FollowsAip158) {
  const absl::StatusOr<size_t> size = PageSizeFrom(GetParam().wished);
  EXPECT_EQ(size.ok() ? static_cast<int>(*size) : -1, GetParam().want);
}
INSTANTIATE_TEST_SUITE_P(Sizes, PageSizeTest,
                         testing::Values(SizeCase{"Default", 0, 100}, SizeCase{"One", 1, 1}, SizeCase{"Most", 1000, 1000},
                                         SizeCase{"AboveMost", 1001, 1000}, SizeCase{"Huge", 2147483647, 1000},
                                         SizeCase{"Negative", -1, -1}),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace mmlab
