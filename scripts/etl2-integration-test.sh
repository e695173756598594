#!/usr/bin/env bash
# Tests Pseidon from end to end, as pseidon-etl was tested: messages in Kafka, a row in
# pseidon_logs, the right lines in files and in the etl topic.
#
#   etl2-integration-test.sh [-n N] [--runs R] [--pseidon PATH] [--vagrant]
#
#   -n N             number of messages (default 1000)
#   --runs R         number of runs, one after the other, each with its own topics (default 1)
#   --pseidon PATH   the binary; without this option, it is built, and target/debug/pseidon is used
#                    (CARGO_TARGET_DIR is respected)
#   --vagrant        use the Vagrant boxes (BROKERS and SERVICES may name other addresses). Without
#                    this option, use the servers that PSEIDON_TEST_KAFKA, PSEIDON_TEST_REDIS and
#                    PSEIDON_TEST_MYSQL name, as local-up prints them; if these are not set, start
#                    servers and stop them at the end.
#
# Each run
#   * creates a unique topic and its etl variant, TOPIC-etl, and sends N messages, of two different
#     hours, to the topic;
#   * empties the table pseidon_logs (the old document calls it kafka_logs) and inserts a row for
#     the topic;
#   * starts `pseidon run` with a copy of vagrant/config/pseidon.edn, which has the current
#     addresses and a new folder for the data. It writes files, since a pseidon.edn can configure
#     nothing else;
#   * starts `pseidon run vagrant/config/etl-topic.edn`, which writes the same lines to the etl
#     variant;
#   * waits for at most 60 seconds until the closed files contain the right lines, each once, in the
#     right hour's file, while print-kafka-messages.py reads the etl variant;
#   * stops both and checks the files again: stopping must neither add nor remove anything.
#
# The exit code is 0 if all runs pass. Otherwise the script prints the error and keeps the run's
# folder. Topics stay in Kafka.
set -euo pipefail
# shellcheck source=lib/servers.bash
. "$(dirname "${BASH_SOURCE[0]}")/lib/servers.bash"
root=$(cd "$scripts/.." && pwd)
seconds=60

usage() {
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

n=1000 runs=1 pseidon='' vagrant=
while (($#)); do
    case $1 in
        -n) n=${2:?-n needs a number}; shift ;;
        --runs) runs=${2:?--runs needs a number}; shift ;;
        --pseidon) pseidon=$(realpath "${2:?--pseidon needs a path}"); shift ;;
        --vagrant) vagrant=yes ;;
        --help) usage; exit ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
[[ $n =~ ^[1-9][0-9]*$ && $runs =~ ^[1-9][0-9]*$ ]] || die "-n and --runs need an integer above 0"

work=$(mktemp -d "${TMPDIR:-/tmp}/pseidon-etl2.XXXXXX")
servers='' apps=() printer='' keep=
clean_up() {
    local process
    for process in "${apps[@]}" $printer; do kill -KILL "$process" 2>/dev/null || true; done
    [[ ! $servers ]] || "$scripts/local-down" --dir "$servers"
    # This also releases the ports that it reserved.
    [[ $keep ]] || DIR=$work remove_dir
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

wrong() {
    keep=yes
    echo "error: $*" >&2
    echo "the output and the logs are in $work" >&2
    exit 1
}

# Sets brokers (a list with commas), redis (HOST:PORT) and mysql (HOST:PORT).
find_servers() {
    if [[ $vagrant ]]; then
        brokers=${BROKERS:-192.168.4.40:9092,192.168.4.41:9092,192.168.4.42:9092}
        redis=${SERVICES:-192.168.4.10}:6379
        mysql=${SERVICES:-192.168.4.10}:3306
        return
    fi
    if [[ ! ${PSEIDON_TEST_KAFKA:-} || ! ${PSEIDON_TEST_REDIS:-} ||
        ! ${PSEIDON_TEST_MYSQL:-} ]]; then
        servers=$work/servers
        "$scripts/local-up" --dir "$servers" kafka redis mariadb >"$work/env"
        # shellcheck source=/dev/null
        . "$work/env"
    fi
    brokers=$PSEIDON_TEST_KAFKA redis=${PSEIDON_TEST_REDIS#redis://}
    [[ $PSEIDON_TEST_MYSQL =~ ^mysql://root@([^:/@]+:[0-9]+)$ ]] ||
        die "invalid PSEIDON_TEST_MYSQL $PSEIDON_TEST_MYSQL; expected the value from local-up"
    mysql=${BASH_REMATCH[1]}
    "$scripts/create-tables" --host="${mysql%:*}" --port="${mysql#*:}" --user=root
}

sql() {
    MYSQL_PWD=dwadmin mariadb --no-defaults --host="${mysql%:*}" --port="${mysql#*:}" \
        --user=dwadmin pseidon --execute="$1"
}

# Writes a value into the copy of pseidon.edn, where each setting is on its own line.
set_key() {
    grep -q "^ :$1 " "$dir/pseidon.edn" || die "vagrant/config/pseidon.edn has no line for :$1"
    # Addresses, folder names and numbers contain no characters that are special to sed here.
    sed -i "s|^ :$1 .*| :$1 $2|" "$dir/pseidon.edn"
}

write_config() {
    local broker list=
    for broker in ${brokers//,/ }; do list+=" {:host \"${broker%:*}\" :port ${broker##*:}}"; done
    cp "$root/vagrant/config/pseidon.edn" "$dir/"
    set_key kafka-brokers "[${list# }]"
    set_key redis-conf "{:host \"$redis\" :heart-beat 5}"
    set_key etl-db-host "\"//$mysql/pseidon?autoReconnect=true\""
    set_key data-dir "\"$dir/data\""
    set_key monitor-port "$(DIR=$work HOME_DIR=$work port monitor)"
    set_key repl-port "$(DIR=$work HOME_DIR=$work port repl)"
    cp "$root/vagrant/config/etl-topic.edn" "$dir/"
}

# Prints the lines of the closed files, each after the hour in its file's name. Names that begin
# with a dot belong to open files.
lines_in_files() {
    local file name
    while IFS= read -r -d '' file; do
        name=${file##*/}
        zcat "$dir/data/$file" | sed "s/^/${name:${#topic}+1:13} /"
    done < <(cd "$dir/data" && find . -type f -name "$topic-*.gz" -not -path '*/.*' -print0) | sort
}

files_are_right() {
    lines_in_files >"$dir/found" 2>"$dir/unreadable" && [[ ! -s $dir/unreadable ]] &&
        cmp -s "$dir/expected" "$dir/found"
}

# Starts a program: start_app NAME COMMAND…, with its output in NAME.log.
start_app() {
    local log=$1
    shift
    (cd "$dir" && exec "$@") >"$dir/$log.log" 2>&1 </dev/null &
    apps+=($!)
}

apps_run() {
    local app
    for app in "${apps[@]}"; do
        kill -0 "$app" 2>/dev/null && continue
        tail -n 20 "$dir"/*.log >&2
        wrong "pseidon exited early; the end of its logs is above"
    done
}

stop_apps() {
    local app
    for app in "${apps[@]}"; do
        kill -TERM "$app"
        wait "$app" && continue
        tail -n 20 "$dir"/*.log >&2
        wrong "pseidon did not stop gracefully; the end of its logs is above"
    done
    apps=()
}

one_run() {
    local hour now earlier begun
    topic=etl2-test-$(date +%s)-$$-$1 dir=$work/run-$1
    mkdir -p "$dir/data" "$dir/quarantine"

    "$scripts/create_topic.sh" "$topic" "$brokers" >/dev/null
    "$scripts/create_topic.sh" "$topic-etl" "$brokers" >/dev/null
    # The hour in a file's name is that of the message, so messages of two hours are in different
    # files.
    now=$(date +%s) earlier=$(($(date +%s) - 7200))
    "$scripts/push-kafka-messages.py" --brokers "$brokers" \
        $((n - n / 2)) "$topic" "${now}000|{n}||hello pseidon|now"
    if ((n > 1)); then
        "$scripts/push-kafka-messages.py" --brokers "$brokers" \
            $((n / 2)) "$topic" "${earlier}000|{n}|hello pseidon|earlier"
    fi
    # msg=1: selects everything after the time, and empty fields do not count.
    {
        hour=$(date -u -d "@$now" +%Y-%m-%d-%H)
        seq $((n - n / 2)) | sed "s/.*/$hour &|hello pseidon|now/"
        hour=$(date -u -d "@$earlier" +%Y-%m-%d-%H)
        seq $((n / 2)) | sed "s/.*/$hour &|hello pseidon|earlier/"
    } | sort >"$dir/expected"

    sql "truncate table pseidon_logs;
        insert into pseidon_logs (log, format, output_format, quarantine, log_group, enabled)
        values ('$topic', 'txt:sep=pipe;ts=0;msg=1:', 'gzip', '$dir/quarantine', 'etl', 1)"

    write_config
    begun=$SECONDS
    start_app pseidon "$pseidon" run pseidon.edn
    start_app etl-topic env ETL_TOPIC="$topic" BROKERS="$brokers" ETL_REDIS="$redis" \
        "$pseidon" run etl-topic.edn
    "$scripts/print-kafka-messages.py" --brokers "$brokers" --timeout "$seconds" "$topic-etl" "$n" \
        >"$dir/printed" 2>"$dir/printed.log" &
    printer=$!
    until files_are_right; do
        apps_run
        if ((SECONDS - begun >= seconds)); then
            tail -n 20 "$dir/pseidon.log" >&2
            diff "$dir/expected" "$dir/found" | head -n 10 >&2 || true
            cat "$dir/unreadable" >&2
            echo "the first differences are above" >&2
            local found
            found=$(wc -l <"$dir/found")
            wrong "after $seconds s the files contain $found lines; expected $n, each once"
        fi
        sleep 0.2
    done
    while kill -0 "$printer" 2>/dev/null; do
        apps_run
        sleep 0.2
    done
    wait "$printer" || { tail -n 20 "$dir/etl-topic.log" >&2; wrong "$(<"$dir/printed.log")"; }
    printer=
    cmp -s <(cut -d ' ' -f 2- "$dir/expected" | sort) <(sort "$dir/printed") ||
        wrong "the messages in $topic-etl differ from those in the files"

    stop_apps
    files_are_right || wrong "the files changed when pseidon was stopped"
    # The file with the disk's id is in every folder that is written to.
    [[ ! $(find "$dir/quarantine" -type f -not -path '*/.pseidon-open/disk') ]] ||
        wrong "there are files in quarantine, although all messages are valid"
    echo "run $1: $n messages of $topic in $(find "$dir/data" -name "$topic-*.gz" | wc -l) files" \
        "and in $topic-etl, $((SECONDS - begun)) s"
}

# Like everything else that takes long, the build is not part of the 60 seconds.
if [[ ! $pseidon ]]; then
    (cd "$root" && cargo build --quiet --locked)
    pseidon=$(cd "$root" && realpath "${CARGO_TARGET_DIR:-target}")/debug/pseidon
fi
[[ -x $pseidon ]] || die "$pseidon is not an executable file"
find_servers
for ((run = 1; run <= runs; run++)); do one_run "$run"; done
