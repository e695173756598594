#!/usr/bin/env python3
"""Sends messages to Kafka and reads them back, to check that the cluster works.

Uses a new topic, which is not removed.
"""

import os
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))
import kcat

COUNT = 100


def main() -> int:
    given = kcat.arguments(
        "sends messages to Kafka and reads them back; exits with 1 if they differ"
    ).parse_args()

    topic = f"test-kafka-{time.time_ns()}-{os.getpid()}"
    sent = [f"{topic} {number}".encode() for number in range(COUNT)]
    kcat.send(given.brokers, topic, sent, given.timeout)
    received = kcat.read(given.brokers, topic, COUNT, given.timeout)
    if sorted(received) != sorted(sent):
        print(
            f"{given.brokers}: sent {len(sent)} messages to {topic}, "
            f"but read {len(received)} different ones",
            file=sys.stderr,
        )
        return 1
    print(f"{given.brokers}: {COUNT} messages sent to {topic} and read back")
    return 0


kcat.run(main)
