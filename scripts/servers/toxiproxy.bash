# One toxiproxy: it cuts, delays and limits connections between a client and a server on HTTP
# requests. It keeps no state: after a restart there are no proxies.
#
#   # Create a proxy. The response has the address at which it listens.
#   curl -d '{"name":"redis","listen":"127.0.0.1:0","upstream":"127.0.0.1:6379"}' \
#       "$PSEIDON_TEST_TOXIPROXY/proxies"
#   # Cut the open connections.
#   curl -d '{"enabled":false}' "$PSEIDON_TEST_TOXIPROXY/proxies/redis"
#   # Delay the answers.
#   curl -d '{"type":"latency","attributes":{"latency":500}}' \
#       "$PSEIDON_TEST_TOXIPROXY/proxies/redis/toxics"
#
# Clients that ask a server for its address, such as Kafka's, bypass the proxy unless the server
# returns the proxy's address.
# shellcheck disable=SC2154 # cache comes from lib/servers.bash, ADDRESS from `call`

version=2.5.0
# Go compiles it once.
binaries=$cache/toxiproxy-$version

# Debian 12's Go, 1.19, is new enough for this version.
packages() {
    [[ -x $binaries/server ]] || need golang-go command -v go
    need curl command -v curl
    need util-linux command -v flock
}

prepare() {
    mkdir -p "$binaries"
    exec 8>"$binaries.lock"
    flock 8 # of several concurrent local-up, one builds
    if [[ ! -x $binaries/server ]]; then
        echo "building toxiproxy $version" >&2
        # What Go downloads and compiles for the build is not kept.
        local work
        work=$(mktemp -d)
        GOPATH=$work GOCACHE=$work/build GOFLAGS="${GOFLAGS:-} -modcacherw" GOBIN=$work/bin \
            go install "github.com/Shopify/toxiproxy/v2/cmd/server@v$version" \
            >"$HOME_DIR/build.log" 2>&1 </dev/null ||
            { cat "$HOME_DIR/build.log" >&2; rm -rf "$work"; return 1; }
        mv "$work/bin/server" "$binaries/"
        rm -rf "$work"
    fi
    exec 8>&-
    port toxiproxy 8474 >/dev/null
}

start() {
    spawn toxiproxy "$binaries/server" -host "$ADDRESS" -port "$(port toxiproxy 8474)"
}

url() {
    echo "http://$ADDRESS:$(port toxiproxy 8474)"
}

ready() {
    curl --silent --fail "$(url)/version"
}

print_env() {
    export_env PSEIDON_TEST_TOXIPROXY "$(url)"
}
