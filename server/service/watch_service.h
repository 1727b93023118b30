#ifndef MMLAB_SERVER_SERVICE_WATCH_SERVICE_H_
#define MMLAB_SERVER_SERVICE_WATCH_SERVICE_H_

#include <memory>

#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "mmlab/v1/watch.grpc.pb.h"
#include "server/service/call.h"

namespace mmlab {

class WatchStream;

// mmlab.v1.WatchService: what happens in a machine, while it happens.
class WatchService final : public v1::WatchService::CallbackService {
 public:
  // `context` outlives this.
  explicit WatchService(const ServiceContext& context);
  ~WatchService() override;

  using Context = grpc::CallbackServerContext;
  grpc::ServerWriteReactor<v1::WatchResponse>* Watch(Context* context, const v1::WatchRequest* request) override;
  grpc::ServerUnaryReactor* ListEventKinds(Context* context, const v1::ListEventKindsRequest* request,
                                           v1::ListEventKindsResponse* response) override;

  // Ends all streams, and every later one at once, with UNAVAILABLE: they would never end by themselves.
  void Shutdown();

 private:
  friend class WatchStream;
  static constexpr size_t kMaxStreams = 1000;

  // False: too many, or shutting down.
  bool Enter(const std::shared_ptr<WatchStream>& stream);
  void Leave(const std::shared_ptr<WatchStream>& stream);

  const ServiceContext& context_;
  absl::Mutex mutex_;
  absl::flat_hash_set<std::shared_ptr<WatchStream>> streams_ ABSL_GUARDED_BY(mutex_);
  bool down_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_SERVICE_WATCH_SERVICE_H_
