#!/usr/bin/env bash
# Creates a topic, unless it exists, and waits until all its partitions have a leader. Works inside
# a Vagrant box and outside.
#
#   create_topic.sh TOPIC [HOST:PORT,…]    default: $BROKERS, $PSEIDON_TEST_KAFKA, 192.168.4.40:9092
#
# The topic has the brokers' default number of partitions: a producer that sends nothing requests
# the topic, and the broker creates it (auto.create.topics.enable).
set -euo pipefail

topic=${1:-}
brokers=${2:-${BROKERS:-${PSEIDON_TEST_KAFKA:-192.168.4.40:9092}}}
if (($# == 0 || $# > 2)) || [[ $topic == -* ]]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
if ! command -v kcat >/dev/null; then
    echo "error: kcat is not installed; on Debian: apt-get install kcat" >&2
    exit 1
fi

# Succeeds if the topic has partitions, and each has a leader.
exists() {
    answer=$(kcat -b "$brokers" -L -t "$topic" -m 10 2>&1) || return 1
    [[ $answer == *'    partition '* && $answer != *'leader -1'* ]]
}

deadline=$((SECONDS + 60))
until exists; do
    if ((SECONDS >= deadline)); then
        echo "error: $topic was not created: ${answer##*$'\n'}" >&2
        echo "help: check that the brokers at $brokers run, with auto.create.topics.enable=true" >&2
        exit 1
    fi
    timeout 10 kcat -P -b "$brokers" -t "$topic" </dev/null 2>/dev/null || true
    sleep 0.2
done
echo "$topic: $(grep -c '^    partition ' <<<"$answer") partitions"
