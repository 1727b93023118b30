// Between the lane that tells events and those who read them: order, filters, losses, coming back.
#include "server/host/event_hub.h"

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "server/host/worker_pool.h"
#include "server/machine/machine.h"
#include "tests/unit/machine/preset_specs.h"

namespace mmlab {
namespace {

class Woken final : public EventWatcher {
 public:
  void EventsArrived() override { ++times; }
  std::atomic<int> times{0};
};

EventFilter Only(std::initializer_list<EventKind> kinds) {
  EventFilter filter;
  for (const EventKind kind : kinds) filter.kinds.set(static_cast<size_t>(kind));
  return filter;
}

class EventHubTest : public testing::Test {
 protected:
  // What a lane does with one operation that tells so many pages freed.
  void Tell(int events, EventKind kind = EventKind::kMmPageFree, int32_t pid = 1) {
    if (!hub_->active()) return;
    hub_->Enter(*machine_);
    hub_->SetActor(EventActor{pid, 0, 0, "task"});
    for (int i = 0; i < events; ++i) hub_->Emit(kind, {next_++, 0});
    hub_->Publish();
  }
  EventHub::Cursor Subscribe(const EventFilter& filter, uint64_t after = 0) { return hub_->Subscribe(watcher_, filter, after).value(); }

  std::unique_ptr<Machine> machine_ = Machine::Boot(PresetSpec("686-64M")).value();
  WorkerPool pool_{2};
  std::shared_ptr<EventHub> hub_ = std::make_shared<EventHub>(pool_);
  std::shared_ptr<Woken> watcher_ = std::make_shared<Woken>();
  uint64_t next_ = 1;
};

TEST_F(EventHubTest, NobodyWatchesNothingIsRecorded) {
  EXPECT_FALSE(hub_->active());
  Tell(3);
  const EventFilter filter = Only({EventKind::kMmPageFree});
  EventHub::Cursor cursor = Subscribe(filter);
  EXPECT_TRUE(hub_->active());
  EXPECT_TRUE(hub_->Read(filter, 10, cursor).records.empty());
}

TEST_F(EventHubTest, KindsMergeInTheirOrderAndOthersAreNotRecorded) {
  const EventFilter filter = Only({EventKind::kMmPageFree, EventKind::kMmPageFreeBatched});
  EventHub::Cursor cursor = Subscribe(filter);
  Tell(2);
  hub_->Enter(*machine_);
  hub_->Emit(EventKind::kMmPageFreeBatched, {7});
  hub_->Emit(EventKind::kMmPagePcpuDrain, {7, 0, 0});
  hub_->Publish();
  Tell(1);
  const EventHub::Batch batch = hub_->Read(filter, 10, cursor);
  ASSERT_EQ(batch.records.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(batch.records[i].sequence, i + 1);
  EXPECT_EQ(batch.records[2].kind, EventKind::kMmPageFreeBatched);
  EXPECT_EQ(batch.records[0].zone, "DMA");
  EXPECT_EQ(batch.lost, 0u);
}

TEST_F(EventHubTest, FiltersByTaskAndZone) {
  EventFilter filter = Only({EventKind::kMmPageFree});
  filter.pids = {2};
  filter.zones = {"DMA"};
  EventHub::Cursor cursor = Subscribe(filter);
  Tell(1, EventKind::kMmPageFree, 1);
  Tell(2, EventKind::kMmPageFree, 2);
  next_ = 5000;  // Beyond the first 16 MiB.
  Tell(1, EventKind::kMmPageFree, 2);
  EXPECT_EQ(hub_->Read(filter, 10, cursor).records.size(), 2u);
}

TEST_F(EventHubTest, TheOldestAreLostAndCountedAndOtherKindsAreNot) {
  const EventFilter filter = Only({EventKind::kMmPageFree, EventKind::kMmPageFreeBatched});
  EventHub::Cursor cursor = Subscribe(filter);
  hub_->Enter(*machine_);
  hub_->Emit(EventKind::kMmPageFreeBatched, {7});
  hub_->Publish();
  Tell(static_cast<int>(EventHub::kKept) + 100);
  EventHub::Batch batch = hub_->Read(filter, 10, cursor);
  EXPECT_EQ(batch.lost, 100u);
  ASSERT_EQ(batch.records.size(), 10u);
  EXPECT_TRUE(batch.more);
  EXPECT_EQ(batch.records[0].kind, EventKind::kMmPageFreeBatched);
  EXPECT_EQ(batch.records[1].sequence, 102u);
  EXPECT_EQ(hub_->Read(filter, 10, cursor).lost, 0u);
}

TEST_F(EventHubTest, ComingBackGoesOnWhereItEnded) {
  const EventFilter filter = Only({EventKind::kMmPageFree});
  Subscribe(filter);
  Tell(5);
  hub_->Unsubscribe(watcher_.get());
  Tell(5);  // Somebody may come back: still recorded.
  EventHub::Cursor cursor = Subscribe(filter, 3);
  const EventHub::Batch batch = hub_->Read(filter, 100, cursor);
  ASSERT_EQ(batch.records.size(), 7u);
  EXPECT_EQ(batch.records.front().sequence, 4u);
  hub_->Unsubscribe(watcher_.get());
  // What was not recorded cannot be gone on with, nor what has not happened.
  EXPECT_EQ(hub_->Subscribe(watcher_, Only({EventKind::kMmPageAlloc}), 3).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(hub_->Subscribe(watcher_, filter, 11).status().code(), absl::StatusCode::kOutOfRange);
  Tell(static_cast<int>(EventHub::kKept));
  EXPECT_EQ(hub_->Subscribe(watcher_, filter, 3).status().code(), absl::StatusCode::kOutOfRange);
}

TEST_F(EventHubTest, WatchersAreBounded) {
  const EventFilter filter = Only({EventKind::kMmPageFree});
  for (size_t i = 0; i < EventHub::kMaxWatchers; ++i) ASSERT_TRUE(hub_->Subscribe(std::make_shared<Woken>(), filter, 0).ok());
  EXPECT_EQ(hub_->Subscribe(watcher_, filter, 0).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(EventHubTest, ReadersBesideTheLaneMissNothingThatIsNotCounted) {
  const EventFilter filter = Only({EventKind::kMmPageFree});
  constexpr uint64_t kEvents = 40000;
  std::vector<std::thread> readers;
  std::atomic<int> ready{0};
  for (int reader = 0; reader < 2; ++reader) {
    readers.emplace_back([&] {
      EventHub::Cursor cursor = hub_->Subscribe(std::make_shared<Woken>(), filter, 0).value();
      ++ready;
      uint64_t seen = 0;
      uint64_t last = 0;
      while (seen < kEvents) {
        const EventHub::Batch batch = hub_->Read(filter, 256, cursor);
        seen += batch.lost + batch.records.size();
        for (const EventRecord& record : batch.records) {
          EXPECT_GT(record.sequence, last);
          last = record.sequence;
        }
        if (batch.records.empty()) std::this_thread::yield();
      }
      EXPECT_EQ(seen, kEvents);
    });
  }
  while (ready.load() < 2) std::this_thread::yield();
  for (uint64_t told = 0; told < kEvents; told += 100) Tell(100);
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace mmlab
