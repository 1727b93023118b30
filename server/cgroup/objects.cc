// Objects of the kernel, of which many share a page: whoever they are made for is charged byte by byte. Linux: mm/memcontrol.c
// (obj_cgroup_charge(), mod_objcg_state() and their stock).
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/cgroup/cgroup_pressure.h"
#include "server/cgroup/cgroups.h"
#include "server/physical/page_allocator.h"

namespace mmlab {

uint64_t Cgroups::page_bytes() const { return memory_.page_size().bytes().raw(); }

// obj_cgroup_charge_pages()
bool Cgroups::ChargeObjectPages(uint16_t owner, uint64_t pages, Gfp gfp) {
  const uint16_t payer = memory_.lru().kernel_owner(owner);
  if (payer == 0) return true;
  if (pressure_ != nullptr && pressure_->ActingProcessDies()) {
    // It was given the object before it was killed, while there was room: the limit was met, not passed.
    ForceCharge(payer, pages, /*raise_peak=*/false);
  } else if (!TryCharge(payer, pages, gfp)) {
    return false;
  }
  of(payer).kernel_pages += pages;
  return true;
}

// obj_cgroup_uncharge_pages()
void Cgroups::UnchargeObjectPages(Stock& stock, uint16_t owner, uint64_t pages) {
  const uint16_t payer = memory_.lru().kernel_owner(owner);
  if (pages == 0 || payer == 0) return;
  MMLAB_CHECK(of(payer).kernel_pages >= pages);
  of(payer).kernel_pages -= pages;
  RefillStock(stock, payer, pages);
}

void Cgroups::AddSlab(uint16_t owner, size_t reclaimable, int64_t bytes) {
  if (const uint16_t payer = memory_.lru().kernel_owner(owner); payer != 0) of(payer).slab_bytes[reclaimable] += bytes;
}

void Cgroups::DrainObjectStock(Stock& stock) {
  const uint16_t owner = std::exchange(stock.objects_of, uint16_t{0});
  if (owner == 0) return;
  const uint64_t bytes = std::exchange(stock.object_bytes, 0);
  UnchargeObjectPages(stock, owner, bytes / page_bytes());
  of(owner).object_rest += bytes % page_bytes();
  for (size_t i = 0; i < stock.slab_bytes.size(); ++i) AddSlab(owner, i, std::exchange(stock.slab_bytes[i], 0));
}

void Cgroups::SwitchObjectStock(Stock& stock, uint16_t owner) {
  DrainObjectStock(stock);
  stock.objects_of = owner;
  stock.object_bytes = std::exchange(of(owner).object_rest, 0);
}

void Cgroups::RefillObjectStock(uint16_t owner, uint64_t bytes, bool allow_uncharge) {
  Stock& stock = this->stock();
  if (stock.objects_of != owner) {
    SwitchObjectStock(stock, owner);
    allow_uncharge = true;
  }
  stock.object_bytes += bytes;
  if (!allow_uncharge || stock.object_bytes <= page_bytes()) return;
  const uint64_t pages = stock.object_bytes / page_bytes();
  stock.object_bytes %= page_bytes();
  UnchargeObjectPages(stock, owner, pages);
}

// mod_objcg_state(): counted when it has become more than a page.
void Cgroups::CountSlab(uint16_t owner, int64_t bytes, bool reclaimable) {
  Stock& stock = this->stock();
  if (stock.objects_of != owner) SwitchObjectStock(stock, owner);
  int64_t& held_back = stock.slab_bytes[reclaimable ? 1 : 0];
  const bool first = held_back == 0;
  held_back += bytes;
  const auto page = static_cast<int64_t>(page_bytes());
  if (first || (held_back <= page && held_back >= -page)) return;
  AddSlab(owner, reclaimable ? 1 : 0, std::exchange(held_back, 0));
}

bool Cgroups::ChargeObject(uint16_t owner, uint32_t bytes, bool reclaimable, Gfp gfp) {
  Stock& stock = this->stock();
  if (stock.objects_of == owner && stock.object_bytes >= bytes) {
    stock.object_bytes -= bytes;
  } else {
    const uint64_t pages = (bytes + page_bytes() - 1) / page_bytes();
    if (!ChargeObjectPages(owner, pages, gfp)) return false;
    if (const uint64_t rest = pages * page_bytes() - bytes; rest > 0) RefillObjectStock(owner, rest, false);
  }
  of(owner).object_bytes += bytes;
  CountSlab(owner, bytes, reclaimable);
  return true;
}

void Cgroups::UnchargeObject(uint16_t owner, uint32_t bytes, bool reclaimable) {
  Memcg& memcg = of(owner);
  MMLAB_CHECK(memcg.object_bytes >= bytes);
  memcg.object_bytes -= bytes;
  RefillObjectStock(owner, bytes, true);
  CountSlab(owner, -int64_t{bytes}, reclaimable);
  if (memcg.online || memcg.object_bytes > 0) return;
  ReleaseObjects(owner);
  ReleaseIfUnused(owner);
}

// obj_cgroup_release(): the last object of a removed cgroup went, and what was charged in advance goes too.
void Cgroups::ReleaseObjects(uint16_t owner) {
  for (Stock& stock : stocks_) {
    if (stock.objects_of == owner) DrainObjectStock(stock);
  }
  const uint64_t rest = std::exchange(of(owner).object_rest, 0);
  MMLAB_CHECK(rest % page_bytes() == 0);
  UnchargeObjectPages(stock(), owner, rest / page_bytes());
}

void Cgroups::CheckObjects(std::vector<uint64_t>& kernel_pages, std::vector<std::string>* problems) const {
  std::vector<int64_t> slab(memcgs_.size());
  for (const std::unique_ptr<Memcg>& memcg : memcgs_) {
    if (memcg == nullptr) continue;
    uint64_t bytes = memcg->object_bytes + memcg->object_rest;
    auto counted = static_cast<int64_t>(memcg->object_bytes);
    for (const Stock& stock : stocks_) {
      if (stock.objects_of != memcg->number) continue;
      bytes += stock.object_bytes;
      counted -= stock.slab_bytes[0] + stock.slab_bytes[1];
    }
    if (bytes % page_bytes() != 0)
      problems->push_back(absl::StrCat("memory cgroup ", memcg->path, ": objects are charged in parts of a page"));
    const uint16_t payer = memory_.lru().kernel_owner(memcg->number);
    kernel_pages[payer] += bytes / page_bytes();
    slab[payer] += counted;
  }
  for (const std::unique_ptr<Memcg>& memcg : memcgs_) {
    if (memcg == nullptr) continue;
    const int64_t is = memcg->slab_bytes[0] + memcg->slab_bytes[1];
    if (is != slab[memcg->number])
      problems->push_back(absl::StrCat("memory cgroup ", memcg->path, ": ", is, " bytes of slab are counted, of ", slab[memcg->number]));
  }
}

}  // namespace mmlab
