"""Become another program, which ends when the process that starts it does (Linux).

Started as a script with that process's id and the command. A kernel looks for its parent only after
seconds of imports, and one whose parent is gone by then runs on for ever.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    os.execvp(command[0], command)
