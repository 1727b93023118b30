#include "server/procfs/lru_gen.h"

#include "server/cgroup/cgroups.h"
#include "server/machine/machine.h"
#include "server/physical/page_allocator.h"
#include "server/procfs/text.h"

namespace mmlab {

std::string LruGenText(const Machine& machine) {
  constexpr int64_t kNanosecondsPerMs = 1'000'000;
  const LruLists& lru = machine.memory().lru();
  LruGenerations fresh;  // What a cgroup has before MGLRU was ever on.
  std::string out;
  for (const uint16_t number : machine.cgroups().Subtree(0)) {
    const Lruvec& lruvec = lru.of(number);
    if (lruvec.generations == nullptr) fresh.born.fill(lruvec.made);
    const LruGenerations& generations = lruvec.generations == nullptr ? fresh : *lruvec.generations;
    out += "memcg ";
    AppendDecimal(out, number + 1, 5);  // The kernel's numbers start at 1.
    out.push_back(' ');
    AppendText(out, number == 0 ? "/" : machine.cgroups().memcg(number).path);
    out += "\n node     0\n";
    for (uint64_t seq = generations.min_seq[0]; seq <= generations.max_seq; ++seq) {
      out.push_back(' ');
      AppendDecimal(out, static_cast<int64_t>(seq), 10);
      out.push_back(' ');
      AppendDecimal(out, (machine.now_nanoseconds() - generations.born[LruGenerations::PlaceOf(seq)]) / kNanosecondsPerMs, 10);
      for (int kind = 0; kind < 2; ++kind) {
        const bool there = seq >= generations.min_seq[static_cast<size_t>(kind)];
        out.push_back(' ');
        AppendDecimal(out, there ? static_cast<int64_t>(generations.Pages(seq, kind)) : 0, 10);
        out.push_back(' ');
      }
      out.push_back('\n');
    }
  }
  return out;
}

}  // namespace mmlab
