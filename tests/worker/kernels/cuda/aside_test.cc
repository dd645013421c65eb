// Copies aside come in their order, at any time between what was asked for before them and who waits for them.
#include <set>

#include "tests/worker/kernels/cuda/device_fixture.h"

namespace tidepool::cuda {
namespace {

constexpr size_t kBytes = 64;

// Device memory and pinned memory of a device, both of ones.
class Memory {
 public:
  explicit Memory(Device& device)
      : device_(device),
        on_device(static_cast<char*>(*device.Allocate(kBytes))),
        host(static_cast<char*>(*device.AllocatePinned(kBytes))) {
    std::memset(host, 1, kBytes);
    device_.CopyToDevice(on_device, host, kBytes);
    device_.Synchronize();
  }
  ~Memory() {
    device_.Synchronize();
    device_.SynchronizeAside();
    device_.Free(on_device);
    device_.FreePinned(host);
  }

 private:
  Device& device_;

 public:
  char* const on_device;
  char* const host;
};

// Zeros are sent to the host aside, then the device's memory becomes ones again.
char SentAside(Device& device, bool joins) {
  Memory memory(device), ones(device);
  device.Clear(memory.on_device, kBytes);
  device.CopyToHostAside(memory.host, memory.on_device, kBytes);
  if (joins) device.JoinAside();
  device.CopyToDevice(memory.on_device, ones.host, kBytes);
  device.Synchronize();
  device.SynchronizeAside();
  return memory.host[kBytes - 1];
}

// Ones are sent to the device aside, over zeros, and read from there.
char ReadAfter(Device& device, bool joins) {
  Memory memory(device), read(device);
  device.Clear(memory.on_device, kBytes);
  device.CopyToDeviceAside(memory.on_device, memory.host, kBytes);
  if (joins) device.JoinAside();
  device.CopyToHost(read.host, memory.on_device, kBytes);
  device.Synchronize();
  return read.host[kBytes - 1];
}

class AsideTest : public DeviceTest {};

TEST_F(AsideTest, WhoJoinsSeesThemDone) {
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(SentAside(*device_, /*joins=*/true), 0);
    EXPECT_EQ(ReadAfter(*device_, /*joins=*/true), 1);
  }
}

TEST_F(AsideTest, TheHostSeesThemOnceItHasWaited) {
  Memory memory(*device_);
  device_->Clear(memory.on_device, kBytes);
  device_->CopyToHostAside(memory.host, memory.on_device, kBytes);
  device_->SynchronizeAside();  // and so for what they begin after
  EXPECT_EQ(memory.host[0], 0);
}

// What forgets to join is found by the tests of what uses it: on the host it goes wrong for some seed.
TEST(HostDeviceTest, WhoDoesNotJoinSeesEither) {
  std::set<char> sent, read;
  for (uint32_t seed = 1; seed <= 40; ++seed) {
    const std::unique_ptr<Device> device = MakeHostDevice(1, seed);
    sent.insert(SentAside(*device, /*joins=*/false));
    read.insert(ReadAfter(*device, /*joins=*/false));
  }
  EXPECT_EQ(sent, (std::set<char>{0, 1}));
  EXPECT_EQ(read, (std::set<char>{0, 1}));
}

}  // namespace
}  // namespace tidepool::cuda
