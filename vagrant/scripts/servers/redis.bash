# One Redis server that keeps every write, as a state store must.

prepare() {
    port redis >/dev/null
}

start() {
    spawn redis redis-server --port "$(port redis)" --bind 127.0.0.1 --save '' --appendonly yes --appendfsync always
}

ready() {
    [[ $(redis-cli -p "$(port redis)" ping) == PONG ]]
}

print_env() {
    export_env PSEIDON_TEST_REDIS "redis://127.0.0.1:$(port redis)"
}
