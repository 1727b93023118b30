#ifndef MMLAB_SERVER_PROCESS_PAGING_FAULT_STATE_H_
#define MMLAB_SERVER_PROCESS_PAGING_FAULT_STATE_H_

#include "server/process/address_space.h"
#include "server/process/paging.h"

namespace mmlab {

// Private to paging*.cc: one fault while it is handled. Linux: struct vm_fault.
struct Paging::Fault {
  Process& task;
  VmArea& vma;
  AddressSpace& mm;
  VirtAddr address;  // Of the page.
  FaultAccess access;
  uint8_t* table = nullptr;  // Lowest table; null while there is none.
  uint32_t index = 0;        // Of the entry in it.
  Pte pte = 0;               // The entry when the fault came; 0 without table.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_PROCESS_PAGING_FAULT_STATE_H_
