# A Redis cluster of three masters.
# shellcheck disable=SC2154 # ADDRESS comes from `call`

nodes=(1 2 3)

node_port() { port "node-$1" "$((7000 + $1))"; }
bus_port() { port "bus-$1" "$((17000 + $1))"; }

packages() {
    need redis-server command -v redis-server
    need redis-tools command -v redis-cli
}

prepare() {
    local n
    for n in "${nodes[@]}"; do
        node_port "$n" >/dev/null
        bus_port "$n" >/dev/null
    done
}

start() {
    local n
    for n in "${nodes[@]}"; do
        spawn "redis-cluster-$n" redis-server --port "$(node_port "$n")" --bind "$ADDRESS" \
            --protected-mode no --save '' --appendonly yes --appendfsync always \
            --cluster-enabled yes --cluster-port "$(bus_port "$n")" --cluster-node-timeout 2000
    done
}

addresses() {
    local n
    for n in "${nodes[@]}"; do echo "$ADDRESS:$(node_port "$n")"; done
}

# Ready if every node sees the whole cluster. The first call forms the cluster.
ready() {
    local n
    for n in "${nodes[@]}"; do
        [[ $(redis-cli -h "$ADDRESS" -p "$(node_port "$n")" ping) == PONG ]]
    done
    if [[ ! -e $HOME_DIR/created ]]; then
        # shellcheck disable=SC2046 # the addresses are words
        redis-cli --cluster create $(addresses) --cluster-yes >"$HOME_DIR/create.log" 2>&1
        touch "$HOME_DIR/created"
    fi
    for n in "${nodes[@]}"; do
        redis-cli -h "$ADDRESS" -p "$(node_port "$n")" cluster info | grep -q '^cluster_state:ok'
    done
}

print_env() {
    export_env PSEIDON_TEST_REDIS_CLUSTER "redis-cluster://$(addresses | paste -sd,)"
}
