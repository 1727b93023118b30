// Writes the comments of the contract's requests as a C++ table, for the help of the `mmlab` command: protoc's C++ code has none.
//   write_comments DESCRIPTOR_SET OUTPUT
#include <google/protobuf/descriptor.pb.h>

#include <fstream>
#include <iostream>
#include <map>
#include <string>

namespace {

using google::protobuf::DescriptorProto;
using google::protobuf::FileDescriptorProto;
using google::protobuf::SourceCodeInfo;

// Field numbers in paths of SourceCodeInfo.
constexpr int kMessage = 4;
constexpr int kService = 6;
constexpr int kPart = 2;  // A field of a message, a method of a service.

std::string OneLine(const std::string& comment) {
  std::string line;
  for (const char c : comment) {
    if (c != '\n' && c != ' ') {
      line += c;
    } else if (!line.empty() && line.back() != ' ') {
      line += ' ';
    }
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "\"";
}

// What a comment is about: "mmlab.v1.MmapRequest.prot"; a method by its request, "mmlab.v1.MmapRequest". Empty: not wanted.
std::string SubjectOf(const FileDescriptorProto& file, const SourceCodeInfo::Location& location) {
  if (location.path_size() != 4 || location.path(2) != kPart) return "";
  if (location.path(0) == kMessage) {
    const DescriptorProto& message = file.message_type(location.path(1));
    return file.package() + "." + message.name() + "." + message.field(location.path(3)).name();
  }
  if (location.path(0) != kService) return "";
  return file.service(location.path(1)).method(location.path(3)).input_type().substr(1);
}

}  // namespace

int main(int argc, char** argv) {
  google::protobuf::FileDescriptorSet set;
  std::ifstream in(argc == 3 ? argv[1] : "", std::ios::binary);
  if (!set.ParseFromIstream(&in)) {
    std::cerr << "usage: write_comments DESCRIPTOR_SET OUTPUT\n";
    return 2;
  }
  std::map<std::string, std::string> comments;
  for (const FileDescriptorProto& file : set.file()) {
    for (const SourceCodeInfo::Location& location : file.source_code_info().location()) {
      const std::string subject = SubjectOf(file, location);
      const bool request = subject.find("Request") != std::string::npos;
      if (request && !location.leading_comments().empty()) comments[subject] = OneLine(location.leading_comments());
    }
  }
  std::ofstream out(argv[2]);
  out << "#include \"client/cli/contract_comments.h\"\n\nnamespace mmlab {\nnamespace {\n\nconstexpr ContractComment kComments[] = {\n";
  for (const auto& [subject, text] : comments) out << "    {" << Quoted(subject) << ",\n     " << Quoted(text) << "},\n";
  out << "};\n\n}  // namespace\n\nabsl::Span<const ContractComment> ContractComments() { return kComments; }\n\n}  // namespace mmlab\n";
  return out.flush() ? 0 : 1;
}
