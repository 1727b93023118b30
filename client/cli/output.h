#ifndef MMLAB_CLIENT_CLI_OUTPUT_H_
#define MMLAB_CLIENT_CLI_OUTPUT_H_

#include <google/protobuf/message.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "client/cli/session.h"
#include "mmlab/v1/outcome.pb.h"

namespace mmlab {

// Rows under column headings, two spaces apart, as kubectl prints them. The last column is not padded.
std::string TableText(const std::vector<std::string>& headings, const std::vector<std::vector<std::string>>& rows);

// A message as JSON (proto3 mapping, snake_case names, defaults included) or, from the same, YAML. Ends with a newline.
std::string JsonText(const google::protobuf::Message& message);
std::string YamlText(const google::protobuf::Message& message);

// Prints a message if the output format is JSON or YAML; false if the caller has to print it.
bool PrintStructured(const GlobalOptions& options, const google::protobuf::Message& message);
// The same of what is JSON already, and no message of the contract. `json` ends with a newline.
bool PrintJson(const GlobalOptions& options, const std::string& json);

// What one operation answered: its value in the words of its kind ("0xb7ff9000", "pid 3"), an errno, a signal, and the explanation.
// `verb` is the operation's name: it decides how the value is written.
std::string OutcomeText(const std::string& verb, const v1::Outcome& outcome);

// "4096", "0x1000", "64K", "4G" as a number; nothing when it is none or does not fit.
std::optional<uint64_t> ParseSize(const std::string& text);

std::string BytesText(int64_t bytes);           // "1Gi", "64Mi", "4Ki", "17".
std::string AgeText(int64_t seconds);           // "5s", "3m", "2h", "9d".
std::string HexText(uint64_t value);            // "0x1f"
std::string LastPart(const std::string& name);  // "machines/lab1" -> "lab1"

}  // namespace mmlab

#endif  // MMLAB_CLIENT_CLI_OUTPUT_H_
