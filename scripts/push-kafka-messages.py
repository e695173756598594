#!/usr/bin/env python3
"""Sends a message to a topic n times. {n} in the message becomes the message's number, from 1."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent / "lib"))
import kcat


def main() -> int:
    parser = kcat.arguments(
        "sends a message to a topic n times; returns when the brokers have all messages"
    )
    parser.add_argument("n", type=int, help="number of messages")
    parser.add_argument("topic")
    parser.add_argument("message", help="{n} in it becomes the message's number, from 1")
    given = parser.parse_args()

    messages = [
        given.message.replace("{n}", str(number)).encode() for number in range(1, given.n + 1)
    ]
    kcat.send(given.brokers, given.topic, messages, given.timeout)
    return 0


kcat.run(main)
