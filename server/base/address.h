#ifndef MMLAB_SERVER_BASE_ADDRESS_H_
#define MMLAB_SERVER_BASE_ADDRESS_H_

#include <compare>
#include <cstdint>
#include <type_traits>

#include "server/base/check.h"

namespace mmlab {

// How much of something. Adds, subtracts, compares; overflow is a failed check, never a wrap.
template <typename Tag>
class Amount {
 public:
  constexpr Amount() = default;
  constexpr explicit Amount(uint64_t raw) : raw_(raw) {}

  constexpr uint64_t raw() const { return raw_; }  // Only at the edges: protos, text, array indexes.

  friend constexpr auto operator<=>(Amount, Amount) = default;
  friend constexpr Amount operator+(Amount a, Amount b) {
    uint64_t sum = 0;
    MMLAB_CHECK(!__builtin_add_overflow(a.raw_, b.raw_, &sum));
    return Amount(sum);
  }
  friend constexpr Amount operator-(Amount a, Amount b) {
    MMLAB_CHECK(a.raw_ >= b.raw_);
    return Amount(a.raw_ - b.raw_);
  }
  friend constexpr Amount operator*(Amount a, uint64_t factor) {
    uint64_t product = 0;
    MMLAB_CHECK(!__builtin_mul_overflow(a.raw_, factor, &product));
    return Amount(product);
  }
  constexpr Amount& operator+=(Amount b) { return *this = *this + b; }
  constexpr Amount& operator-=(Amount b) { return *this = *this - b; }

  template <typename H>
  friend H AbslHashValue(H h, Amount a) {
    return H::combine(std::move(h), a.raw_);
  }

 private:
  uint64_t raw_ = 0;
};

// Where something is. Place + Distance = Place, Place - Place = Distance; two places never add.
template <typename Tag, typename Distance>
class Place {
 public:
  constexpr Place() = default;
  constexpr explicit Place(uint64_t raw) : raw_(raw) {}

  constexpr uint64_t raw() const { return raw_; }

  friend constexpr auto operator<=>(Place, Place) = default;
  friend constexpr Place operator+(Place a, Distance d) {
    uint64_t sum = 0;
    MMLAB_CHECK(!__builtin_add_overflow(a.raw_, d.raw(), &sum));
    return Place(sum);
  }
  friend constexpr Place operator-(Place a, Distance d) {
    MMLAB_CHECK(a.raw_ >= d.raw());
    return Place(a.raw_ - d.raw());
  }
  friend constexpr Distance operator-(Place a, Place b) {
    MMLAB_CHECK(a.raw_ >= b.raw_);
    return Distance(a.raw_ - b.raw_);
  }
  constexpr Place& operator+=(Distance d) { return *this = *this + d; }
  constexpr Place& operator-=(Distance d) { return *this = *this - d; }
  constexpr Place& operator++() { return *this = *this + Distance(1); }

  template <typename H>
  friend H AbslHashValue(H h, Place p) {
    return H::combine(std::move(h), p.raw_);
  }

 private:
  uint64_t raw_ = 0;
};

using Bytes = Amount<struct BytesTag>;
using PageCount = Amount<struct PageCountTag>;
using PhysAddr = Place<struct PhysAddrTag, Bytes>;
using VirtAddr = Place<struct VirtAddrTag, Bytes>;
using Pfn = Place<struct PfnTag, PageCount>;              // Number of a physical page frame.
using PageIndex = Place<struct PageIndexTag, PageCount>;  // Page offset in a file or object (pgoff_t).

static_assert(!std::is_constructible_v<PhysAddr, VirtAddr>);
static_assert(!std::is_convertible_v<uint64_t, PhysAddr>);

// Half-open: [start, end).
template <typename P>
struct Range {
  P start;
  P end;

  constexpr auto length() const { return end - start; }
  constexpr bool empty() const { return start == end; }
  constexpr bool Contains(P p) const { return start <= p && p < end; }
  constexpr bool Contains(Range other) const { return start <= other.start && other.end <= end; }
  constexpr bool Overlaps(Range other) const { return start < other.end && other.start < end; }
  friend constexpr bool operator==(Range, Range) = default;
};
using PhysRange = Range<PhysAddr>;
using VirtRange = Range<VirtAddr>;
using PfnRange = Range<Pfn>;

// 2^order pages, as the buddy allocator counts (0 .. kMaxOrder).
class PageOrder {
 public:
  constexpr PageOrder() = default;
  constexpr explicit PageOrder(int raw) : raw_(static_cast<uint8_t>(raw)) { MMLAB_CHECK(raw >= 0 && raw < 64); }
  constexpr int raw() const { return raw_; }
  constexpr PageCount pages() const { return PageCount(uint64_t{1} << raw_); }
  friend constexpr auto operator<=>(PageOrder, PageOrder) = default;

 private:
  uint8_t raw_ = 0;
};
inline constexpr int kMaxOrder = 10;           // MAX_ORDER - 1 of Linux 6.1.
inline constexpr int kOrders = kMaxOrder + 1;  // Orders 0 .. 10.

// The page size of one machine, a value because machines differ. Each conversion says which way it rounds.
class PageSize {
 public:
  constexpr explicit PageSize(int shift) : shift_(static_cast<uint8_t>(shift)) {}
  constexpr int shift() const { return shift_; }
  constexpr Bytes bytes() const { return Bytes(uint64_t{1} << shift_); }
  constexpr uint64_t mask() const { return (uint64_t{1} << shift_) - 1; }

  constexpr PageCount PagesHolding(Bytes b) const {  // Rounds up.
    return PageCount((b.raw() >> shift_) + ((b.raw() & mask()) != 0 ? 1 : 0));
  }
  constexpr PageCount WholePagesIn(Bytes b) const { return PageCount(b.raw() >> shift_); }  // Rounds down.
  constexpr Bytes BytesOf(PageCount p) const {
    MMLAB_CHECK((p.raw() << shift_) >> shift_ == p.raw());
    return Bytes(p.raw() << shift_);
  }
  constexpr Pfn FrameHolding(PhysAddr a) const { return Pfn(a.raw() >> shift_); }
  constexpr PhysAddr StartOf(Pfn pfn) const { return PhysAddr(pfn.raw() << shift_); }
  constexpr VirtAddr RoundDown(VirtAddr a) const { return VirtAddr(a.raw() & ~mask()); }
  constexpr bool IsAligned(VirtAddr a) const { return (a.raw() & mask()) == 0; }
  constexpr uint64_t OffsetIn(VirtAddr a) const { return a.raw() & mask(); }

  friend constexpr bool operator==(PageSize, PageSize) = default;

 private:
  uint8_t shift_ = 12;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_BASE_ADDRESS_H_
