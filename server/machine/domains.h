#ifndef MMLAB_SERVER_MACHINE_DOMAINS_H_
#define MMLAB_SERVER_MACHINE_DOMAINS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "server/hardware/address_domains.h"
#include "server/machine/machine.h"

namespace mmlab {

// The windows of a machine: memory chips behind the firmware's RAM (on x86-32 with what firmware keeps next to it; RAM from 4 GiB on is the
// rest of the same chips), and the "PCI Bus" and "pcie@" resources of /proc/iomem. Where both claim an address, the bus has it.
AddressDomains DomainsOf(const Machine& machine);

// What a device that drives only so many address bits can use of the machine's RAM. Linux: dma_direct_optimal_gfp_mask(),
// kernel/dma/direct.c.
struct DmaMaskEffect {
  int bits;
  Bytes reachable;
  std::vector<std::string> zones;  // Below the mask as a whole.
  std::string advice;
};
DmaMaskEffect EffectOfDmaMask(const Machine& machine, int bits);

}  // namespace mmlab

#endif  // MMLAB_SERVER_MACHINE_DOMAINS_H_
