"""Names of the signals of Linux guests. Pure, and the same on every machine that asks."""

_NAMES = ("HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU "
          "URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS").split()


def signal_name(number: str) -> str:
    """Return "SIGKILL" for "9"; any other text, such as a real-time signal's number, as it is."""
    if number.isdecimal() and 1 <= int(number) <= len(_NAMES):
        return "SIG" + _NAMES[int(number) - 1]
    return number
