// One CUDA device that computes nothing, for torch's build without CUDA: preloaded, it answers whom autograd asks about
// streams, events and devices. Tensors "on" it are fake ones (torch's FakeTensorMode), which have no memory.
#include <ATen/DeviceAccelerator.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::Stream;

namespace {

Device only_device() {
  return Device(DeviceType::CUDA, 0);
}

Stream only_stream() {
  return Stream(Stream::DEFAULT, only_device());
}

struct IdleGuard final : c10::impl::DeviceGuardImplInterface {
  DeviceType type() const override { return DeviceType::CUDA; }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  Device getDevice() const override { return only_device(); }
  Device exchangeDevice(Device) const override { return only_device(); }
  void setDevice(Device) const override {}
  void uncheckedSetDevice(Device) const noexcept override {}

  Stream getStream(Device) const override { return only_stream(); }
  Stream getDefaultStream(Device) const override { return only_stream(); }
  Stream getNewStream(Device, int) const override { return only_stream(); }
  Stream exchangeStream(Stream) const override { return only_stream(); }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}

  // An event has happened as soon as it is recorded; all are one.
  void record(void** event, const Stream&, const DeviceIndex, const c10::EventFlag) const override {
    static char happened;
    *event = &happened;
  }
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
};

struct IdleHooks final : at::CUDAHooksInterface {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
};

}  // namespace

namespace c10::impl {
C10_REGISTER_GUARD_IMPL(CUDA, IdleGuard);
}

// These take the places of libtorch's own functions of the same names.
namespace at::detail {
const CUDAHooksInterface& getCUDAHooks() {
  static const IdleHooks hooks;
  return hooks;
}
}  // namespace at::detail

namespace at::accelerator {
std::optional<c10::DeviceType> getAccelerator(bool) {
  return DeviceType::CUDA;
}
bool isAccelerator(c10::DeviceType type) {
  return type == DeviceType::CUDA;
}
}  // namespace at::accelerator
