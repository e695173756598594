#!/usr/bin/env bash
# Creates a topic on the brokers' boxes from outside. Without ZooKeeper this is the same as from
# inside: see create_topic.sh.
exec "$(dirname "${BASH_SOURCE[0]}")/create_topic.sh" "$@"
