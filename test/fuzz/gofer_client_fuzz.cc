// What a hostile gofer can answer: the first byte chooses what the client asks, the rest is the
// response as it stands in the shared memory (with the right id put in, lest every input end
// there).

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "gofer/protocol/channel.h"
#include "gofer/protocol/client.h"
#include "gofer/protocol/donation.h"
#include "gofer/protocol/wire.h"
#include "platform/base/log.h"

namespace {

// Header, root pointer, then the struct's first word, which begins with the id.
constexpr size_t kIdOffset = 16;

// A client and a thread that answers it with the bytes under test.
class Pair {
 public:
  Pair() {
    auto ends = gofer::CreateChannel();
    if (!ends.ok()) abort();
    auto channel =
        gofer::Channel::Map(base::Fd(dup(ends->memory.get())), std::move(ends->server_socket));
    auto client = gofer::Client::Create(std::move(ends->memory), std::move(ends->client_socket));
    if (!channel.ok() || !client.ok()) abort();
    channel_ = std::make_unique<gofer::Channel>(*std::move(channel));
    client_ = *std::move(client);
    thread_ = std::thread([this] { Serve(); });
  }
  ~Pair() {
    client_.reset();
    thread_.join();
  }
  gofer::Client& client() { return *client_; }
  void set_answer(std::vector<uint8_t> bytes, bool donates) {
    answer_ = std::move(bytes);
    donates_ = donates;
  }

 private:
  void Serve() {
    gofer::WireBuffer arrived(gofer::kMessageBytesMax);
    while (true) {
      const auto slots = channel_->WaitForRequests();
      if (!slots.ok()) return;
      const size_t got = channel_->TakeRequest(0, arrived.bytes()).value();
      const uint32_t id = gofer::DecodeRequest(arrived.bytes().first(got)).value().id;
      std::vector<uint8_t> answer = answer_;
      if (answer.size() >= kIdOffset + sizeof(id)) {
        std::memcpy(answer.data() + kIdOffset, &id, sizeof(id));
      }
      if (donates_ && !gofer::SendDonation(channel_->socket(), id, STDERR_FILENO).ok()) abort();
      std::copy(answer.begin(), answer.end(),
                reinterpret_cast<uint8_t*>(channel_->ResponseArea(0).data()));
      channel_->Respond(0, answer.size());
    }
  }

  std::vector<uint8_t> answer_;
  bool donates_ = false;
  std::unique_ptr<gofer::Channel> channel_;
  std::unique_ptr<gofer::Client> client_;
  std::thread thread_;
};

void Ask(gofer::Client& client, unsigned what) {
  switch (what % 8) {
    case 0:
      (void)client.GetAttr(1);
      break;
    case 1: {
      const auto walked = client.Walk({1, {{"a", 2}, {"b", 3}}, true, 0});
      if (walked.ok() && walked.value().reply.steps.size() > 2) abort();
      break;
    }
    case 2: {
      const auto read = client.ReadDir({1, 0, gofer::kDirEntriesMax, true, {"a"}, 2});
      if (!read.ok()) break;
      if (!S_ISDIR(read.value().attributes.mode)) abort();
      for (const gofer::DirEntry& entry : read.value().entries) {
        if (!gofer::IsComponent(entry.name)) abort();
      }
      break;
    }
    case 3:
      (void)client.ReadLink(1);
      break;
    case 4:
      (void)client.Open(1, 0);
      break;
    case 5:
      (void)client.Create(1, "n", 2, 2, {0644, 0, 0});
      break;
    case 6:
      (void)client.StatFs(1);
      break;
    default:
      (void)client.ListXattr(1);
      break;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static std::unique_ptr<Pair> pair;
  // Each lie is logged; the log is not what is under test.
  static const int log = open("/dev/null", O_WRONLY | O_CLOEXEC);
  base::SetLogSink(log, base::LogLevel::kError, "fuzz");
  if (size == 0) return 0;
  if (pair == nullptr || pair->client().dead()) pair = std::make_unique<Pair>();
  const uint8_t head = data[0];
  const size_t length = std::min(size - 1, gofer::kMessageBytesMax);
  pair->set_answer({data + 1, data + 1 + length}, (head & 0x80) != 0);
  Ask(pair->client(), head);
  return 0;
}
