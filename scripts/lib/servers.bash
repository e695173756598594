# Functions that the local-* scripts and the servers share. Sourced with DIR set to the folder that
# holds everything of one set of servers:
#
#   DIR/env           the variables that the tests need, in shell syntax
#   DIR/address       the address at which the servers listen, if that is not 127.0.0.1: then at
#                     their usual ports
#   DIR/NAME/         one server's data, settings, ports and log
#   DIR/pids/PROCESS  the id of one process (a server may have several: redis-cluster-1, …); it is
#                     kept until local-down
#
# A server is a file servers/NAME.bash with these functions:
#
#   packages   request with `need` the Debian packages of the server and of its other functions
#              (lib/packages.bash)
#   prepare    once, before the first start: download what is needed, choose ports, write settings
#   start      start with `spawn` its processes that do not run; after a kill, on the existing data
#   ready      succeed if the server answers requests
#   print_env  print its lines of DIR/env, with `export_env`
#
# Each runs in a separate shell, under `set -e`, with HOME_DIR=DIR/NAME, and with ADDRESS, the
# address to listen at.

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The folder for everything that is downloaded once.
# shellcheck disable=SC2034 # the servers use it
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pseidon
# The servers that local-up starts if none is named: those that the tests need.
# shellcheck disable=SC2034 # the scripts use it
default_servers=(kafka redis redis-cluster mariadb)
# The ports that are reserved for each DIR: one folder for the whole machine.
reserved=/tmp/pseidon-ports-$EUID

die() {
    echo "error: $*" >&2
    exit 1
}

known_servers() {
    local file
    for file in "$scripts"/servers/*.bash; do basename "$file" .bash; done
}

# Runs one function of a server: call NAME FUNCTION. It uses a separate shell, because bash ignores
# `set -e` in a function whose success is tested.
# shellcheck disable=SC2097,SC2098 # the inner shell uses the values of this one
call() {
    local address
    address=$(cat "$DIR/address" 2>/dev/null) || address=127.0.0.1
    DIR="$DIR" HOME_DIR="$DIR/$1" ADDRESS=$address bash -euo pipefail -c \
        '. "$0/lib/servers.bash"; . "$0/servers/$1.bash"; "$2"' "$scripts" "$1" "$2"
}

# Prints a port for one use of a server: port USE USUAL. If DIR has an address of its own, that is
# the usual port. Otherwise it is a free port, which is reserved for DIR: the same use returns the
# same port again. Ports are below the range that the kernel assigns to outgoing connections, so
# none is used before the server starts. A reservation is a link to DIR, which only one of several
# concurrent scripts can create; it is void when DIR no longer exists.
port() {
    local file=$HOME_DIR/$1.port number holder
    if [[ -e $DIR/address ]]; then
        echo "$2"
        return
    fi
    if [[ -e $file ]]; then
        cat "$file"
        return
    fi
    mkdir -p "$reserved"
    while :; do
        number=$((20000 + RANDOM % 12000))
        listening "$number" && continue
        holder=$(readlink "$reserved/$number") && [[ ! -d $holder ]] && rm -f "$reserved/$number"
        ln -sn "$DIR" "$reserved/$number" 2>/dev/null || continue
        echo "$number" | tee "$file"
        return
    done
}

# Whether any process on this machine uses the local port. Reads the kernel's tables: ss and lsof
# are not installed on every machine.
listening() {
    local hex
    printf -v hex '%04X' "$1"
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port=":$hex" '$2 ~ port "$" { found = 1 } END { exit !found }'
}

# Downloads what servers/NAME/pom.xml names into a folder of the cache, unless it exists:
# fetch_by_maven NAME GOAL, with a goal of Maven's dependency plugin. It is downloaded again if the
# pom has changed.
fetch_by_maven() {
    local folder=$cache/$1 pom=$scripts/servers/$1/pom.xml
    mkdir -p "$cache"
    exec 8>"$folder.lock"
    flock 8 # of several concurrent local-up, one downloads
    if ! cmp -s "$pom" "$folder/pom.xml"; then
        echo "downloading $1 from Maven Central" >&2
        rm -rf "$folder" "$folder.new"
        mvn --batch-mode --quiet --file "$pom" \
            "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:$2" \
            -DoutputDirectory="$folder.new" >"$HOME_DIR/maven.log" 2>&1 </dev/null ||
            { cat "$HOME_DIR/maven.log" >&2; return 1; }
        cp "$pom" "$folder.new/"
        mv -T "$folder.new" "$folder"
    fi
    exec 8>&-
}

# Starts a process of a server in the background: spawn PROCESS COMMAND…, with its output in
# DIR/NAME/PROCESS.log. It has a session of its own, so that it outlives the shell. Does nothing if
# the process already runs.
spawn() {
    local process=$1
    shift
    running "$process" && return
    mkdir -p "$HOME_DIR/$process"
    cd "$HOME_DIR/$process" || return
    setsid "$@" >>"$HOME_DIR/$process.log" 2>&1 </dev/null &
    echo $! >"$DIR/pids/$process"
}

# Whether the process runs. Its working directory distinguishes it from a later process with the
# same id.
running() {
    local pid
    pid=$(cat "$DIR/pids/$1" 2>/dev/null) || return 1
    [[ $(readlink "/proc/$pid/cwd") == "$DIR"/* ]]
}

# Prints the names of a server's processes.
processes() {
    local file
    for file in "$DIR/pids/$1" "$DIR/pids/$1"-[0-9]; do
        [[ -e $file ]] && basename "$file"
    done
    return 0
}

# Kills a server's processes, as a power cut would, and waits until they have exited.
kill_server() {
    local process pid
    for process in $(processes "$1"); do
        while running "$process"; do
            pid=$(cat "$DIR/pids/$process")
            kill -KILL "$pid" 2>/dev/null || true
            sleep 0.02
        done
    done
}

# Removes the data of the servers and the reserved ports.
remove_dir() {
    rm -rf "$DIR"
    [[ ! -d $reserved ]] || find "$reserved" -lname "$DIR" -delete
}

# Waits until a server answers. Fails, and prints the end of its logs, if one of its processes exits
# or nothing answers for two minutes.
wait_ready() {
    local name=$1 process deadline=$((SECONDS + 120)) trouble=
    until call "$name" ready >/dev/null 2>&1; do
        for process in $(processes "$name"); do
            running "$process" || trouble="$process exited"
        done
        ((SECONDS < deadline)) || trouble="$name does not answer"
        if [[ $trouble ]]; then
            tail -n 30 "$DIR/$name"/*.log >&2 || true
            echo "error: $trouble; the end of its log is above" >&2
            return 1
        fi
        sleep 0.1
    done
}

export_env() {
    printf 'export %s=%s\n' "$1" "${2@Q}"
}

# Sets DIR from a --dir argument or else from PSEIDON_TEST_DIR, for the scripts that act on servers
# that local-up has started.
find_dir() {
    DIR=${1:-${PSEIDON_TEST_DIR:-}}
    [[ $DIR ]] || die "missing folder: use --dir, or set PSEIDON_TEST_DIR as local-up printed it"
    [[ -d $DIR/pids ]] || die "$DIR has no servers of local-up"
    DIR=$(cd "$DIR" && pwd -P)
}
