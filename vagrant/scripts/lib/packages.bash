# Installs Debian packages, only when something is missing. Sourced by the install-* scripts.
#
#   need PACKAGE COMMAND…   the package is wanted unless the command succeeds
#   install_wanted WHAT     installs what is wanted, in one go; silent when there is nothing to do
#
# Whether something is there is asked by running it, not by asking dpkg: what the user built or got from elsewhere counts too,
# and on other systems the scripts pass as soon as the tools are there.

wanted=()

java_17() {
    local version
    version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
    ((${version:-0} >= 17))
}

need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || wanted+=("$package")
}

install_wanted() {
    local what=$1
    ((${#wanted[@]})) || return 0

    if ! command -v apt-get >/dev/null; then
        echo "error: $what needs what Debian calls: ${wanted[*]}" >&2
        echo "this system has no apt-get; install them in its own way and start again" >&2
        return 1
    fi
    local as_root=()
    if ((EUID != 0)); then
        as_root=(sudo)
        [[ -t 0 ]] || as_root=(sudo -n) # nobody is there to type a password
        if ! command -v sudo >/dev/null || ! "${as_root[@]}" true; then
            echo "error: $what needs packages, and this user may not install them; as root run:" >&2
            echo "    apt-get update && apt-get install -y --no-install-recommends ${wanted[*]}" >&2
            return 1
        fi
    fi

    echo "installing for $what: ${wanted[*]}" >&2
    local log
    log=$(mktemp)
    # A list that cannot be fetched, of some other archive, need not stop us: only the installation's own failure counts.
    "${as_root[@]}" apt-get update >"$log" 2>&1 </dev/null || true
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
        install -y --no-install-recommends "${wanted[@]}" >>"$log" 2>&1 </dev/null; then
        tail -n 30 "$log" >&2
        echo "error: $what needs ${wanted[*]}, and apt-get could not install them (its last lines are above, all in $log)" >&2
        return 1
    fi
    rm -f "$log"
}
