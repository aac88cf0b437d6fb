"""What the pool's test processes run; imports no torch, so that they start at once."""

import os
import signal
import sys
import time

from shapecodec.errors import BadFile
from shapecodec.evaluate.pool import Last


def make(slot, mode):
    if mode == "missing":
        raise BadFile("no such codec.", where="x")
    if mode == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return lambda task: work(slot, task)


def work(slot, task):
    kind, value = task
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "exit":
        sys.exit(3)
    if kind == "sleep":
        time.sleep(value)
    if kind == "last":
        return Last((slot, os.getpid(), value))
    return slot, os.getpid(), value
