# Shared by deploy/install, deploy/run and deploy/test (bash). Sourcing it only defines things and goes to the root of the source tree.
# shellcheck shell=bash disable=SC2034 # Its variables are for those who source it.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit 1
LOGS=$ROOT/build/logs

# What Debian 12 needs to build and run mmlab...
BUILD_PACKAGES=(
  g++ cmake ninja-build pkg-config
  libabsl-dev libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc
  golang-github-gogo-googleapis-dev grpc-proto # google/rpc/*.proto, grpc/health/v1/health.proto
  libcli11-dev libcpp-httplib-dev libfmt-dev libre2-dev libyaml-cpp-dev nlohmann-json3-dev prometheus-cpp-dev zlib1g-dev
)
# ...and what the tests need beyond that.
TEST_PACKAGES=(
  libbenchmark-dev libgmock-dev libgtest-dev
  chromium # a page that calls the API
  clang-format clang-tidy shellcheck yamllint
  git jq python3 python3-grpcio python3-prometheus-client python3-protobuf
  procps prometheus prometheus-node-exporter prometheus-process-exporter
)
BUF_VERSION=1.75.0
LEZER_PROMQL_VERSION=0.315.0

say() { printf '%s\n' "$*" >&2; }
die() {
  say "$0: $*"
  exit 1
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "installing packages needs root or sudo: $*"
  fi
}

# Those of the given packages that are not installed, one a line.
missing_packages() {
  # shellcheck disable=SC2016 # The ${...} are dpkg-query's.
  { dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true; } | sed -n 's/^installed //p' | sort -u >"$LOGS/installed"
  printf '%s\n' "$@" | sort -u | comm -23 - "$LOGS/installed"
}

# Runs a command with its output in build/logs/NAME.log; shows the log when the command fails.
logged() {
  local name=$1
  shift
  mkdir -p "$LOGS"
  if ! "$@" >"$LOGS/$name.log" 2>&1 </dev/null; then
    tail -n 200 "$LOGS/$name.log" >&2
    say "failed: $* (all of it: build/logs/$name.log)"
    return 1
  fi
}

# Installs what is missing of the given packages; quick when nothing is.
install_packages() {
  mkdir -p "$LOGS"
  local missing
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -eq 0 ] && return
  say "Installing ${missing[*]} ..."
  logged apt-update as_root apt-get update || die "the package lists could not be fetched"
  logged apt-install as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" ||
    die "packages could not be installed"
  # Debian starts what it installs. The tests start their own, and nobody asked for a listening service.
  local service
  for service in prometheus prometheus-node-exporter; do
    if [[ " ${missing[*]} " == *" $service "* && -d /run/systemd/system ]]; then as_root systemctl disable --now "$service" >&2 || true; fi
  done
}

# buf is no Debian package: its npm package is one binary. Kept below build/, outside the sources.
install_buf() {
  BUF=$ROOT/build/tools/buf-$BUF_VERSION/node_modules/.bin/buf
  [ -x "$BUF" ] && return
  command -v npm >/dev/null || install_packages nodejs npm
  say "Installing buf $BUF_VERSION ..."
  logged npm npm install --prefix "$ROOT/build/tools/buf-$BUF_VERSION" --ignore-scripts --no-audit --no-fund --no-save \
    "@bufbuild/buf@$BUF_VERSION" || die "buf could not be installed"
}

# Prometheus's own grammar of its query language, for JavaScript: what Grafana parses queries with.
install_lezer_promql() {
  LEZER=$ROOT/build/tools/lezer-promql-$LEZER_PROMQL_VERSION
  [ -d "$LEZER/node_modules/@prometheus-io/lezer-promql" ] && return
  command -v npm >/dev/null || install_packages nodejs npm
  say "Installing lezer-promql $LEZER_PROMQL_VERSION ..."
  logged npm-lezer npm install --prefix "$LEZER" --ignore-scripts --no-audit --no-fund --no-save \
    "@prometheus-io/lezer-promql@$LEZER_PROMQL_VERSION" @lezer/lr@1 @lezer/common@1 @lezer/highlight@1 ||
    die "lezer-promql could not be installed"
}

# build PRESET TARGET...: configures and builds with the preset. The tests are left out of the configuration as long as what they need is
# not installed (deploy/run installs less than deploy/test).
build() {
  local preset=$1
  shift
  mkdir -p "$LOGS"
  say "Building ($preset) ..."
  local tests=ON
  [ -z "$(missing_packages libgmock-dev libgtest-dev)" ] || tests=OFF
  logged "configure-$preset" cmake --preset "$preset" -DMMLAB_BUILD_TESTS=$tests || return
  logged "build-$preset" cmake --build --preset "$preset" --target "$@"
}
