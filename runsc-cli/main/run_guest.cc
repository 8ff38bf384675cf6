#include "runsc-cli/main/run_guest.h"

#include "runsc-cli/main/control_socket.h"

namespace runsc {
namespace {

class BareGuest : public Guest {
 public:
  explicit BareGuest(GuestFds fds) : fds_(std::move(fds)) {}
  std::string_view platform_name() const override { return "none"; }
  int Run() override {
    (void)SendFrame(fds_.control.get(), FrameKind::kFailed, 125,
                    "this build has no kernel to run a guest on")
        .ok();
    return 125;
  }

 private:
  GuestFds fds_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Guest>> Guest::Prepare(BootConfig, GuestFds fds) {
  return std::unique_ptr<Guest>(std::make_unique<BareGuest>(std::move(fds)));
}

}  // namespace runsc
