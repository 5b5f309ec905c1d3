"""The engine door: a standing way into a VM, and the container engine's API on it.

::

    ssh.connect(target, key, settings)  ->  connection.Connection  ->  api.Engine
      dial       one TCP connection of several candidates
      hostkeys   pins and how they are compared
      transport  paramiko's transport with streamlocal channels and bounds
      packets      its wire: keepalive, dead peer, largest packet
      doubt      whether a guest that may have moved is still there
      sockets    where the engine's socket may be
      tunnel     a byte stream to the engine's socket, or why there is none
      channel      that stream: deadlines, a budget of bytes
    tls.connect(target, credentials, settings)  ->  connection.Connection, without SSH
      certs      contexts and what is wrong with certificates
      tlsstream  one TLS connection as a stream
    on either
      exchange   HTTP on such a stream; adapter carries requests (and so docker's client) over it
      share      what large answers of all guests may take together
      api        the verbs; events the stream of what happens
      failures   every library's exceptions -> those of xscontainer.errors

Nothing in here knows XAPI.
"""

import warnings

# cryptography warns on import that CPython 3.6 is old; dom0 knows, and it would be said in every log.
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Python 3.6 is no longer supported")
    import paramiko  # noqa: F401
