# A Redis cluster of three masters.

nodes=(1 2 3)

prepare() {
    local n
    for n in "${nodes[@]}"; do
        port "node-$n" >/dev/null
        port "bus-$n" >/dev/null
    done
}

start() {
    local n
    for n in "${nodes[@]}"; do
        spawn "redis-cluster-$n" redis-server --port "$(port "node-$n")" --bind 127.0.0.1 --save '' --appendonly yes --appendfsync always \
            --cluster-enabled yes --cluster-port "$(port "bus-$n")" --cluster-node-timeout 2000
    done
}

addresses() {
    local n
    for n in "${nodes[@]}"; do echo "127.0.0.1:$(port "node-$n")"; done
}

# Ready when every node sees the whole cluster. The first time, the nodes are made one.
ready() {
    local n
    for n in "${nodes[@]}"; do
        [[ $(redis-cli -p "$(port "node-$n")" ping) == PONG ]]
    done
    if [[ ! -e $HOME_DIR/created ]]; then
        # shellcheck disable=SC2046 # the addresses are words
        redis-cli --cluster create $(addresses) --cluster-yes >"$HOME_DIR/create.log" 2>&1
        touch "$HOME_DIR/created"
    fi
    for n in "${nodes[@]}"; do
        redis-cli -p "$(port "node-$n")" cluster info | grep -q '^cluster_state:ok'
    done
}

print_env() {
    export_env PSEIDON_TEST_REDIS_CLUSTER "redis-cluster://$(addresses | paste -sd,)"
}
