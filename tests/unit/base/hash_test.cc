#include "server/base/hash.h"

#include <cstdint>
#include <set>
#include <string>

#include "gtest/gtest.h"

namespace mmlab {
namespace {

uint64_t HashOf(std::initializer_list<uint64_t> values) {
  StateHasher hasher;
  for (const uint64_t v : values) hasher.Add(v);
  return hasher.value();
}

uint64_t HashOfBytes(const std::string& bytes) {
  StateHasher hasher;
  hasher.AddBytes(bytes.data(), bytes.size());
  return hasher.value();
}

TEST(StateHasherTest, SameValuesSameHash) {
  EXPECT_EQ(HashOf({1, 2, 3}), HashOf({1, 2, 3}));
  EXPECT_EQ(HashOfBytes("a page of bytes"), HashOfBytes("a page of bytes"));
}

TEST(StateHasherTest, OrderCountAndEveryBitCount) {
  EXPECT_NE(HashOf({1, 2}), HashOf({2, 1}));
  EXPECT_NE(HashOf({}), HashOf({0}));
  EXPECT_NE(HashOf({0}), HashOf({0, 0}));
  std::set<uint64_t> seen = {HashOf({0})};
  for (int bit = 0; bit < 64; ++bit) EXPECT_TRUE(seen.insert(HashOf({uint64_t{1} << bit})).second) << "bit " << bit;
}

TEST(StateHasherTest, LengthOfBytesCounts) {
  std::set<uint64_t> seen;
  for (size_t size = 0; size < 40; ++size) EXPECT_TRUE(seen.insert(HashOfBytes(std::string(size, '\0'))).second) << size << " zeros";
}

// The hash is compared between hosts and between releases: these values may change only together with the state that is hashed.
TEST(StateHasherTest, IsTheSameOnEveryHost) {
  EXPECT_EQ(HashOf({}), 0x6d6d6c6162u);
  EXPECT_EQ(HashOf({1, 2, 3}), 14153651088806896056u);
  EXPECT_EQ(HashOfBytes("memory"), 2313988293723748915u);
}

}  // namespace
}  // namespace mmlab
