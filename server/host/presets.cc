#include "server/host/presets.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "server/base/check.h"
#include "server/machine/presets/embedded_presets.h"

namespace mmlab {
namespace {

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, google::protobuf::io::ColumnNumber column, const std::string& message) override {
    if (text_.empty()) text_ = absl::StrCat("line ", line + 1, ", column ", column + 1, ": ", message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace

absl::StatusOr<Presets> Presets::Parse(absl::Span<const PresetText> texts) {
  Presets presets;
  for (const PresetText& preset : texts) {
    google::protobuf::TextFormat::Parser parser;
    FirstError error;
    parser.RecordErrorsTo(&error);
    v1::MachineSpec spec;
    if (!parser.ParseFromString(std::string(preset.text), &spec)) {
      return absl::InvalidArgumentError(absl::StrCat("preset ", preset.name, ": ", error.text()));
    }
    spec.set_preset(std::string(preset.name));
    // A copy, not what was parsed: the parser leaves map fields to be made when they are first read, which is by threads that make
    // machines.
    presets.specs_.emplace(std::string(preset.name), spec);
  }
  return presets;
}

const Presets& Presets::BuiltIn() {
  static const Presets* const presets = [] {
    std::vector<PresetText> texts;
    for (const EmbeddedPreset& preset : EmbeddedPresets()) texts.push_back(PresetText{preset.name, preset.text});
    absl::StatusOr<Presets> parsed = Parse(texts);
    MMLAB_CHECK(parsed.ok());  // The build puts them in, and a test reads them all.
    return new Presets(*std::move(parsed));
  }();
  return *presets;
}

const v1::MachineSpec* Presets::Find(absl::string_view name) const {
  const auto found = specs_.find(std::string(name));
  return found == specs_.end() ? nullptr : &found->second;
}

}  // namespace mmlab
