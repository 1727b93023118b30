#include "server/base/result.h"

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "server/base/check.h"
#include "server/base/status_macros.h"

namespace mmlab {
namespace {

SysResult<int> Half(int n) {
  if (n % 2 != 0) return Errno::kEINVAL;
  return n / 2;
}

Errno MustBePositive(int n) { return n > 0 ? Errno::kOk : Errno::kERANGE; }

SysResult<int> QuarterOfPositive(int n) {
  MMLAB_TRY(MustBePositive(n));
  MMLAB_TRY_ASSIGN(const int half, Half(n));
  MMLAB_TRY_ASSIGN(const int quarter, Half(half));
  return quarter;
}

TEST(SysResultTest, HoldsAValueOrAnErrno) {
  EXPECT_TRUE(Half(4).ok());
  EXPECT_EQ(Half(4).value(), 2);
  EXPECT_EQ(Half(4).error(), Errno::kOk);
  EXPECT_FALSE(Half(3).ok());
  EXPECT_EQ(Half(3).error(), Errno::kEINVAL);
}

TEST(SysResultTest, WrongUseFailsACheck) {
  EXPECT_THROW((void)Half(3).value(), CheckFailure);
  EXPECT_THROW(SysResult<int>(Errno::kOk), CheckFailure);
}

TEST(SysResultTest, GivesUpWhatOnlyMoves) {
  SysResult<std::unique_ptr<int>> result(std::make_unique<int>(5));
  const std::unique_ptr<int> taken = std::move(result).value();
  EXPECT_EQ(*taken, 5);
}

TEST(SysResultTest, MacrosReturnTheFirstErrno) {
  EXPECT_EQ(QuarterOfPositive(8).value(), 2);
  EXPECT_EQ(QuarterOfPositive(0).error(), Errno::kERANGE);
  EXPECT_EQ(QuarterOfPositive(7).error(), Errno::kEINVAL);  // At the first half.
  EXPECT_EQ(QuarterOfPositive(6).error(), Errno::kEINVAL);  // At the second.
}

absl::StatusOr<int> Parse(const std::string& text) {
  if (text.empty()) return absl::InvalidArgumentError("empty");
  return static_cast<int>(text.size());
}

absl::Status Reject(int n) { return n > 3 ? absl::OutOfRangeError("long") : absl::OkStatus(); }

absl::StatusOr<int> ParseShort(const std::string& text) {
  MMLAB_ASSIGN_OR_RETURN(const int length, Parse(text));
  MMLAB_RETURN_IF_ERROR(Reject(length));
  return length;
}

TEST(StatusMacrosTest, ReturnTheFirstStatus) {
  EXPECT_EQ(ParseShort("abc").value(), 3);
  EXPECT_EQ(ParseShort("").status(), absl::InvalidArgumentError("empty"));
  EXPECT_EQ(ParseShort("abcd").status(), absl::OutOfRangeError("long"));
}

TEST(CheckTest, SaysWhatFailedAndWhere) {
  const int frames = 3;
  MMLAB_CHECK(frames == 3);
  try {
    MMLAB_CHECK(frames == 4);
    FAIL() << "a failed check returned";
  } catch (const CheckFailure& failure) {
    EXPECT_NE(std::string(failure.what()).find("frames == 4"), std::string::npos);
    EXPECT_NE(std::string(failure.what()).find("result_test.cc"), std::string::npos);
  }
}

}  // namespace
}  // namespace mmlab
