"""Runs `nice-bench` commands as processes that can be killed, and imports everything but once: each is a fork of it.

A line of JSON on standard input is a command; a line on standard output is its process id, and a second one, once it is
over, is what `os.waitpid` says of it.
"""

import json
import os
import resource
import signal
import sys

from bench.commands import cli


def run(order):
    """Become the command."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may have been started under nohup, which has it ignored
    for number, path in enumerate((os.devnull, order["out"], order["err"])):
        os.dup2(os.open(path, os.O_RDWR if number == 0 else os.O_WRONLY), number)
    if order["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"], order["largest_file"]))
    sys.argv = ["nice-bench", *order["arguments"]]
    cli.main()


for line in sys.stdin:
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        run(json.loads(line))
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
