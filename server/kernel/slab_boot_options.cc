// What the words of a command line mean for slabs. Linux: parse_slub_debug_flags(), kmem_cache_flags(), mm/slub.c.

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/kernel/slab_rules.h"
#include "server/physical/migrate_type.h"

namespace mmlab {
namespace {

constexpr SlabFlags kDebugDefault = kSlabConsistencyChecks | kSlabRedZone | kSlabPoison | kSlabStoreUser;

SlabFlags FlagOf(char letter) {
  switch (absl::ascii_tolower(letter)) {
    case 'f':
      return kSlabConsistencyChecks;
    case 'z':
      return kSlabRedZone;
    case 'p':
      return kSlabPoison;
    case 'u':
      return kSlabStoreUser;
    case 't':
      return kSlabTrace;
    default:
      return 0;  // 'a' makes allocations fail at will, which only a file of debugfs can ask for.
  }
}

// The letters of one block; without any, before a list of names, everything.
SlabFlags FlagsOf(absl::string_view letters, SlabBootOptions& options) {
  SlabFlags flags = 0;
  for (const char letter : letters) {
    flags = letter == '-' ? 0 : flags | FlagOf(letter);
    if (absl::ascii_tolower(letter) == 'o') options.no_higher_order_debug = true;
  }
  return flags;
}

void ParseDebug(absl::string_view text, SlabBootOptions& options) {
  if (text.empty()) {
    options.debug_flags = kDebugDefault;
    return;
  }
  options.debug_blocks.clear();
  std::optional<SlabFlags> global;
  for (const absl::string_view block : absl::StrSplit(text, ';', absl::SkipEmpty())) {
    const size_t comma = block.find(',');
    const SlabFlags flags = comma == 0 ? kDebugDefault : FlagsOf(block.substr(0, comma), options);
    if (comma == absl::string_view::npos) {
      global = flags;
    } else {
      options.debug_blocks.push_back({flags, absl::StrSplit(block.substr(comma + 1), ',', absl::SkipEmpty())});
    }
  }
  // Blocks with names alone leave the others as they are.
  if (global.has_value() || options.debug_blocks.empty()) options.debug_flags = global.value_or(0);
}

bool IsNamed(absl::string_view name, const SlabBootOptions::Debug& block) {
  return std::any_of(block.names.begin(), block.names.end(), [&](absl::string_view pattern) {
    const size_t star = pattern.find('*');
    return star == absl::string_view::npos ? name == pattern : absl::StartsWith(name, pattern.substr(0, star));
  });
}

int Number(absl::string_view text, int most) {
  int value = 0;
  return absl::SimpleAtoi(text, &value) ? std::clamp(value, 0, most) : 0;
}

}  // namespace

SlabBootOptions ParseSlabBootOptions(absl::string_view command_line) {
  SlabBootOptions options;
  for (absl::string_view word : absl::StrSplit(command_line, absl::ByAnyChar(" \t\n"), absl::SkipEmpty())) {
    if (word == "slab_nomerge" || word == "slub_nomerge") options.no_merge = true;
    if (word == "slab_merge" || word == "slub_merge") options.no_merge = false;
    if (absl::ConsumePrefix(&word, "slub_min_order=")) {
      options.min_order = Number(word, kMaxOrder);
    } else if (absl::ConsumePrefix(&word, "slub_max_order=")) {
      options.max_order = Number(word, kMaxOrder);
    } else if (absl::ConsumePrefix(&word, "slub_min_objects=")) {
      options.min_objects = static_cast<uint32_t>(Number(word, 32767));
    } else if (word == "slub_debug" || absl::StartsWith(word, "slub_debug=")) {
      word.remove_prefix(std::min(word.size(), absl::string_view("slub_debug=").size()));
      ParseDebug(word, options);
    }
  }
  return options;
}

SlabFlags WithDebugFlags(const SlabPlatform& platform, absl::string_view name, SlabFlags flags) {
  if (platform.allocator != SlabAllocatorKind::kSlub || (flags & kSlabNoUserFlags) != 0) return flags;
  for (const SlabBootOptions::Debug& block : platform.options.debug_blocks) {
    if (IsNamed(name, block)) return flags | block.flags;
  }
  const SlabFlags kept = (flags & kSlabNoLeakTrace) != 0 ? ~kSlabStoreUser : ~SlabFlags{0};
  return flags | (platform.options.debug_flags & kept);
}

}  // namespace mmlab
