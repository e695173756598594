"""Sends and reads Kafka messages through kcat, for the scripts beside this folder; Python's own library is all they need."""

import argparse
import os
import subprocess
import sys
import time

# Neither the brokers' answers nor what they miss is waited for longer than this, unless a script is told otherwise.
TIMEOUT = 60.0

# Between messages on their way to kcat: not a newline, which a message may hold.
SEPARATOR = b"\x1e"


class Trouble(Exception):
    """What went wrong and cannot be mended by waiting, in words for the user."""


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the options that all scripts share."""
    parser = argparse.ArgumentParser(description=description)
    default = os.environ.get("BROKERS") or os.environ.get("PSEIDON_TEST_KAFKA") or "192.168.4.40:9092"
    parser.add_argument("--brokers", default=default, metavar="HOST:PORT,…", help="default: $BROKERS, $PSEIDON_TEST_KAFKA, 192.168.4.40:9092")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help=f"default: {TIMEOUT:g}")
    return parser


def run(main) -> None:
    """Runs a script's main function, whose result is the exit code, and shows troubles as one line."""
    try:
        sys.exit(main())
    except Trouble as trouble:
        sys.exit(f"error: {trouble}")
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(1)


def send(brokers: str, topic: str, messages: list[bytes], timeout: float) -> None:
    """Sends messages, spread over the topic's partitions, and waits until the brokers have all of them. A topic is made when it is missing."""
    if any(SEPARATOR in message for message in messages):
        raise Trouble("a message may not hold the byte 1e, which is used between messages")
    if any(not message for message in messages):
        raise Trouble("an empty message cannot be sent")
    # Without lingering each message picks its own partition.
    settings = ["-X", f"message.timeout.ms={int(timeout * 1000)}", "-X", "sticky.partitioning.linger.ms=0"]
    # The separator goes behind each message, the last one too.
    lines = b"".join(message + SEPARATOR for message in messages)
    _kcat(["-P", "-b", brokers, "-t", topic, "-D", "\\x1e", *settings], lines, timeout + 10)


def read(brokers: str, topic: str, count: int, timeout: float) -> list[bytes]:
    """All messages of the topic, from the start of each partition to its end, as soon as there are `count` of them; what there is when the
    time is up. What a transaction holds back is not seen."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            # However little time is left, what is there can be read.
            output = _kcat(["-C", "-b", brokers, "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%S %s"], b"", max(deadline - time.monotonic(), 10))
            messages = list(_split(output))
            if len(messages) >= count or time.monotonic() >= deadline:
                return messages
        except Trouble:
            # A topic that was just made is not known at once.
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.5)


def _kcat(parameters: list[str], given: bytes, timeout: float) -> bytes:
    try:
        done = subprocess.run(["kcat", *parameters], input=given, capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise Trouble("kcat is not there; on Debian: apt-get install kcat") from None
    except subprocess.TimeoutExpired:
        raise Trouble(f"the brokers did not answer within {timeout:.0f} s: {parameters[2]}") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Trouble(said[-1].removeprefix("% ERROR: ") if said else f"kcat ended with {done.returncode}")
    return done.stdout


def _split(output: bytes):
    """Messages that kcat has printed as their length (-1 for null), a space, and their bytes."""
    at = 0
    while at < len(output):
        space = output.index(b" ", at)
        length = max(int(output[at:space]), 0)
        at = space + 1 + length
        yield output[space + 1 : at]
