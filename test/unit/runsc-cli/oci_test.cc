#include <sys/resource.h>

#include <string>

#include "catch2/catch.hpp"
#include "runsc-cli/oci/json.h"
#include "runsc-cli/oci/seccomp_profile.h"
#include "runsc-cli/oci/spec.h"
#include "runsc-cli/oci/state.h"

namespace {

using oci::Json;

oci::Spec Parsed(const std::string& text) {
  const auto json = Json::Parse(text);
  REQUIRE(json.ok());
  const auto spec = oci::ParseSpec(*json);
  INFO(spec.status().message());
  REQUIRE(spec.ok());
  return *spec;
}

std::string ErrorOf(const std::string& members) {
  const auto json = Json::Parse(R"({"ociVersion":"1.0.2","root":{"path":"r"})" +
                                (members.empty() ? "" : "," + members) + "}");
  REQUIRE(json.ok());
  const auto spec = oci::ParseSpec(*json);
  return spec.ok() ? "" : std::string(spec.status().message());
}

TEST_CASE("JSON comes out as it went in", "[oci][json]") {
  const std::string text =
      R"({"a":[1,-2,18446744073709551615,true,null,"x\"\\\n"],"b":{"c":{}},"d":[]})";
  const auto json = Json::Parse(text);
  REQUIRE(json.ok());
  CHECK(json->Dump() == text);
}

TEST_CASE("what is no JSON is refused with its place", "[oci][json]") {
  const auto json = Json::Parse(R"({"a": 1,)");
  REQUIRE_FALSE(json.ok());
  CHECK(json.status().message().find("not JSON at byte") == 0);
  std::string deep(200, '[');
  CHECK_FALSE(Json::Parse(deep).ok());
}

TEST_CASE("a configuration is read into types", "[oci][spec]") {
  const oci::Spec spec = Parsed(R"({"ociVersion":"1.0.2-dev","hostname":"h",
    "process":{"args":["a","b"],"cwd":"/","user":{"uid":5,"gid":6,"umask":63},
      "capabilities":{"bounding":["CAP_KILL","CAP_NEWER"]},
      "rlimits":[{"type":"RLIMIT_NOFILE","soft":1,"hard":2}],"oomScoreAdj":-3},
    "root":{"path":"rootfs","readonly":true},
    "mounts":[{"destination":"data","type":"bind","source":"/x","options":["rbind"]}],
    "linux":{"resources":{"memory":{"limit":64},"pids":{"limit":-1}},"futureField":{"x":1},
      "namespaces":[{"type":"network","path":"/n"},{"type":"pid"}]}})");
  CHECK(spec.process->args == std::vector<std::string>{"a", "b"});
  CHECK(spec.process->user.umask == 63);
  CHECK(spec.process->capabilities->bounding == uint64_t{1} << 5);
  CHECK(spec.process->capabilities->unknown == std::vector<std::string>{"CAP_NEWER"});
  CHECK(spec.process->rlimits[0].resource == RLIMIT_NOFILE);
  CHECK(spec.process->oom_score_adj == -3);
  CHECK(spec.root_read_only);
  CHECK(spec.mounts[0].destination == "/data");
  CHECK(spec.resources.memory_limit == 64);
  CHECK(spec.resources.pids_limit == -1);
  CHECK(spec.FindNamespace("network")->path == "/n");
  CHECK(spec.FindNamespace("user") == nullptr);
}

TEST_CASE("what is wrong is named by its field", "[oci][spec]") {
  CHECK(ErrorOf("").empty());
  CHECK(ErrorOf(R"("process":{"cwd":"/","args":[]})") == "process.args: must not be empty");
  CHECK(ErrorOf(R"("process":{"cwd":"x","args":["a"]})") ==
        "process.cwd: must be an absolute path, not \"x\"");
  CHECK(ErrorOf(R"("process":{"cwd":"/","args":["a",1]})") ==
        "process.args[1]: must be a string, not a number");
  CHECK(ErrorOf(R"("process":{"cwd":"/","args":["a"],"user":{"uid":-1}})") ==
        "process.user.uid: must be a whole number from 0 to 4294967295, not -1");
  CHECK(ErrorOf(R"("process":{"cwd":"/","args":["a"],"rlimits":[{"type":"RLIMIT_X"}]})") ==
        "process.rlimits[0].type: invalid rlimit type: RLIMIT_X");
  CHECK(ErrorOf(R"("linux":{"namespaces":[{"type":"pid"},{"type":"pid"}]})") ==
        "linux.namespaces[1].type: a second namespace of type pid");
  CHECK(ErrorOf(R"("linux":{"resources":{"memory":{"limit":"x"}}})")
            .find("linux.resources.memory.limit: must be a whole number") == 0);
  CHECK(ErrorOf(R"("mounts":{})") == "mounts: must be a list, not an object");
}

TEST_CASE("signals have names and numbers", "[oci]") {
  CHECK(oci::SignalNumber("TERM") == 15);
  CHECK(oci::SignalNumber("sigkill") == 9);
  CHECK(oci::SignalNumber("15") == 15);
  CHECK(oci::SignalNumber("RTMIN+3") == 37);
  CHECK(oci::SignalNumber("RTMAX-1") == 63);
  CHECK(oci::SignalNumber("0") == -1);
  CHECK(oci::SignalNumber("65") == -1);
  CHECK(oci::SignalNumber("PIGEON") == -1);
}

TEST_CASE("ids that would leave the state directory are refused", "[oci][state]") {
  CHECK(oci::ContainerDir::CheckId("a-b_c.d+1").ok());
  for (const char* id : {"", ".", "..", "a/b", "a b", "\n"}) {
    CAPTURE(id);
    CHECK_FALSE(oci::ContainerDir::CheckId(id).ok());
  }
  CHECK_FALSE(oci::ContainerDir::CheckId(std::string(300, 'a')).ok());
}

TEST_CASE("state survives its file", "[oci][state]") {
  oci::ContainerState state;
  state.id = "x";
  state.pid = 7;
  state.pid_start_time = uint64_t{1} << 40;
  state.annotations = {{"k", "v"}};
  state.cgroups = {"/sys/fs/cgroup/a"};
  state.cgroup_paths = {{"memory", "/sys/fs/cgroup/a"}};
  const auto read = oci::StateFromJson(oci::StateToJson(state));
  REQUIRE(read.ok());
  CHECK(read->pid_start_time == state.pid_start_time);
  CHECK(read->annotations == state.annotations);
  CHECK(read->cgroups == state.cgroups);
  CHECK(read->cgroup_paths == state.cgroup_paths);
}

TEST_CASE("a seccomp profile becomes a program", "[oci][seccomp]") {
  oci::SeccompProfile profile;
  profile.default_action = "SCMP_ACT_ERRNO";
  profile.rules = {{{"read", "no_such_call"}, "SCMP_ACT_ALLOW", {}, {}},
                   {{"clone"}, "SCMP_ACT_ALLOW", {}, {{0, 0x7e020000, 0, "SCMP_CMP_MASKED_EQ"}}}};
  const auto compiled = oci::CompileSeccomp(profile);
  REQUIRE(compiled.ok());
  CHECK(compiled->program.size() % 8 == 0);
  CHECK(compiled->program.size() > 8);
  CHECK(compiled->unknown == std::vector<std::string>{"no_such_call"});
  profile.rules[0].action = "SCMP_ACT_NOTIFY";
  CHECK(oci::CompileSeccomp(profile).status().message().find("linux.seccomp.syscalls[0].action") ==
        0);
  profile.rules[0].action = "SCMP_ACT_JUMP";
  CHECK_FALSE(oci::CompileSeccomp(profile).ok());
}

}  // namespace
