# One MariaDB server, which speaks MySQL's protocol. Its user `root` may do everything and has no password.
# shellcheck disable=SC2154 # ADDRESS comes from `call`

# Debian keeps servers where only root's PATH looks.
PATH=$PATH:/usr/sbin

packages() {
    need mariadb-server command -v mariadbd
}

prepare() {
    port mariadb 3306 >/dev/null
    mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$HOME_DIR/data" --auth-root-authentication-method=normal \
        --tmpdir="$HOME_DIR" --skip-test-db >"$HOME_DIR/install.log" 2>&1 || { cat "$HOME_DIR/install.log" >&2; return 1; }
}

start() {
    # The socket is named from the data folder: a long path cannot be one. A server that starts removes what it takes for leftovers from
    # its folder for temporary tables, so no two may share one.
    spawn mariadb mariadbd --no-defaults --user="$(id -un)" --datadir="$HOME_DIR/data" --socket=mariadb.sock \
        --tmpdir="$HOME_DIR" --pid-file="$HOME_DIR/mariadb.pid" --skip-name-resolve --bind-address="$ADDRESS" --port="$(port mariadb 3306)"
}

ready() {
    # Not by TCP: root may come from this machine only, and a box of its own address is another one.
    cd "$HOME_DIR/data" && mariadb-admin --no-defaults --socket=mariadb.sock --user=root ping
}

print_env() {
    export_env PSEIDON_TEST_MYSQL "mysql://root@$ADDRESS:$(port mariadb 3306)"
}
