"""Sends and reads Kafka messages through kcat, for the scripts of the parent folder.

Only Python's standard library is needed.
"""

import argparse
import os
import subprocess
import sys
import time

# How many seconds to wait for the brokers' answers and for missing messages, by default.
TIMEOUT = 60.0

# Separates the messages that are sent to kcat. Not a newline, which a message may contain.
SEPARATOR = b"\x1e"


class KcatError(Exception):
    """An error that waiting does not fix. Its message is for the user."""


def arguments(description: str) -> argparse.ArgumentParser:
    """Returns a parser with the options that all scripts share."""
    parser = argparse.ArgumentParser(description=description)
    default = (
        os.environ.get("BROKERS") or os.environ.get("PSEIDON_TEST_KAFKA") or "192.168.4.40:9092"
    )
    parser.add_argument(
        "--brokers",
        default=default,
        metavar="HOST:PORT,…",
        help="default: $BROKERS, $PSEIDON_TEST_KAFKA, 192.168.4.40:9092",
    )
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help=f"default: {TIMEOUT:g}"
    )
    return parser


def run(main) -> None:
    """Runs a script's main function, which returns the exit code, and prints errors as one line."""
    try:
        sys.exit(main())
    except KcatError as error:
        sys.exit(f"error: {error}")
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(1)


def send(brokers: str, topic: str, messages: list[bytes], timeout: float) -> None:
    """Sends messages, spread over the topic's partitions, and waits until the brokers have them.

    A missing topic is created.
    """
    if any(SEPARATOR in message for message in messages):
        raise KcatError("a message may not contain the byte 1e, which separates messages")
    if any(not message for message in messages):
        raise KcatError("an empty message cannot be sent")
    # Without lingering, a partition is chosen for each message.
    settings = [
        "-X",
        f"message.timeout.ms={int(timeout * 1000)}",
        "-X",
        "sticky.partitioning.linger.ms=0",
    ]
    # The separator follows each message, including the last one.
    lines = b"".join(message + SEPARATOR for message in messages)
    _kcat(["-P", "-b", brokers, "-t", topic, "-D", "\\x1e", *settings], lines, timeout + 10)


def read(brokers: str, topic: str, count: int, timeout: float) -> list[bytes]:
    """Returns all messages of the topic, from the start of each partition to its end.

    Returns as soon as there are `count` messages, and at the timeout those that exist. Messages of
    open transactions are not included.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            # However little time is left, there is enough to read the existing messages.
            output = _kcat(
                ["-C", "-b", brokers, "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%S %s"],
                b"",
                max(deadline - time.monotonic(), 10),
            )
            messages = list(_split(output))
            if len(messages) >= count or time.monotonic() >= deadline:
                return messages
        except KcatError:
            # A new topic is not known immediately.
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.5)


def _kcat(parameters: list[str], given: bytes, timeout: float) -> bytes:
    try:
        done = subprocess.run(
            ["kcat", *parameters], input=given, capture_output=True, timeout=timeout, check=False
        )
    except FileNotFoundError:
        raise KcatError("kcat is not installed; on Debian: apt-get install kcat") from None
    except subprocess.TimeoutExpired:
        raise KcatError(
            f"the brokers did not answer within {timeout:.0f} s: {parameters[2]}"
        ) from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise KcatError(
            said[-1].removeprefix("% ERROR: ") if said else f"kcat exited with {done.returncode}"
        )
    return done.stdout


def _split(output: bytes):
    """Yields messages from kcat's output: their length (-1 for null), a space, and their bytes."""
    at = 0
    while at < len(output):
        space = output.index(b" ", at)
        length = max(int(output[at:space]), 0)
        at = space + 1 + length
        yield output[space + 1 : at]
