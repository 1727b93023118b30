#include "server/machine/movable_pages.h"

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/physical/page_allocator.h"

namespace mmlab {

std::optional<Pfn> MovablePages::Find(uint64_t id) const {
  const auto it = pages_.find(id);
  if (it == pages_.end()) return std::nullopt;
  return it->second;
}

void MovablePages::Add(uint64_t id, Pfn pfn) {
  MMLAB_CHECK(id >= 1 && id <= kMaxId && !pages_.contains(id));
  Frame& frame = memory_.frame(pfn);
  frame.flags |= kPgMovable;
  frame.index = id;
  pages_.emplace(id, pfn);
}

void MovablePages::Forget(Pfn pfn) {
  Frame& frame = memory_.frame(pfn);
  if ((frame.flags & kPgMovable) == 0) return;
  pages_.erase(uint64_t{frame.index});
  frame.flags &= ~uint32_t{kPgMovable};
}

bool MovablePages::MovePage(Pfn from, Pfn to) {
  Frame& source = memory_.frame(from);
  if (source.refcount != 2) return false;  // The holder's and the caller's.
  memory_.contents().Copy(from, to);
  Frame& target = memory_.frame(to);
  target.state = source.state;
  target.flags = source.flags;
  target.mapping = source.mapping;
  target.index = source.index;
  pages_[uint64_t{source.index}] = to;
  source.flags = 0;
  source.refcount = 1;
  return true;
}

void MovablePages::CheckInvariants(std::vector<std::string>* violations) const {
  for (const auto& [id, pfn] : pages_) {
    const Frame frame = memory_.PeekFrame(pfn);
    if (frame.state != FrameState::kKernel || (frame.flags & kPgMovable) == 0 || frame.index != id || frame.refcount != 1) {
      violations->push_back(absl::StrCat("movable page ", id, ": frame ", pfn.raw(), " is not its own"));
    }
  }
}

void MovablePages::AddToHash(StateHasher& hasher) const {
  for (const auto& [id, pfn] : pages_) {
    hasher.Add(id);
    hasher.Add(pfn.raw());
  }
}

uint64_t MovablePages::HostMemory() const { return sizeof(*this) + pages_.size() * 2 * sizeof(uint64_t) * 4 / 3; }

}  // namespace mmlab
