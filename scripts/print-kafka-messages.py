#!/usr/bin/env python3
"""Prints the messages of a topic from the start to the end, one per line.

The order between partitions is undefined. Waits until there are as many messages as expected. Exits
with 1 if there are fewer at the timeout, or more.
"""

import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))
import kcat


def main() -> int:
    parser = kcat.arguments(
        "prints the messages of a topic, from the start to the end; "
        "exits with 1 if there are fewer or more than expected"
    )
    parser.add_argument("topic")
    parser.add_argument("n", type=int, help="expected number of messages")
    given = parser.parse_args()

    messages = kcat.read(given.brokers, given.topic, given.n, given.timeout)
    for message in messages:
        sys.stdout.buffer.write(message + b"\n")
    sys.stdout.buffer.flush()
    if len(messages) == given.n:
        return 0
    print(f"{given.topic} has {len(messages)} messages, expected {given.n}", file=sys.stderr)
    return 1


kcat.run(main)
