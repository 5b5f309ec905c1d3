"""The door to engines: an open connection to a guest, and the container engine's API over it. It knows no XAPI.

::

    ssh.connection.connect(target, key, settings) or tls.connection.connect(target, credentials, settings)
        -> connection.Connection -> api.Engine

    ssh/  transport, packetizer, channel   paramiko's transport with limits and keepalives; channels as streams
          banner, algorithms, hostkeys, keypair, authentication, login   who answers, and how we log in
          liveness      whether a guest that may have moved still answers
          sessions      how many commands the guest's sshd runs at once
          commands, shell   scripts in the guest that work with any login shell
          vm_uuid       the uuid that the guest reports for its own VM
          install_key, authorized_keys   the pool's key in the guest
          discovery, bridge, stand_in, socket_check   where the engine's socket is, and a stream to it
    tls/  connection, handshake, certs, stream   each stream is a TLS connection of its own
    here  dial, address_fallback, reachability   one TCP connection of several candidates; a test without a login
          connection    what SSH and TLS connections have in common
          http, lines   HTTP over a stream: one answer, or an endless one
          adapter, docker_client   the requests and docker libraries over a connection
          calls, api_version   clients, deadlines, API version and errors of each call
          api, lists, containers, events   the engine's verbs, and the stream of its events
          listing       the list of containers, entry by entry as it arrives
          container_lookup   which container an id, the beginning of an id or a name means
          probe         each step of connecting to an engine, for diagnose
          failures      the exceptions of libraries -> those of xscontainer.errors
"""

import warnings

# On import cryptography warns that CPython 3.6 is old. The warning would be in every log of dom0.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Python 3.6 is no longer supported")
    import paramiko  # noqa: F401
