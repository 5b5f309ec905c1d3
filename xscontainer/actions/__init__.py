"""What the plugin's functions do: typed arguments in, the result's text out; a module for each family of them.

Results are read by clients that were written against the original: every one starts with exactly
``True``, and XenCenter shows what follows. A verb fails by raising an error of xscontainer.errors.

The plugin's own process imports this package when no daemon runs, and to hand calls on: what loads
paramiko, docker or cryptography is imported where it is used.
"""

DONE = "True"
