"""``make bench``: the figures of docs/performance.md, measured on a simulated pool with real sshd and real daemons.

Machines are shared and noisy: where two things are compared they are measured in turns, in one run.
"""
