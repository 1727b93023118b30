#include "server/http/gzip.h"

#include <gtest/gtest.h>

#include <string>

namespace mmlab {
namespace {

TEST(Gunzip, GivesBackWhatWasPacked) {
  for (const size_t size : {0, 1, 16383, 16384, 16385, 100000}) {
    const std::string text(size, 'x');
    EXPECT_EQ(Gunzip(Gzip(text), size), text) << size;
  }
}

TEST(Gunzip, RefusesWhatIsTooLongOrNoGzip) {
  const std::string packed = Gzip(std::string(100000, 'x'));
  EXPECT_EQ(Gunzip(packed, 99999), std::nullopt);
  EXPECT_EQ(Gunzip(packed.substr(0, packed.size() - 1), 100000), std::nullopt);
  EXPECT_EQ(Gunzip(packed + "x", 100000), std::nullopt);
  EXPECT_EQ(Gunzip("", 10), std::nullopt);
  EXPECT_EQ(Gunzip("plain text", 100), std::nullopt);
}

}  // namespace
}  // namespace mmlab
