#ifndef MMLAB_CLIENT_CLI_SESSION_H_
#define MMLAB_CLIENT_CLI_SESSION_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "client/connection.h"

namespace mmlab {

class Server;

// How results are printed.
enum class OutputFormat { kTable, kWide, kJson, kYaml, kName };

// What the global flags say.
struct GlobalOptions {
  std::string server = "127.0.0.1:50051";
  bool in_process = false;
  OutputFormat output = OutputFormat::kTable;
  int timeout_seconds = 10;
  bool explain = false;  // Set by `mmlab explain` and --explain.
};

// Ends the command with an exit code; what is to be said was said on stderr.
struct CommandFailure {
  int exit_code;
};

// The connection of one run of the command: to a server, or to one inside this process that ends with it.
class Session {
 public:
  explicit Session(const GlobalOptions& options);
  ~Session();

  // Connects when first asked for. Throws CommandFailure(kExitCannotConnect) when nobody answers within the timeout.
  Connection& connection();
  const GlobalOptions& options() const { return options_; }

  // One call. A status that is not OK is printed with its details and thrown as CommandFailure(64 + code).
  template <typename Stub, typename Request, typename Response>
  void Call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*), const Request& request,
            Response* response) {
    Check(connection().Call(stub, method, request, response));
  }
  void Check(const grpc::Status& status);

 private:
  const GlobalOptions& options_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<Connection> connection_;
};

// Prints "error: ..." on stderr, with the reason and the fields that google.rpc details name.
void PrintStatus(const grpc::Status& status);
// Prints "error: ..." and throws CommandFailure.
[[noreturn]] void Fail(int exit_code, const std::string& message);

}  // namespace mmlab

#endif  // MMLAB_CLIENT_CLI_SESSION_H_
