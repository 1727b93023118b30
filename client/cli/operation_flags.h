#ifndef MMLAB_CLIENT_CLI_OPERATION_FLAGS_H_
#define MMLAB_CLIENT_CLI_OPERATION_FLAGS_H_

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <map>
#include <string>

namespace mmlab {

// The flags of one operation, made from the fields of its request message, so that every operation of the contract is a command at once:
// length_bytes is --length, an enum takes its short names, addresses take 0x, sizes take K, M, G.
class OperationFlags {
 public:
  explicit OperationFlags(const google::protobuf::Descriptor* request) : request_(request) {}

  // Adds positional MACHINE (and PID) and a flag a field. Fields in `fixed` are not asked for.
  void AddTo(CLI::App* command, const std::map<std::string, std::string>& fixed);
  // Writes what was given into a request message. Fails with kExitUsage on a value that does not fit its field.
  void Fill(google::protobuf::Message* request) const;

  const std::string& machine() const { return machine_; }

 private:
  const google::protobuf::Descriptor* request_;
  std::string machine_;
  std::map<std::string, std::string> values_;  // By field name.
  std::map<std::string, bool> truths_;
};

}  // namespace mmlab

#endif  // MMLAB_CLIENT_CLI_OPERATION_FLAGS_H_
