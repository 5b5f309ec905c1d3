"""The process xscontainer-monitor and the socket that it serves calls on."""
