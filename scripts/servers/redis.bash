# One Redis server that syncs every write, as a state store must.
# shellcheck disable=SC2154 # ADDRESS comes from `call`

packages() {
    need redis-server command -v redis-server
    need redis-tools command -v redis-cli
}

prepare() {
    port redis 6379 >/dev/null
}

start() {
    # Every machine that can reach the address may use the server: the network of the boxes, or only
    # this machine.
    spawn redis redis-server --port "$(port redis 6379)" --bind "$ADDRESS" --protected-mode no \
        --save '' --appendonly yes --appendfsync always
}

ready() {
    [[ $(redis-cli -h "$ADDRESS" -p "$(port redis 6379)" ping) == PONG ]]
}

print_env() {
    export_env PSEIDON_TEST_REDIS "redis://$ADDRESS:$(port redis 6379)"
}
