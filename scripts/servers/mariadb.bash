# One MariaDB server, which speaks MySQL's protocol. Its user `root` has all privileges and no
# password.
# shellcheck disable=SC2154 # ADDRESS comes from `call`

# Debian installs servers in a folder that is only in root's PATH.
PATH=$PATH:/usr/sbin

packages() {
    need mariadb-server command -v mariadbd
    need openssl command -v openssl
}

prepare() {
    port mariadb 3306 >/dev/null
    # The server's key and certificate, which is its own authority.
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 \
        -subj "/CN=$ADDRESS" -addext "subjectAltName=IP:$ADDRESS" \
        -keyout "$HOME_DIR/key.pem" -out "$HOME_DIR/ca.pem" >"$HOME_DIR/openssl.log" 2>&1
    mariadb-install-db --no-defaults --user="$(id -un)" --datadir="$HOME_DIR/data" \
        --auth-root-authentication-method=normal --tmpdir="$HOME_DIR" --skip-test-db \
        >"$HOME_DIR/install.log" 2>&1 || { cat "$HOME_DIR/install.log" >&2; return 1; }
}

start() {
    # The path of the socket is relative to the data folder, since the length of such paths is
    # limited. A starting server removes leftovers from its folder for temporary tables, so two
    # servers must not share one.
    spawn mariadb mariadbd --no-defaults --user="$(id -un)" --datadir="$HOME_DIR/data" \
        --socket=mariadb.sock --tmpdir="$HOME_DIR" --pid-file="$HOME_DIR/mariadb.pid" \
        --ssl-cert="$HOME_DIR/ca.pem" --ssl-key="$HOME_DIR/key.pem" \
        --skip-name-resolve --bind-address="$ADDRESS" --port="$(port mariadb 3306)"
}

ready() {
    # Not by TCP: root may connect from this machine only, and a connection to a box's own address
    # counts as another machine.
    cd "$HOME_DIR/data" && mariadb-admin --no-defaults --socket=mariadb.sock --user=root ping
}

print_env() {
    export_env PSEIDON_TEST_MYSQL "mysql://root@$ADDRESS:$(port mariadb 3306)"
    export_env PSEIDON_TEST_MYSQL_CA "$HOME_DIR/ca.pem"
}
