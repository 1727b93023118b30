#include "server/host/request_ids.h"

#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/base/random.h"

namespace mmlab {
namespace {

RequestIds::Answer Answer(const std::string& response) { return {absl::OkStatus(), response}; }

TEST(RequestIdsTest, GivesTheFirstAnswerAgain) {
  RequestIds ids;
  ASSERT_EQ(*ids.Find("a", 1), nullptr);
  ids.Remember("a", 1, Answer("first"));
  EXPECT_EQ((*ids.Find("a", 1))->response, "first");
  EXPECT_EQ((*ids.Find("a", 1))->response, "first");
}

TEST(RequestIdsTest, RefusesAnIdThatCameWithAnotherRequest) {
  RequestIds ids;
  ids.Remember("a", 1, Answer("first"));
  EXPECT_EQ(ids.Find("a", 2).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(RequestIdsTest, ForgetsWhatWasNotAskedForLongest) {
  RequestIds ids(/*max_ids=*/3);
  for (const char* id : {"a", "b", "c"}) ids.Remember(id, 1, Answer(id));
  ASSERT_NE(*ids.Find("a", 1), nullptr);
  ids.Remember("d", 1, Answer("d"));
  EXPECT_EQ(*ids.Find("b", 1), nullptr);
  for (const char* id : {"a", "c", "d"}) EXPECT_NE(*ids.Find(id, 1), nullptr) << id;
}

TEST(RequestIdsTest, HoldsLittleMoreThanItsBytes) {
  RequestIds ids(/*max_ids=*/1000, /*max_bytes=*/100);
  for (int i = 0; i < 50; ++i) ids.Remember(absl::StrCat(i), 1, Answer(std::string(30, 'x')));
  EXPECT_EQ(ids.size(), 3u);
  ids.Remember("large", 1, Answer(std::string(5000, 'x')));
  EXPECT_EQ(ids.size(), 1u);
  EXPECT_EQ((*ids.Find("large", 1))->response.size(), 5000u);
}

TEST(RequestIdsTest, AgreesWithAModelOverManySteps) {
  Random random(7);
  RequestIds ids(/*max_ids=*/16);
  std::map<std::string, uint64_t> last_use;  // By id, the newest 16.
  for (uint64_t step = 0; step < 20000; ++step) {
    const std::string id = absl::StrCat(random.Below(40));
    const RequestIds::Answer* known = *ids.Find(id, 1);
    ASSERT_EQ(known != nullptr, last_use.contains(id)) << step;
    if (known == nullptr) {
      ids.Remember(id, 1, Answer(id));
      if (last_use.size() == 16) {
        auto oldest = last_use.begin();
        for (auto it = last_use.begin(); it != last_use.end(); ++it) {
          if (it->second < oldest->second) oldest = it;
        }
        last_use.erase(oldest);
      }
    } else {
      ASSERT_EQ(known->response, id);
    }
    last_use[id] = step;
    ASSERT_EQ(ids.size(), last_use.size());
  }
}

struct IdCase {
  const char* name;
  std::string id;
  bool good;
};
class CheckRequestIdTest : public testing::TestWithParam<IdCase> {};
TEST_P(CheckRequestIdTest, IsAsDocumented) { EXPECT_EQ(CheckRequestId("request_id", GetParam().id).ok(), GetParam().good); }
INSTANTIATE_TEST_SUITE_P(Ids, CheckRequestIdTest,
                         testing::Values(IdCase{"Empty", "", true}, IdCase{"Uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", true},
                                         IdCase{"Longest", std::string(64, 'x'), true}, IdCase{"TooLong", std::string(65, 'x'), false},
                                         IdCase{"Space", "a b", false}, IdCase{"Newline", "a\n", false}),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace mmlab
