"""A plugin call, from the process that XAPI starts to the action that serves it."""
