"""The verbs: typed arguments in, the text of the result out. One module for each family, ending in its rows.

Clients that were written against the original plugin read the results: every result starts with exactly ``True``,
and XenCenter shows the text behind it. A verb fails by raising an error of xscontainer.errors.

The CLI imports these modules for their rows, and its start-up time is measured: modules that load paramiko, docker or
cryptography are imported inside the functions that use them.
"""

DONE = "True"
