#ifndef MMLAB_SERVER_PHYSICAL_GFP_H_
#define MMLAB_SERVER_PHYSICAL_GFP_H_

#include <cstdint>
#include <string>

namespace mmlab {

// Allocation flags, the kernel's gfp_t by the kernel's names and bit values (include/linux/gfp_types.h).
using Gfp = uint32_t;

inline constexpr Gfp kGfpZoneDma = 1u << 0;         // __GFP_DMA
inline constexpr Gfp kGfpZoneHighmem = 1u << 1;     // __GFP_HIGHMEM
inline constexpr Gfp kGfpZoneDma32 = 1u << 2;       // __GFP_DMA32
inline constexpr Gfp kGfpMovable = 1u << 3;         // __GFP_MOVABLE
inline constexpr Gfp kGfpReclaimable = 1u << 4;     // __GFP_RECLAIMABLE
inline constexpr Gfp kGfpHigh = 1u << 5;            // __GFP_HIGH: may use part of the reserves
inline constexpr Gfp kGfpIo = 1u << 6;              // __GFP_IO
inline constexpr Gfp kGfpFs = 1u << 7;              // __GFP_FS
inline constexpr Gfp kGfpZero = 1u << 8;            // __GFP_ZERO
inline constexpr Gfp kGfpAtomicFlag = 1u << 9;      // __GFP_ATOMIC
inline constexpr Gfp kGfpDirectReclaim = 1u << 10;  // __GFP_DIRECT_RECLAIM
inline constexpr Gfp kGfpKswapdReclaim = 1u << 11;  // __GFP_KSWAPD_RECLAIM
inline constexpr Gfp kGfpWrite = 1u << 12;          // __GFP_WRITE
inline constexpr Gfp kGfpNoWarn = 1u << 13;         // __GFP_NOWARN
inline constexpr Gfp kGfpRetryMayFail = 1u << 14;   // __GFP_RETRY_MAYFAIL
inline constexpr Gfp kGfpNoFail = 1u << 15;         // __GFP_NOFAIL
inline constexpr Gfp kGfpNoRetry = 1u << 16;        // __GFP_NORETRY
inline constexpr Gfp kGfpMemalloc = 1u << 17;       // __GFP_MEMALLOC: ignores watermarks
inline constexpr Gfp kGfpComp = 1u << 18;           // __GFP_COMP
inline constexpr Gfp kGfpNoMemalloc = 1u << 19;     // __GFP_NOMEMALLOC
inline constexpr Gfp kGfpHardwall = 1u << 20;       // __GFP_HARDWALL
inline constexpr Gfp kGfpAccount = 1u << 22;        // __GFP_ACCOUNT

inline constexpr Gfp kGfpReclaim = kGfpDirectReclaim | kGfpKswapdReclaim;
inline constexpr Gfp kGfpAtomic = kGfpHigh | kGfpAtomicFlag | kGfpKswapdReclaim;  // GFP_ATOMIC
inline constexpr Gfp kGfpKernel = kGfpReclaim | kGfpIo | kGfpFs;                  // GFP_KERNEL
inline constexpr Gfp kGfpKernelAccount = kGfpKernel | kGfpAccount;                // GFP_KERNEL_ACCOUNT
inline constexpr Gfp kGfpNowait = kGfpKswapdReclaim;                              // GFP_NOWAIT
inline constexpr Gfp kGfpUser = kGfpKernel | kGfpHardwall;                        // GFP_USER
inline constexpr Gfp kGfpHighuser = kGfpUser | kGfpZoneHighmem;                   // GFP_HIGHUSER
inline constexpr Gfp kGfpHighuserMovable = kGfpHighuser | kGfpMovable;            // GFP_HIGHUSER_MOVABLE

// As the kernel's events print it: "GFP_KERNEL|__GFP_ZERO", "none".
std::string GfpText(Gfp gfp);

}  // namespace mmlab

#endif  // MMLAB_SERVER_PHYSICAL_GFP_H_
