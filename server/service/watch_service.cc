#include "server/service/watch_service.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/status_macros.h"
#include "server/host/event_hub.h"
#include "server/host/names.h"

namespace mmlab {
namespace {

constexpr size_t kEventsInAnswer = 256;
constexpr int kMaxFilters = 64;
constexpr int kMaxZones = 5;
constexpr size_t kMaxGlob = 128;

// '*' stands for any text, '?' for one character. Costs at most the product of both lengths.
bool GlobMatches(absl::string_view glob, absl::string_view text) {
  size_t g = 0;
  size_t t = 0;
  size_t star = absl::string_view::npos;
  size_t star_text = 0;
  while (t < text.size()) {
    if (g < glob.size() && glob[g] == '*') {
      star = g++;
      star_text = t;
    } else if (g < glob.size() && (glob[g] == '?' || glob[g] == text[t])) {
      ++g;
      ++t;
    } else if (star != absl::string_view::npos) {
      g = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

absl::StatusOr<EventKinds> KindsOf(const v1::WatchRequest& request) {
  EventKinds kinds;
  if (request.events().empty()) return kinds.set();
  for (int n = 0; n < request.events_size(); ++n) {
    const std::string& glob = request.events(n);
    bool any = false;
    for (size_t i = 0; i < kEventKinds; ++i) {
      if (glob.size() > kMaxGlob || !GlobMatches(glob, FormatOf(static_cast<EventKind>(i)).full_name)) continue;
      kinds.set(i);
      any = true;
    }
    if (!any) return InvalidField(absl::StrCat("events[", n, "]"), "matches no event; WatchService.ListEventKinds lists them");
  }
  return kinds;
}

absl::StatusOr<EventFilter> FilterOf(const v1::WatchRequest& request) {
  if (request.events_size() > kMaxFilters) return InvalidField("events", absl::StrCat("must have at most ", kMaxFilters, " globs"));
  if (request.pids_size() > kMaxFilters) return InvalidField("pids", absl::StrCat("must have at most ", kMaxFilters, " members"));
  if (request.zones_size() > kMaxZones) return InvalidField("zones", absl::StrCat("must have at most ", kMaxZones, " members"));
  EventFilter filter;
  MMLAB_ASSIGN_OR_RETURN(filter.kinds, KindsOf(request));
  filter.pids.assign(request.pids().begin(), request.pids().end());
  filter.zones.assign(request.zones().begin(), request.zones().end());
  return filter;
}

void RecordToProto(const EventRecord& record, v1::TraceEvent* event) {
  const EventFormat& format = FormatOf(record.kind);
  event->set_sequence(record.sequence);
  event->set_event(format.full_name);
  event->set_comm(record.comm);
  event->set_pid(record.pid);
  event->set_cpu(record.cpu);
  event->set_time_nanoseconds(record.nanoseconds);
  event->set_zone(std::string(record.zone));
  const std::vector<EventValue> values = record.Values();
  for (size_t i = 0; i < values.size(); ++i) {
    v1::TraceField* field = event->add_fields();
    field->set_name(std::string(format.fields[i].name));
    if (format.fields[i].is_text()) {
      field->set_text(std::string(values[i].text()));
    } else {
      field->set_number(static_cast<int64_t>(values[i].number()));
    }
  }
  event->set_text(format.Print(values));
}

}  // namespace

// One stream of events to one reader. At most one write is outstanding; while it is, events wait (and are lost) in the hub, never here.
class WatchStream final : public grpc::ServerWriteReactor<v1::WatchResponse>, public EventWatcher {
 public:
  WatchStream(WatchService& service, const ServiceContext& context)
      : service_(service), context_(context), observed_(context, MethodOf<v1::WatchRequest>()) {}

  void Start(const std::shared_ptr<WatchStream>& self, const v1::WatchRequest& request) {
    observed_.MessageReceived();
    self_ = self;
    const absl::Status status = Open(request);
    absl::MutexLock lock(&mutex_);
    if (!status.ok()) return EndLocked(status);
    response_.set_started_after(cursor_.started_after);
    writing_ = true;
    StartWrite(&response_);
  }

  // Ends it soon, with this status.
  void End(const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    EndLocked(status);
  }

  void EventsArrived() override {
    absl::MutexLock lock(&mutex_);
    AdvanceLocked();
  }
  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (ok) observed_.MessageSent();
    if (!ending_.ok()) return FinishLocked();
    if (!ok) return EndLocked(absl::CancelledError("the client is gone"));
    AdvanceLocked();
  }
  void OnCancel() override { End(absl::CancelledError("cancelled by the client")); }
  void OnDone() override {
    if (hub_ != nullptr) hub_->Unsubscribe(this);
    service_.Leave(self_);
    const std::shared_ptr<WatchStream> last = std::move(self_);
  }

 private:
  absl::Status Open(const v1::WatchRequest& request) {
    MMLAB_ASSIGN_OR_RETURN(const absl::string_view id, ParseMachineName("machine", request.machine()));
    MMLAB_ASSIGN_OR_RETURN(filter_, FilterOf(request));
    MMLAB_ASSIGN_OR_RETURN(const std::shared_ptr<HostedMachine> machine, context_.host.Find(id));
    machine_ = MachineName(id);
    const std::shared_ptr<EventHub> hub = machine->event_hub();
    absl::MutexLock lock(&mutex_);  // Until the cursor is there, nothing is read.
    MMLAB_ASSIGN_OR_RETURN(cursor_, hub->Subscribe(self_, filter_, request.resume_after()));
    hub_ = hub;
    return absl::OkStatus();
  }

  void AdvanceLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (!writing_ && ending_.ok() && hub_ != nullptr) {
      const bool closed = hub_->closed();  // Before reading: what was told until then still goes out.
      const EventHub::Batch batch = hub_->Read(filter_, kEventsInAnswer, cursor_);
      lost_ += batch.lost;
      if (!batch.records.empty() || batch.lost != 0) {
        response_.Clear();
        for (const EventRecord& record : batch.records) RecordToProto(record, response_.add_events());
        response_.set_lost_events(lost_);
        context_.host.watch_totals().sent += batch.records.size();
        context_.host.watch_totals().dropped += lost_;
        lost_ = 0;
        writing_ = true;
        StartWrite(&response_);
        return;
      }
      if (batch.more) continue;
      if (closed) EndLocked(ResourceNotFound("machine", machine_));
      return;
    }
  }
  void EndLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!ending_.ok()) return;
    ending_ = status;
    if (!writing_) FinishLocked();
  }
  void FinishLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    observed_.Handled(ending_.code());
    Finish(ToGrpcStatus(ending_));
  }

  WatchService& service_;
  const ServiceContext& context_;
  const ObservedCall observed_;
  std::shared_ptr<WatchStream> self_;  // Until OnDone.
  std::string machine_;
  EventFilter filter_;

  absl::Mutex mutex_;
  std::shared_ptr<EventHub> hub_ ABSL_GUARDED_BY(mutex_);
  EventHub::Cursor cursor_ ABSL_GUARDED_BY(mutex_);
  v1::WatchResponse response_;  // Belongs to the write while writing_.
  uint64_t lost_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status ending_ ABSL_GUARDED_BY(mutex_);  // Not OK: no more events; finished as soon as nothing is written.
};

WatchService::WatchService(const ServiceContext& context) : context_(context) {}
WatchService::~WatchService() = default;

bool WatchService::Enter(const std::shared_ptr<WatchStream>& stream) {
  absl::MutexLock lock(&mutex_);
  if (down_ || streams_.size() >= kMaxStreams) return false;
  streams_.insert(stream);
  context_.host.watch_totals().streams = static_cast<int64_t>(streams_.size());
  return true;
}

void WatchService::Leave(const std::shared_ptr<WatchStream>& stream) {
  absl::MutexLock lock(&mutex_);
  streams_.erase(stream);
  context_.host.watch_totals().streams = static_cast<int64_t>(streams_.size());
}

void WatchService::Shutdown() {
  std::vector<std::shared_ptr<WatchStream>> streams;
  {
    absl::MutexLock lock(&mutex_);
    down_ = true;
    streams.assign(streams_.begin(), streams_.end());
  }
  for (const auto& stream : streams) stream->End(ShuttingDown());
}

grpc::ServerWriteReactor<v1::WatchResponse>* WatchService::Watch(Context* /*context*/, const v1::WatchRequest* request) {
  const auto stream = std::make_shared<WatchStream>(*this, context_);
  const bool entered = Enter(stream);
  WatchStream* const reactor = stream.get();
  stream->Start(stream, *request);
  if (!entered) {
    bool down = false;
    {
      absl::MutexLock lock(&mutex_);
      down = down_;
    }
    stream->End(down ? ShuttingDown() : LimitReached("TOO_MANY_STREAMS", "server", absl::StrCat("at most ", kMaxStreams, " streams")));
  }
  return reactor;
}

grpc::ServerUnaryReactor* WatchService::ListEventKinds(Context* context, const v1::ListEventKindsRequest* request,
                                                       v1::ListEventKindsResponse* response) {
  const UnaryCall call = UnaryCall::Start(context_, context, request);
  std::vector<const EventFormat*> formats;
  for (size_t i = 0; i < kEventKinds; ++i) formats.push_back(&FormatOf(static_cast<EventKind>(i)));
  std::sort(formats.begin(), formats.end(), [](const EventFormat* a, const EventFormat* b) { return a->full_name < b->full_name; });
  for (const EventFormat* format : formats) {
    v1::EventKindDescription* kind = response->add_event_kinds();
    kind->set_event(format->full_name);
    for (const EventField& field : format->fields) kind->add_fields(std::string(field.name));
  }
  call.Finish(absl::OkStatus());
  return call.reactor();
}

}  // namespace mmlab
