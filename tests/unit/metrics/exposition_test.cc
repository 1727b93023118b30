#include "server/metrics/exposition.h"

#include <gtest/gtest.h>

#include <utility>

namespace mmlab {
namespace {

TEST(Exposition, SortsFamiliesAndLeavesOutEmptyOnes) {
  Families families;
  families.push_back(Untyped("b", "Second.", 2));
  families.push_back(GaugeFamily("nothing", "No sample."));
  families.push_back(Counter("a_total", "First.", 1));
  EXPECT_EQ(Exposition(std::move(families)),
            "# HELP a_total First.\n# TYPE a_total counter\na_total 1\n"
            "# HELP b Second.\n# TYPE b untyped\nb 2\n");
}

TEST(Exposition, LargeCountsAreExact) {
  Families families;
  families.push_back(Gauge("a", "A.", 9007199254740991.0 / 8));
  families.push_back(Gauge("b", "B.", 17179869184.0));
  const std::string text = Exposition(std::move(families));
  EXPECT_NE(text.find("\na 1125899906842624"), std::string::npos) << text;
  EXPECT_NE(text.find("\nb 17179869184\n"), std::string::npos) << text;
}

TEST(Exposition, LabelValuesCannotBreakALine) {
  Families families;
  families.push_back(GaugeFamily("a", "A."));
  AddSample(families[0], {{"l", "quote \" backslash \\ newline \n end"}}, 1);
  EXPECT_EQ(Exposition(std::move(families)), "# HELP a A.\n# TYPE a gauge\na{l=\"quote \\\" backslash \\\\ newline \\n end\"} 1\n");
}

}  // namespace
}  // namespace mmlab
