#include "server/physical/gfp.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace mmlab {
namespace {

struct GfpName {
  Gfp bits;
  absl::string_view name;
};

constexpr Gfp kTranshugeLight = (kGfpHighuserMovable | kGfpComp | kGfpNoMemalloc | kGfpNoWarn) & ~kGfpReclaim;

// The first name whose bits are all there takes them; the order of include/trace/events/mmflags.h.
constexpr GfpName kNames[] = {
    {kTranshugeLight | kGfpDirectReclaim, "GFP_TRANSHUGE"},
    {kTranshugeLight, "GFP_TRANSHUGE_LIGHT"},
    {kGfpHighuserMovable, "GFP_HIGHUSER_MOVABLE"},
    {kGfpHighuser, "GFP_HIGHUSER"},
    {kGfpUser, "GFP_USER"},
    {kGfpKernelAccount, "GFP_KERNEL_ACCOUNT"},
    {kGfpKernel, "GFP_KERNEL"},
    {kGfpReclaim | kGfpIo, "GFP_NOFS"},
    {kGfpAtomic, "GFP_ATOMIC"},
    {kGfpReclaim, "GFP_NOIO"},
    {kGfpNowait, "GFP_NOWAIT"},
    {kGfpZoneDma, "GFP_DMA"},
    {kGfpZoneHighmem, "__GFP_HIGHMEM"},
    {kGfpZoneDma32, "GFP_DMA32"},
    {kGfpHigh, "__GFP_HIGH"},
    {kGfpAtomicFlag, "__GFP_ATOMIC"},
    {kGfpIo, "__GFP_IO"},
    {kGfpFs, "__GFP_FS"},
    {kGfpNoWarn, "__GFP_NOWARN"},
    {kGfpRetryMayFail, "__GFP_RETRY_MAYFAIL"},
    {kGfpNoFail, "__GFP_NOFAIL"},
    {kGfpNoRetry, "__GFP_NORETRY"},
    {kGfpComp, "__GFP_COMP"},
    {kGfpZero, "__GFP_ZERO"},
    {kGfpNoMemalloc, "__GFP_NOMEMALLOC"},
    {kGfpMemalloc, "__GFP_MEMALLOC"},
    {kGfpHardwall, "__GFP_HARDWALL"},
    {kGfpReclaimable, "__GFP_RECLAIMABLE"},
    {kGfpMovable, "__GFP_MOVABLE"},
    {kGfpAccount, "__GFP_ACCOUNT"},
    {kGfpWrite, "__GFP_WRITE"},
    {kGfpDirectReclaim, "__GFP_DIRECT_RECLAIM"},
    {kGfpKswapdReclaim, "__GFP_KSWAPD_RECLAIM"},
};

}  // namespace

std::string GfpText(Gfp gfp) {
  if (gfp == 0) return "none";
  std::string text;
  for (const GfpName& known : kNames) {
    if ((gfp & known.bits) != known.bits) continue;
    gfp &= ~known.bits;
    absl::StrAppend(&text, text.empty() ? "" : "|", known.name);
  }
  return text;
}

}  // namespace mmlab
