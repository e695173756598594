# Installs Debian packages if something is missing. Sourced by the install-* scripts.
#
#   need PACKAGE COMMAND…   requests the package unless the command succeeds
#   install_wanted WHAT     installs all requested packages at once; silent if there are none
#
# A tool is checked by running it, not by asking dpkg: a tool that the user built or installed in
# another way counts too, and on other systems the scripts pass if the tools are installed.

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
        echo "error: missing packages for $what (Debian's names): ${wanted[*]}" >&2
        echo "help: install them with the package manager of this system, which has no apt-get" >&2
        return 1
    fi
    local as_root=()
    if ((EUID != 0)); then
        as_root=(sudo)
        [[ -t 0 ]] || as_root=(sudo -n) # no user can type a password
        if ! command -v sudo >/dev/null || ! "${as_root[@]}" true; then
            echo "error: missing packages for $what, which only root may install; run as root:" >&2
            echo "    apt-get update && apt-get install -y --no-install-recommends ${wanted[*]}" >&2
            return 1
        fi
    fi

    echo "installing for $what: ${wanted[*]}" >&2
    local log
    log=$(mktemp)
    # A package list that cannot be downloaded may belong to an unrelated archive: only a failure of
    # the installation itself is an error.
    "${as_root[@]}" apt-get update >"$log" 2>&1 </dev/null || true
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
        install -y --no-install-recommends "${wanted[@]}" >>"$log" 2>&1 </dev/null; then
        tail -n 30 "$log" >&2
        echo "error: apt-get could not install ${wanted[*]} for $what" >&2
        echo "help: the last lines of its output are above, the whole output is in $log" >&2
        return 1
    fi
    rm -f "$log"
}
