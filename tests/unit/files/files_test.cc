#include "server/files/files.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/base/explanation.h"
#include "server/base/random.h"
#include "server/physical/contents.h"
#include "server/physical/test_memory.h"

namespace mmlab {
namespace {

constexpr uint64_t kPage = 4096;

class Charger : public CommitCharger {
 public:
  bool Charge(int64_t pages) override {
    if (charged + pages > limit) return false;
    charged += pages;
    return true;
  }
  void Uncharge(int64_t pages) override { charged -= pages; }
  int64_t charged = 0;
  int64_t limit = 1 << 20;
};

// Notes what files ask of the address spaces.
class Mapper : public FileMapper {
 public:
  bool SplitFilePage(Pfn /*head*/) override { return false; }
  uint32_t HugeGfp(bool /*advised*/) const override { return kGfpUser; }
  void UnmapFilePages(Inode& /*inode*/, PageIndex first, PageIndex end, bool even_cows) override {
    calls.push_back((even_cows ? "unmap all " : "unmap ") + std::to_string(first.raw()) + ".." +
                    (end.raw() == ~uint64_t{0} ? "" : std::to_string(end.raw())));
  }
  void CleanFilePage(Inode& /*inode*/, PageIndex index) override { calls.push_back("clean " + std::to_string(index.raw())); }
  void AddToLru(Pfn /*pfn*/) override {}
  void DrainLru() override {}
  void ForgetMlocked(const Frame&) override {}
  std::vector<std::string> calls;
};

class FilesTest : public testing::Test {
 protected:
  FilesTest() : memory(MakeTestMemory(1024, tracer)), files(*memory, vm_stat, tracer) {
    files.SetCommitCharger(&charger);
    files.SetMapper(&mapper);
  }
  ~FilesTest() override {
    std::vector<std::string> violations;
    files.CheckInvariants(&violations);
    EXPECT_EQ(violations, std::vector<std::string>());
  }
  std::shared_ptr<Inode> Make(const char* path, FileKind kind, const std::string& content, bool resident = true) {
    auto inode = files.CreateFile(path, kind, content.size(), content, resident);
    EXPECT_TRUE(inode.ok());
    return inode.value();
  }
  // As read() sees it.
  std::string Content(Inode& inode) {
    std::string content;
    for (uint64_t at = 0; at < inode.size; at += kPage) {
      std::string page(std::min(kPage, inode.size - at), '\0');
      const auto found = files.PageForRead(inode, PageIndex(at / kPage));
      if (found.value().has_value()) memory->contents().Read(found.value()->pfn, 0, page.data(), page.size());
      content += page;
    }
    return content;
  }

  Tracer tracer;
  VmStat vm_stat;
  std::unique_ptr<BuddyMemory> memory;
  Charger charger;
  Mapper mapper;
  Files files;
};

// shmem_inode_acct_block(): max_blocks of the mount; the kernel's own mount, which memfd and SysV segments are on, has none.
TEST_F(FilesTest, ATmpfsHoldsSoManyPagesAndNotMore) {
  files.SetTmpfsLimit(PageCount(4));
  const auto three = Make("/three", FileKind::kTmpfs, std::string(3 * kPage, 'x'));
  EXPECT_EQ(files.tmpfs_pages(), PageCount(3));
  EXPECT_EQ(files.CreateFile("/two", FileKind::kTmpfs, 2 * kPage, std::string(2 * kPage, 'y'), true).error(), Errno::kENOSPC);
  EXPECT_EQ(files.tmpfs_pages(), PageCount(3)) << "the file that did not fit is gone";
  const auto hole = Make("/hole", FileKind::kTmpfs, "");
  EXPECT_EQ(files.Truncate(*hole, 100 * kPage), Errno::kOk) << "a hole takes nothing";
  EXPECT_TRUE(files.PageForWrite(*hole, PageIndex(50)).ok());
  const int64_t charged = charger.charged;
  EXPECT_EQ(files.PageForWrite(*hole, PageIndex(51)).error(), Errno::kENOSPC);
  EXPECT_EQ(files.PageForFault(*hole, PageIndex(51)).error(), Errno::kENOSPC);
  EXPECT_EQ(charger.charged, charged);
  EXPECT_EQ(files.PunchHole(*three, 0, kPage), Errno::kOk);
  EXPECT_TRUE(files.PageForWrite(*hole, PageIndex(51)).ok());
  const auto memfd = files.NewShmem(FileKind::kMemfd, "/memfd:m (deleted)", 0, true).value();
  for (uint64_t i = 0; i < 10; ++i) EXPECT_TRUE(files.PageForWrite(*memfd, PageIndex(i)).ok());
}

TEST_F(FilesTest, TmpfsPagesAreChargedOneByOne) {
  const auto inode = Make("/a", FileKind::kTmpfs, std::string(2 * kPage + 1, 'x'));
  EXPECT_EQ(charger.charged, 3);
  EXPECT_EQ(vm_stat.Get(NodeStat::kNrShmem), 3);
  EXPECT_EQ(files.Truncate(*inode, kPage), Errno::kOk);
  EXPECT_EQ(charger.charged, 1);
  EXPECT_EQ(mapper.calls, std::vector<std::string>({"unmap all 1.."}));
}

TEST_F(FilesTest, SharedAnonymousMemoryIsChargedAtOnceAndGivenBackWithItsLastHolder) {
  auto inode = files.NewShmem(FileKind::kSharedAnon, "/dev/zero (deleted)", 5 * kPage, false).value();
  EXPECT_EQ(charger.charged, 5);
  EXPECT_TRUE(files.PageForFault(*inode, PageIndex(4)).ok());
  EXPECT_EQ(charger.charged, 5);
  inode.reset();
  EXPECT_EQ(charger.charged, 0);
  EXPECT_EQ(vm_stat.Get(NodeStat::kNrFilePages), 0);
}

TEST_F(FilesTest, WithoutReserveEachPageIsChargedWhenItComes) {
  const auto inode = files.NewShmem(FileKind::kMemfd, "/memfd:m (deleted)", 5 * kPage, true).value();
  EXPECT_EQ(charger.charged, 0);
  EXPECT_TRUE(files.PageForFault(*inode, PageIndex(4)).ok());
  EXPECT_EQ(charger.charged, 1);
  charger.limit = 1;
  EXPECT_EQ(files.PageForFault(*inode, PageIndex(3)).error(), Errno::kENOSPC);
}

TEST_F(FilesTest, NothingIsBeyondTheEnd) {
  const auto inode = Make("/a", FileKind::kTmpfs, std::string(kPage + 1, 'x'));
  EXPECT_TRUE(files.PageForFault(*inode, PageIndex(1)).ok());
  EXPECT_EQ(files.PageForFault(*inode, PageIndex(2)).error(), Errno::kEINVAL);
}

TEST_F(FilesTest, AColdPageIsReadFromTheDisk) {
  const auto inode = Make("/a", FileKind::kExt4, std::string(kPage, 'd') + "end", false);
  EXPECT_EQ(files.FindPage(*inode, PageIndex(0)), std::nullopt);
  const auto first = files.PageForFault(*inode, PageIndex(1));
  EXPECT_TRUE(first.value().major);
  EXPECT_FALSE(files.PageForFault(*inode, PageIndex(1)).value().major);
  EXPECT_EQ(Content(*inode), std::string(kPage, 'd') + "end");
}

TEST_F(FilesTest, SyncCleansWhatIsDirty) {
  const auto inode = Make("/a", FileKind::kExt4, std::string(3 * kPage, 'x'));
  files.MarkDirty(*inode, *files.FindPage(*inode, PageIndex(1)));
  EXPECT_EQ(vm_stat.Get(NodeStat::kNrDirty), 1);
  files.Sync(*inode, PageIndex(0), PageIndex(3));
  EXPECT_EQ(vm_stat.Get(NodeStat::kNrDirty), 0);
  EXPECT_EQ(mapper.calls, std::vector<std::string>({"clean 1"}));
}

TEST_F(FilesTest, HolesArePunchedByWholePagesAndZeros) {
  const auto inode = Make("/a", FileKind::kTmpfs, std::string(4 * kPage, 'x'));
  EXPECT_EQ(files.PunchHole(*inode, 100, 2 * kPage), Errno::kOk);
  EXPECT_EQ(mapper.calls, std::vector<std::string>({"unmap 1..2"}));
  EXPECT_EQ(files.FindPage(*inode, PageIndex(1)), std::nullopt);
  EXPECT_EQ(Content(*inode), std::string(100, 'x') + std::string(2 * kPage, '\0') + std::string(2 * kPage - 100, 'x'));
}

TEST_F(FilesTest, PathsAreTakenOnce) {
  Make("/a", FileKind::kTmpfs, "x");
  EXPECT_EQ(files.CreateFile("/a", FileKind::kTmpfs, 1, "", true).error(), Errno::kEEXIST);
  EXPECT_EQ(files.CreateFile("a", FileKind::kTmpfs, 1, "", true).error(), Errno::kEINVAL);
  EXPECT_NE(files.Find("/dev/zero"), nullptr);
  EXPECT_EQ(files.Find("/b"), nullptr);
}

// Random changes of three files against plain strings.
TEST_F(FilesTest, ContentsAndChargesFollowAModel) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    std::vector<std::pair<std::shared_ptr<Inode>, std::string>> model;
    for (const FileKind kind : {FileKind::kTmpfs, FileKind::kExt4}) {
      const std::string content(random.Below(5 * kPage), 'c');
      const std::string path = "/f" + std::to_string(seed) + std::to_string(static_cast<int>(kind));
      model.emplace_back(Make(path.c_str(), kind, content, random.Below(2) == 0), content);
    }
    for (int step = 0; step < 60; ++step) {
      for (auto& [inode, content] : model) {
        const uint64_t offset = random.Below(6 * kPage);
        const uint64_t length = 1 + random.Below(2 * kPage);
        switch (random.Below(3)) {
          case 0: {
            const std::string data(length, static_cast<char>('a' + random.Below(26)));
            ASSERT_EQ(files.WriteContent(*inode, offset, data), Errno::kOk);
            if (content.size() < offset + length) content.resize(offset + length);
            content.replace(offset, length, data);
            break;
          }
          case 1:
            ASSERT_EQ(files.Truncate(*inode, offset), Errno::kOk);
            content.resize(offset);
            break;
          default:
            ASSERT_EQ(files.PunchHole(*inode, offset, length), Errno::kOk);
            for (uint64_t at = offset; at < std::min<uint64_t>(content.size(), offset + length); ++at) content[at] = '\0';
        }
        ASSERT_EQ(inode->size, content.size());
        ASSERT_EQ(Content(*inode), content) << "step " << step;
        std::vector<std::string> violations;
        files.CheckInvariants(&violations);
        ASSERT_EQ(violations, std::vector<std::string>());
      }
      ASSERT_EQ(charger.charged, vm_stat.Get(NodeStat::kNrShmem));
    }
  }
}

}  // namespace
}  // namespace mmlab
