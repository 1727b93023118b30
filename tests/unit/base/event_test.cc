#include "server/base/event.h"

#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/base/explanation.h"

namespace mmlab {
namespace {

class Lines final : public EventSink {
 public:
  explicit Lines(EventKinds kinds) { SetWanted(kinds); }
  std::vector<std::string> lines;

 private:
  void Record(EventKind kind, absl::Span<const EventValue> values) override {
    lines.push_back(actor().comm + " " + FormatOf(kind).full_name + " " + FormatOf(kind).Print(values));
  }
};

TEST(EventTest, EveryKindHasANameOfItsOwnAndFields) {
  std::set<std::string> names;
  for (size_t i = 0; i < kEventKinds; ++i) {
    const EventFormat& format = FormatOf(static_cast<EventKind>(i));
    EXPECT_TRUE(names.insert(format.full_name).second) << format.full_name;
    EXPECT_FALSE(format.fields.empty()) << format.full_name;
    EXPECT_EQ(format.between.size(), format.fields.size() + 1);
    for (const EventField& field : format.fields) EXPECT_FALSE(field.name.empty());
  }
}

TEST(EventTest, FieldsArePrintedAsTheKernelDoes) {
  EXPECT_EQ(FormatOf(EventKind::kMmPageAlloc).Print({0x1f, 0, 1, "GFP_KERNEL"}),
            "page=(____ptrval____) pfn=0x1f order=0 migratetype=1 gfp_flags=GFP_KERNEL");
  EXPECT_EQ(FormatOf(EventKind::kKfree).Print({"f", 0xc1234560u}), "call_site=f ptr=c1234560");
  EXPECT_EQ(FormatOf(EventKind::kKfree).Print({"f", 0xffff000000001000u}), "call_site=f ptr=ffff000000001000");
  EXPECT_EQ(FormatOf(EventKind::kMmCompactionSuitable).Print({0, "DMA", -1, "skipped"}), "node=0 zone=DMA      order=-1 ret=skipped");
  EXPECT_EQ(FormatOf(EventKind::kMmCompactionIsolateFreepages).Print({16, 32, 5, 6}), "range=(0x10 ~ 0x20) nr_scanned=5 nr_taken=6");
}

TEST(EventTest, OnlyWantedKindsArriveAndAKernelThreadActsForAWhile) {
  EventKinds kinds;
  kinds.set(static_cast<size_t>(EventKind::kMmPageFree));
  Lines sink(kinds);
  sink.SetActor(EventActor{7, 0, 0, "bash"});
  sink.Emit(EventKind::kMmPageFree, {1, 0});
  sink.Emit(EventKind::kMmPageAlloc, {1, 0, 0, "none"});
  {
    const ActingAs kswapd(&sink, 50, "kswapd0");
    sink.Emit(EventKind::kMmPageFree, {2, 0});
  }
  { const ActingAs nobody_watches(nullptr, 50, "kswapd0"); }
  sink.Emit(EventKind::kMmPageFree, {3, 0});
  const std::string free = " kmem:mm_page_free page=(____ptrval____) pfn=0x";
  EXPECT_EQ(sink.lines,
            (std::vector<std::string>{"bash" + free + "1 order=0", "kswapd0" + free + "2 order=0", "bash" + free + "3 order=0"}));
}

TEST(EventTest, TheTracerSaysWhetherAnybodyObserves) {
  Tracer tracer;
  Explanation why;
  Lines sink{EventKinds()};
  EXPECT_FALSE(tracer.observed());
  tracer.Watch(&sink);
  tracer.Explain(&why);
  tracer.Watch(nullptr);
  EXPECT_TRUE(tracer.observed());
  tracer.Explain(nullptr);
  EXPECT_FALSE(tracer.observed());
}

}  // namespace
}  // namespace mmlab
