"""A pool, guests and engines on one machine, for the demo and the tests; the product never imports it.

Its rooms, from the ground up; imports go down only (tests/test_layers.py):

===================  ==================================================================================================
``engines``          Docker and Podman: real ones, and an embedded one made of threads
``guests``           SSH servers in front of engines: OpenSSH, and an embedded one
``xapi/wire``        requests, answers and values as bytes; the HTTP server of a host
``xapi/database``    the data model, records, queries and access rights
``xapi/state``       the data that API methods work on: PoolData, Call, sessions, messages, events, faults
``xapi/objects``     the API's methods, by class of object. A new one goes into its module's HANDLERS
``xapi/service``     the way of a call from a host's sockets to its method; other HTTP paths (routes.py)
``xapi/pool``        Pool, with the methods by which tests and the demo change it
``world``            a pool, guests, and the real daemon and plugin on every host
``demo``             ``make demo``
===================  ==================================================================================================
"""
