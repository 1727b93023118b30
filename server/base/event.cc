#include "server/base/event.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/base/check.h"

namespace mmlab {
namespace {

EventNotation NotationOf(absl::string_view code) {
  if (code == "x") return EventNotation::kHex;
  if (code == "p") return EventNotation::kPointer;
  if (code == "s") return EventNotation::kText;
  if (code == "8s") return EventNotation::kPaddedText;
  MMLAB_CHECK(code.empty());
  return EventNotation::kNumber;
}

EventFormat Parse(absl::string_view group, absl::string_view name, absl::string_view print) {
  EventFormat format{group, name, absl::StrCat(group, ":", name), {}, {}};
  size_t from = 0;
  for (size_t open = print.find('{'); open != absl::string_view::npos; open = print.find('{', from)) {
    const size_t close = print.find('}', open);
    MMLAB_CHECK(close != absl::string_view::npos);
    const absl::string_view place = print.substr(open + 1, close - open - 1);
    const size_t colon = place.find(':');
    const absl::string_view code = colon == absl::string_view::npos ? absl::string_view() : place.substr(colon + 1);
    format.between.push_back(print.substr(from, open - from));
    format.fields.push_back(EventField{place.substr(0, colon), NotationOf(code)});
    from = close + 1;
  }
  format.between.push_back(print.substr(from));
  MMLAB_CHECK(format.fields.size() <= kMaxEventFields);
  return format;
}

void PrintValue(EventNotation notation, const EventValue& value, std::string* out) {
  switch (notation) {
    case EventNotation::kNumber:
      absl::StrAppend(out, static_cast<int64_t>(value.number()));
      break;
    case EventNotation::kHex:
      absl::StrAppend(out, absl::Hex(value.number()));
      break;
    case EventNotation::kPointer:
      absl::StrAppend(out, absl::Hex(value.number(), value.number() >> 32 != 0 ? absl::kZeroPad16 : absl::kZeroPad8));
      break;
    case EventNotation::kText:
      absl::StrAppend(out, value.text());
      break;
    case EventNotation::kPaddedText:
      absl::StrAppendFormat(out, "%-8s", value.text());
      break;
  }
}

}  // namespace

const EventFormat& FormatOf(EventKind kind) {
  static const auto* const formats = new std::array<EventFormat, kEventKinds>{
#define MMLAB_EVENT(unused_kind, group, name, print) Parse(group, name, print),
#include "server/base/event_list.h"
#undef MMLAB_EVENT
  };
  return (*formats)[static_cast<size_t>(kind)];
}

std::string EventFormat::Print(absl::Span<const EventValue> values) const {
  MMLAB_CHECK(values.size() == fields.size());
  std::string text;
  for (size_t i = 0; i < fields.size(); ++i) {
    absl::StrAppend(&text, between[i]);
    PrintValue(fields[i].notation, values[i], &text);
  }
  absl::StrAppend(&text, between.back());
  return text;
}

}  // namespace mmlab
