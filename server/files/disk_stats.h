#ifndef MMLAB_SERVER_FILES_DISK_STATS_H_
#define MMLAB_SERVER_FILES_DISK_STATS_H_

#include <cstdint>
#include <string>

namespace mmlab {

// How long a machine's disk takes for what it is asked: 100 MiB a second, where the kernel's own estimate of a disk's speed starts
// (INIT_BW), and for a read the time until it begins.
inline constexpr int64_t kDiskNanosecondsPerKib = 9766;
inline constexpr int64_t kDiskReadNanoseconds = 100'000;

// One direction of a disk's traffic.
struct DiskTraffic {
  uint64_t requests = 0;
  uint64_t merges = 0;  // Pages that joined the request of the page before them.
  uint64_t kib = 0;
  int64_t nanoseconds = 0;  // That the disk was busy with them.
};

// What a disk did since it is there. Linux: struct disk_stats, include/linux/part_stat.h.
struct DiskStats {
  DiskTraffic reads;
  DiskTraffic writes;

  // A request for so many KiB of pages that lie next to each other.
  void Read(uint64_t kib) { Add(reads, kib, kDiskReadNanoseconds); }
  void Write(uint64_t kib) { Add(writes, kib, 0); }
  void Merge(DiskTraffic& traffic, uint64_t kib) {
    ++traffic.merges;
    traffic.kib += kib;
    traffic.nanoseconds += static_cast<int64_t>(kib) * kDiskNanosecondsPerKib;
  }
  void operator+=(const DiskStats& other) {
    Sum(reads, other.reads);
    Sum(writes, other.writes);
  }

 private:
  static void Add(DiskTraffic& traffic, uint64_t kib, int64_t start) {
    ++traffic.requests;
    traffic.kib += kib;
    traffic.nanoseconds += start + static_cast<int64_t>(kib) * kDiskNanosecondsPerKib;
  }
  static void Sum(DiskTraffic& to, const DiskTraffic& from) {
    to.requests += from.requests;
    to.merges += from.merges;
    to.kib += from.kib;
    to.nanoseconds += from.nanoseconds;
  }
};

// What /proc/diskstats shows of a disk.
struct DiskView {
  std::string name;  // "sda"
  uint32_t major = 0, minor = 0;
  DiskStats stats;
  uint64_t in_flight = 0;  // Requests that are under way.
};

}  // namespace mmlab

#endif  // MMLAB_SERVER_FILES_DISK_STATS_H_
