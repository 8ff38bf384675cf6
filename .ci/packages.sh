# Debian 12's packages, by what they are for. Sourced by runsc-cli/quickstart, test/run and .ci/run.

# To build.
build_packages=(g++ cmake ninja-build ccache mold libabsl-dev capnproto libcapnp-dev nlohmann-json3-dev libseccomp-dev)
# To build and run the tests.
test_packages=(catch2 libbenchmark-dev procps util-linux python3 jq busybox-static)
# Programs that test/workload runs inside; a case whose program is missing is skipped.
workload_packages=(git gcc make perl sqlite3 rsync nodejs default-jdk-headless golang-go file
                   diffutils findutils tar xz-utils bzip2 gawk less)
# The clients that test/oci starts; a test whose client is missing is skipped.
oci_packages=(docker.io containerd runc podman conmon busybox-static iptables crun uidmap)
# The second compiler, for lock annotations and fuzzers.
clang_packages=(clang-19 libclang-rt-19-dev clang-format-19)

# install_packages NAME...: those that are missing, with apt. Needs root (or sudo without a password) only if something is.
install_packages() {
  local missing=() package as_root=()
  for package in "$@"; do
    dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" != 0 ]; then
    if sudo -n true 2>/dev/null; then
      as_root=(sudo -n)
    else
      echo "missing Debian packages: ${missing[*]}" >&2
      echo "install them as root: apt-get install ${missing[*]}" >&2
      return 1
    fi
  fi
  echo "installing ${missing[*]}" >&2
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2 &&
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
      apt-get -qq -y --no-install-recommends install "${missing[@]}" >&2
}
