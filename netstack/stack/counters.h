#pragma once

// What /proc/net/snmp, snmp6 and netstat show, by the MIBs' names (RFC 4293, 4022, 4113).

#include <atomic>
#include <cstdint>

namespace netstack {

using Counter = std::atomic<uint64_t>;
inline void Count(Counter& counter, uint64_t by = 1) {
  counter.fetch_add(by, std::memory_order_relaxed);
}

struct Counters {
  struct Ip {
    Counter in_receives{0}, in_header_errors{0}, in_address_errors{0}, in_unknown_protocols{0};
    Counter in_discards{0}, in_delivers{0}, out_requests{0}, out_discards{0}, out_no_routes{0};
    Counter reassembly_required{0}, reassembly_ok{0}, reassembly_fails{0};
    Counter fragments_ok{0}, fragments_fails{0}, fragments_created{0};
  };
  Ip ip4, ip6;
  struct {
    Counter in_messages{0}, in_errors{0}, in_checksum_errors{0}, out_messages{0}, out_limited{0};
    Counter in_echos{0}, out_echo_replies{0}, in_unreachables{0}, out_unreachables{0};
  } icmp;
  struct {
    Counter in_datagrams{0}, no_ports{0}, in_errors{0}, in_checksum_errors{0}, out_datagrams{0};
    Counter receive_buffer_errors{0};
  } udp;
  struct {
    Counter active_opens{0}, passive_opens{0}, attempt_fails{0}, established_resets{0};
    Counter current_established{0}, in_segments{0}, out_segments{0}, retransmitted_segments{0};
    Counter in_errors{0}, out_resets{0}, in_checksum_errors{0};
    Counter syn_cookies_sent{0}, syn_cookies_received{0}, syn_cookies_failed{0};
    Counter listen_overflows{0}, listen_drops{0}, challenge_acks{0}, paws_drops{0};
    Counter timeouts{0}, loss_probes{0}, fast_recoveries{0}, spurious_recoveries{0};
    Counter time_wait_reused{0}, out_of_window{0}, delayed_acks{0};
  } tcp;
};

}  // namespace netstack
