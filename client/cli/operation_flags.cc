#include "client/cli/operation_flags.h"

#include <fmt/core.h>

#include <limits>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/cli/contract_comments.h"
#include "client/cli/exit_code.h"
#include "client/cli/output.h"

namespace mmlab {
namespace {

using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// The names that a number of the contract has in Linux, without their prefix.
using BitNames = std::map<std::string, uint32_t>;
struct NamedField {
  const char* prefix;  // "MAP_"
  bool several;        // Names are bits: any of them, separated by commas.
  BitNames names;
};

// By the field's full name. include/uapi/asm-generic/mman-common.h, mman.h, fcntl.h, resource.h, linux/mman.h, shm.h, memfd.h,
// include/linux/slab.h: the same numbers on all layouts.
const NamedField* NamesOfNumber(const FieldDescriptor* field) {
  static const auto* const kFields = new std::map<std::string, NamedField>{
      {"mmlab.v1.MmapRequest.flags",
       {"MAP_",
        true,
        {{"shared", 0x1},
         {"private", 0x2},
         {"fixed", 0x10},
         {"anonymous", 0x20},
         {"growsdown", 0x100},
         {"locked", 0x2000},
         {"noreserve", 0x4000},
         {"populate", 0x8000},
         {"nonblock", 0x10000},
         {"stack", 0x20000},
         {"hugetlb", 0x40000},
         {"huge_64kb", 16u << 26},
         {"huge_2mb", 21u << 26},
         {"huge_4mb", 22u << 26},
         {"huge_32mb", 25u << 26},
         {"huge_1gb", 30u << 26},
         {"fixed_noreplace", 0x100000}}}},
      {"mmlab.v1.MadviseRequest.advice",
       {"MADV_",
        false,
        {{"normal", 0},      {"random", 1},         {"sequential", 2},      {"willneed", 3},         {"dontneed", 4},     {"free", 8},
         {"remove", 9},      {"dontfork", 10},      {"dofork", 11},         {"mergeable", 12},       {"unmergeable", 13}, {"hugepage", 14},
         {"nohugepage", 15}, {"dontdump", 16},      {"dodump", 17},         {"wipeonfork", 18},      {"keeponfork", 19},  {"cold", 20},
         {"pageout", 21},    {"populate_read", 22}, {"populate_write", 23}, {"dontneed_locked", 24}, {"collapse", 25}}}},
      {"mmlab.v1.MsyncRequest.flags", {"MS_", true, {{"async", 1}, {"invalidate", 2}, {"sync", 4}}}},
      {"mmlab.v1.OpenRequest.flags", {"O_", true, {{"rdonly", 0}, {"wronly", 1}, {"rdwr", 2}}}},
      {"mmlab.v1.MremapRequest.flags", {"MREMAP_", true, {{"maymove", 1}, {"fixed", 2}, {"dontunmap", 4}}}},
      {"mmlab.v1.MlockRequest.flags", {"MLOCK_", true, {{"onfault", 1}}}},
      {"mmlab.v1.MlockallRequest.flags", {"MCL_", true, {{"current", 1}, {"future", 2}, {"onfault", 4}}}},
      {"mmlab.v1.ShmatRequest.flags", {"SHM_", true, {{"rdonly", 0x1000}, {"rnd", 0x2000}, {"remap", 0x4000}, {"exec", 0x8000}}}},
      {"mmlab.v1.SetrlimitRequest.resource", {"RLIMIT_", false, {{"data", 2}, {"stack", 3}, {"memlock", 8}, {"as", 9}}}},
      {"mmlab.v1.MemfdCreateRequest.flags", {"MFD_", true, {{"cloexec", 1}, {"allow_sealing", 2}, {"hugetlb", 4}}}},
      {"mmlab.v1.KmemCacheCreateRequest.flags",
       {"SLAB_",
        true,
        {{"consistency_checks", 0x100},
         {"red_zone", 0x400},
         {"poison", 0x800},
         {"hwcache_align", 0x2000},
         {"cache_dma", 0x4000},
         {"cache_dma32", 0x8000},
         {"store_user", 0x10000},
         {"reclaim_account", 0x20000},
         {"panic", 0x40000},
         {"typesafe_by_rcu", 0x80000},
         {"trace", 0x200000},
         {"noleaktrace", 0x800000},
         {"account", 0x4000000},
         {"no_user_flags", 0x10000000}}}},
  };
  const auto found = kFields->find(field->full_name());
  return found == kFields->end() ? nullptr : &found->second;
}

std::string FlagName(const FieldDescriptor* field) {
  return absl::StrCat("--", absl::StrReplaceAll(std::string(absl::StripSuffix(field->name(), "_bytes")), {{"_", "-"}}));
}

// Fields that every operation has, and what no flag can carry.
bool IsAsked(const FieldDescriptor* field, const std::map<std::string, std::string>& fixed) {
  static const auto* const kCommon = new std::set<std::string>{"machine", "pid", "explain", "request_id"};
  return kCommon->count(field->name()) == 0 && fixed.count(field->name()) == 0 &&
         (!field->is_repeated() || field->cpp_type() == FieldDescriptor::CPPTYPE_UINT64) && field->type() != FieldDescriptor::TYPE_MESSAGE;
}

// "KERNEL" for GFP_CLASS_KERNEL of enum GfpClass.
std::string EnumPrefix(const EnumDescriptor* type) { return std::string(absl::StripSuffix(type->value(0)->name(), "UNSPECIFIED")); }

// The short names of an enum's values.
std::string NamesOf(const FieldDescriptor* field) {
  std::string names;
  for (int i = 1; i < field->enum_type()->value_count(); ++i) {
    absl::StrAppend(&names, i > 1 ? ", " : "", absl::StripPrefix(field->enum_type()->value(i)->name(), EnumPrefix(field->enum_type())));
  }
  return names;
}

// What the contract says of the field, and how its value is typed where that is not plain.
std::string Description(const FieldDescriptor* field) {
  std::string text(CommentOn(field->full_name()));
  const auto add = [&text](absl::string_view more) { absl::StrAppend(&text, text.empty() ? "" : " ", more); };
  if (field->type() == FieldDescriptor::TYPE_ENUM) add(absl::StrCat("One of ", NamesOf(field), "."));
  if (field->name() == "prot") add("As rwx letters or a number.");
  if (const NamedField* named = NamesOfNumber(field)) {
    std::string names;
    for (const auto& [name, bits] : named->names) absl::StrAppend(&names, names.empty() ? "" : ", ", name);
    add(absl::StrCat(named->several ? "As names, separated by commas (" : "As a name (", names, ") or a number."));
  }
  if (field->is_repeated()) add("Numbers with commas between them.");
  return text;
}

[[noreturn]] void BadValue(const FieldDescriptor* field, const std::string& text, const std::string& rule) {
  Fail(kExitUsage, fmt::format("{}: {}, not \"{}\"", FlagName(field), rule, text));
}

uint64_t Unsigned(const FieldDescriptor* field, const std::string& text, uint64_t most) {
  if (field->name() == "prot" && !text.empty() && text.find_first_not_of("rwx-") == std::string::npos) {
    return (absl::StrContains(text, 'r') ? 1u : 0u) | (absl::StrContains(text, 'w') ? 2u : 0u) | (absl::StrContains(text, 'x') ? 4u : 0u);
  }
  const NamedField* named = NamesOfNumber(field);
  if (named != nullptr && !text.empty() && absl::ascii_isalpha(static_cast<unsigned char>(text[0]))) {
    uint32_t number = 0;
    for (const std::string& word : std::vector<std::string>(absl::StrSplit(text, ','))) {
      const std::string name = absl::AsciiStrToLower(word);
      const auto found = named->names.find(std::string(absl::StripPrefix(name, absl::AsciiStrToLower(named->prefix))));
      if (found == named->names.end()) BadValue(field, word, absl::StrCat(named->several ? "names" : "the name", " of ", named->prefix));
      number |= found->second;
    }
    if (!named->several && absl::StrContains(text, ',')) BadValue(field, text, "one name");
    return number;
  }
  const std::optional<uint64_t> value = ParseSize(text);
  if (!value || *value > most) BadValue(field, text, absl::StrCat("a number from 0 to ", most));
  return *value;
}

int64_t Signed(const FieldDescriptor* field, const std::string& text, int64_t least, int64_t most) {
  int64_t value = 0;
  if (absl::SimpleAtoi(text, &value) && value < 0) {
    if (value < least) BadValue(field, text, absl::StrCat("a number from ", least, " to ", most));
    return value;
  }
  return static_cast<int64_t>(Unsigned(field, text, static_cast<uint64_t>(most)));
}

void SetField(Message* message, const FieldDescriptor* field, const std::string& text) {
  const google::protobuf::Reflection& reflection = *message->GetReflection();
  if (field->is_repeated()) {
    for (const std::string& number : std::vector<std::string>(absl::StrSplit(text, ',', absl::SkipWhitespace()))) {
      reflection.AddUInt64(message, field, Unsigned(field, number, UINT64_MAX));
    }
    return;
  }
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection.SetString(message, field, text);
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection.SetInt32(message, field, static_cast<int32_t>(Signed(field, text, INT32_MIN, INT32_MAX)));
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection.SetInt64(message, field, Signed(field, text, INT64_MIN, INT64_MAX));
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection.SetUInt32(message, field, static_cast<uint32_t>(Unsigned(field, text, UINT32_MAX)));
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection.SetUInt64(message, field, Unsigned(field, text, UINT64_MAX));
    case FieldDescriptor::CPPTYPE_ENUM: {
      const EnumValueDescriptor* value = field->enum_type()->FindValueByName(
          EnumPrefix(field->enum_type()) + absl::StrReplaceAll(absl::AsciiStrToUpper(text), {{"-", "_"}}));
      if (value == nullptr) BadValue(field, text, "one of " + NamesOf(field));
      return reflection.SetEnum(message, field, value);
    }
    default:
      BadValue(field, text, "nothing that a flag can carry");
  }
}

}  // namespace

void OperationFlags::AddTo(CLI::App* command, const std::map<std::string, std::string>& fixed) {
  values_ = fixed;
  command->add_option("machine", machine_, "Machine")->required();
  if (request_->FindFieldByName("pid") != nullptr) command->add_option("pid", values_["pid"], "Acting process")->required();
  for (int i = 0; i < request_->field_count(); ++i) {
    const FieldDescriptor* field = request_->field(i);
    if (!IsAsked(field, fixed)) continue;
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL) {
      command->add_flag(FlagName(field), truths_[field->name()], Description(field));
    } else {
      command->add_option(FlagName(field), values_[field->name()], Description(field));
    }
  }
}

void OperationFlags::Fill(Message* request) const {
  for (const auto& [name, text] : values_) {
    if (!text.empty()) SetField(request, request_->FindFieldByName(name), text);
  }
  for (const auto& [name, truth] : truths_) {
    if (truth) request->GetReflection()->SetBool(request, request_->FindFieldByName(name), true);
  }
}

}  // namespace mmlab
