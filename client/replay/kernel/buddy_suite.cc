#include "client/replay/kernel/buddy_suite.h"

#include <algorithm>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "client/replay/kernel/buddy_dump.h"
#include "server/base/status_macros.h"

namespace mmlab {
namespace {

using Json = nlohmann::ordered_json;

Gfp GfpOfClass(const Json& op) {
  struct Class {
    absl::string_view name;
    Gfp gfp;
  };
  // The recordings take the direct reclaim bit out of every class.
  static constexpr Gfp kKernel = kGfpKernel & ~kGfpDirectReclaim;
  static constexpr Gfp kUser = kGfpUser & ~kGfpDirectReclaim;
  static constexpr Class kClasses[] = {
      {"KERNEL", kKernel},
      {"RECLAIMABLE", kKernel | kGfpReclaimable},
      {"ATOMIC", kGfpAtomic},
      {"NOWAIT", kGfpNowait},
      {"DMA", kKernel | kGfpZoneDma},
      {"DMA32", kKernel | kGfpZoneDma32},
      {"USER", kUser},
      {"USER_MOVABLE", kUser | kGfpMovable},
      {"HIGHUSER", kUser | kGfpZoneHighmem},
      {"HIGHUSER_MOVABLE", kUser | kGfpZoneHighmem | kGfpMovable},
      {"MEMALLOC", kKernel | kGfpMemalloc},
  };
  const std::string name = op.at("gfp");
  for (const Class& c : kClasses) {
    if (c.name == name) return c.gfp;
  }
  throw std::invalid_argument(absl::StrCat("gfp class ", name));
}

PageOrder OrderOf(const Json& op) {
  const int order = op.at("order");
  if (order < 0 || order > kMaxOrder) throw std::out_of_range(absl::StrCat("order ", order));
  return PageOrder(order);
}

size_t CountOf(const Json& op) {
  const auto n = op.at("n").get<size_t>();
  if (n > (size_t{1} << 20)) throw std::out_of_range(absl::StrCat("n ", n));
  return n;
}

}  // namespace

struct BuddySuite::Operation {
  absl::string_view name;
  std::vector<absl::string_view> arguments;
  Handler handler;
};

const BuddySuite::Operation* BuddySuite::Find(absl::string_view op) {
  static const std::vector<Operation> kOperations = {
      {"alloc", {"gfp", "order"}, &BuddySuite::Alloc},
      {"free", {"order"}, &BuddySuite::Free},
      {"alloc_exact", {"gfp", "bytes"}, &BuddySuite::AllocExact},
      {"free_exact", {"bytes"}, &BuddySuite::FreeExact},
      {"alloc_bulk", {"gfp", "n"}, &BuddySuite::AllocBulk},
      {"free_list", {"n"}, &BuddySuite::FreeList},
      {"split", {"order"}, &BuddySuite::Split},
      {"free_sub", {"sub"}, &BuddySuite::FreeSub},
      {"drain", {}, &BuddySuite::Drain},
  };
  const auto found = std::find_if(kOperations.begin(), kOperations.end(), [&](const Operation& o) { return o.name == op; });
  return found == kOperations.end() ? nullptr : &*found;
}

absl::Span<const absl::string_view> BuddySuite::Arguments(absl::string_view op) const {
  const Operation* const found = Find(op);
  return found == nullptr ? absl::Span<const absl::string_view>() : absl::MakeConstSpan(found->arguments);
}

absl::Status BuddySuite::Load(const Json& line) {
  if (line.value("kind", "") == "header") header_ = line;
  if (line.value("kind", "") != "state" || memory_ != nullptr) return absl::OkStatus();
  MMLAB_ASSIGN_OR_RETURN(const RecordedState state, BuddyStateFrom(header_, line));
  memory_ = std::make_unique<BuddyMemory>(state, tracer_);
  return absl::OkStatus();
}

void BuddySuite::Perform(const Json& op, Json& answer) {
  const Operation* const found = Find(op.at("op").get_ref<const std::string&>());
  if (memory_ == nullptr || found == nullptr) throw std::invalid_argument("an operation that is not known, or no dump before it");
  (this->*found->handler)(op, answer);
}

void BuddySuite::Dump(Json& answer) {
  answer["cpu"] = memory_ == nullptr ? 0 : memory_->current_cpu();
  answer["zones"] = Json::array();
  if (memory_ == nullptr) return;
  for (const Zone& zone : memory_->zones()) {
    if (zone.populated()) answer["zones"].push_back(DumpZone(*memory_, zone));
  }
}

std::vector<std::string> BuddySuite::CheckInvariants() const {
  std::vector<std::string> broken;
  if (memory_ != nullptr) memory_->CheckInvariants(&broken);
  return broken;
}

void BuddySuite::Hold(int64_t handle, std::optional<Pfn> pfn, Json& answer) {
  answer["pfn"] = pfn ? Json(pfn->raw()) : Json(nullptr);
  held_.erase(handle);
  if (pfn) held_.emplace(handle, *pfn);
}

std::optional<Pfn> BuddySuite::Held(const Json& op) const {
  const auto found = held_.find(op.at("h").get<int64_t>());
  return found == held_.end() ? std::nullopt : std::optional<Pfn>(found->second);
}

void BuddySuite::Alloc(const Json& op, Json& answer) { Hold(op.at("h"), memory_->AllocPages(GfpOfClass(op), OrderOf(op)), answer); }

void BuddySuite::AllocExact(const Json& op, Json& answer) {
  Hold(op.at("h"), memory_->AllocPagesExact(Bytes(op.at("bytes").get<uint64_t>()), GfpOfClass(op)), answer);
}

void BuddySuite::Free(const Json& op, Json& answer) {
  const std::optional<Pfn> pfn = Held(op);
  answer["pfn"] = pfn ? Json(pfn->raw()) : Json(nullptr);
  if (!pfn) return;
  const PageOrder order = OrderOf(op);
  if (memory_->PeekFrame(*pfn).order != order.raw()) throw std::invalid_argument("freed with another order than it was allocated with");
  memory_->FreePages(*pfn, order);
  held_.erase(op.at("h").get<int64_t>());
}

void BuddySuite::FreeExact(const Json& op, Json& answer) {
  const std::optional<Pfn> pfn = Held(op);
  answer["pfn"] = pfn ? Json(pfn->raw()) : Json(nullptr);
  if (!pfn) return;
  memory_->FreePagesExact(*pfn, Bytes(op.at("bytes").get<uint64_t>()));
  held_.erase(op.at("h").get<int64_t>());
}

void BuddySuite::AllocBulk(const Json& op, Json& answer) {
  std::vector<Pfn> pages(CountOf(op));
  const size_t got = memory_->AllocPagesBulk(GfpOfClass(op), absl::MakeSpan(pages));
  const auto first = op.at("h").get<int64_t>();
  answer["got"] = got;
  answer["pfns"] = Json::array();
  for (size_t i = 0; i < got; ++i) {
    answer["pfns"].push_back(pages[i].raw());
    held_.insert_or_assign(first + static_cast<int64_t>(i), pages[i]);
  }
}

void BuddySuite::FreeList(const Json& op, Json& answer) {
  std::vector<Pfn> pages;
  const auto first = op.at("h").get<int64_t>();
  answer["pfns"] = Json::array();
  for (int64_t h = first; h < first + static_cast<int64_t>(CountOf(op)); ++h) {
    const auto found = held_.find(h);
    if (found == held_.end()) continue;
    if (memory_->PeekFrame(found->second).order != 0) throw std::invalid_argument("a list with a block of more than a page");
    pages.push_back(found->second);
    answer["pfns"].push_back(found->second.raw());
    held_.erase(found);
  }
  memory_->FreePageList(pages);
}

void BuddySuite::Split(const Json& op, Json& answer) {
  const std::optional<Pfn> pfn = Held(op);
  answer["pfn"] = pfn ? Json(pfn->raw()) : Json(nullptr);
  if (!pfn) return;
  if (memory_->PeekFrame(*pfn).order != OrderOf(op).raw())
    throw std::invalid_argument("split with another order than it was allocated with");
  memory_->SplitPage(*pfn, OrderOf(op));
}

void BuddySuite::FreeSub(const Json& op, Json& answer) {
  const std::optional<Pfn> head = Held(op);
  answer["pfn"] = nullptr;
  if (!head) return;
  const Pfn page = *head + PageCount(op.at("sub").get<uint64_t>());
  if (page >= memory_->end_pfn()) throw std::out_of_range("sub");
  const Frame frame = memory_->PeekFrame(page);
  if (frame.state != FrameState::kKernel || frame.order != 0) throw std::invalid_argument("a page that is not one of a split block");
  answer["pfn"] = page.raw();
  memory_->FreePages(page, PageOrder(0));
}

void BuddySuite::Drain(const Json&, Json&) { memory_->DrainLocalPages(); }

}  // namespace mmlab
