#pragma once

// Reading a shared structure without locks or references, as under RCU.
//
// A reader marks itself by a Section. A writer first takes an object out of the structure, so that
// no new reader finds it, and then gives its reference to Retire: the reference is kept until every
// reader that was inside at that moment has left.
//
// A section is one of two parities, which all readers that begin share until a writer flips it.
// What is retired may go once both parities have been seen without readers since: the old one
// first; then, after the flip, the other one, whose readers may have been inside, too. Without
// readers, which is the common case, an object goes at once.

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace sentry {

// Thread-safe.
class ReadSections {
 public:
  // Sections may nest. The thread holds no lock that the destruction of a retired object takes when
  // its outermost section ends.
  class Section {
   public:
    explicit Section(ReadSections& all);
    ~Section();
    Section(const Section&) = delete;
    Section& operator=(const Section&) = delete;

   private:
    ReadSections& all_;
    std::atomic<uint32_t>& count_;
  };

  ReadSections() = default;
  ReadSections(const ReadSections&) = delete;
  ReadSections& operator=(const ReadSections&) = delete;

  // Under any lock: nothing is destroyed here.
  void Retire(std::shared_ptr<const void> object) ABSL_LOCKS_EXCLUDED(mu_);
  // Lets go of what nobody can be reading any more. As for the end of a section.
  void Collect() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  static constexpr size_t kStripes = 16;
  struct alignas(64) Stripe {
    std::array<std::atomic<uint32_t>, 2> readers{};  // By parity.
  };

  std::atomic<uint32_t>& Enter();
  bool HasReaders(uint32_t parity) const;

  std::array<Stripe, kStripes> stripes_;
  std::atomic<uint32_t> parity_{0};
  std::atomic<bool> pending_{false};  // Something waits for a reader to leave.
  absl::Mutex mu_;
  std::vector<std::shared_ptr<const void>> retired_ ABSL_GUARDED_BY(mu_);
  // Of these one parity, or none yet, has been seen without readers.
  std::vector<std::shared_ptr<const void>> waiting_ ABSL_GUARDED_BY(mu_);
  bool flipped_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace sentry
