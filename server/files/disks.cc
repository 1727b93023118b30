// What the disks of a machine did, by the names that /proc/diskstats gives them. Linux: block/genhd.c (diskstats_show).
#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "server/files/files.h"

namespace mmlab {
namespace {

constexpr uint32_t kMinorsOfDisk = 16;
constexpr uint32_t kExtendedMajor = 259;  // BLOCK_EXT_MAJOR

// "sdb1" -> 8, 17; "vda" -> 254, 0. Other names get numbers by their order.
void Number(DiskView& view, uint32_t* next_extended) {
  absl::string_view name = view.name;
  const bool scsi = absl::ConsumePrefix(&name, "sd");
  if (scsi || absl::ConsumePrefix(&name, "vd")) {
    const char letter = name.empty() ? '\0' : name[0];
    uint32_t partition = 0;
    if (letter >= 'a' && letter <= 'p' &&
        (name.size() == 1 || (absl::SimpleAtoi(name.substr(1), &partition) && partition < kMinorsOfDisk))) {
      view.major = scsi ? 8 : 254;
      view.minor = static_cast<uint32_t>(letter - 'a') * kMinorsOfDisk + partition;
      return;
    }
  }
  view.major = kExtendedMajor;
  view.minor = (*next_extended)++;
}

}  // namespace

std::vector<DiskView> Files::Disks() const {
  // The file systems are on the first partition of the first disk; so are swap files.
  DiskStats root;
  if (const auto it = disks_.find(0); it != disks_.end()) root += it->second;
  std::vector<DiskView> views;
  for (const auto& [id, inode] : by_id_) {
    if (inode->kind != FileKind::kBlockDevice) continue;
    DiskView view;
    view.name = inode->path.substr(inode->path.rfind('/') + 1);
    if (const auto it = disks_.find(id); it != disks_.end()) view.stats += it->second;
    if (const auto it = swap_.traffic().find(inode->path); it != swap_.traffic().end()) view.stats += it->second;
    for (const Write& write : under_way_) view.in_flight += write.inode == id && write.begins ? 1 : 0;
    views.push_back(std::move(view));
  }
  for (const auto& [path, traffic] : swap_.traffic()) {
    const auto it = by_path_.find(path);
    if (it == by_path_.end() || it->second->kind != FileKind::kBlockDevice) root += traffic;
  }
  uint64_t in_flight = 0;
  for (const Write& write : under_way_) {
    in_flight += write.begins && by_id_.at(write.inode)->kind != FileKind::kBlockDevice ? 1 : 0;
  }
  for (const char* name : {"sda", "sda1"}) {
    const auto same = std::find_if(views.begin(), views.end(), [name](const DiskView& view) { return view.name == name; });
    if (same == views.end()) views.push_back({name, 0, 0, root, in_flight});
  }
  uint32_t next_extended = 0;
  for (DiskView& view : views) Number(view, &next_extended);
  std::sort(views.begin(), views.end(),
            [](const DiskView& a, const DiskView& b) { return std::pair(a.major, a.minor) < std::pair(b.major, b.minor); });
  return views;
}

}  // namespace mmlab
