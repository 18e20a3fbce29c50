"""Peers: the usual libraries on the same work, with the same weights, beside this harness' own backends.

A peer is a NICE flow as a user of some library would write it. `bench.inputs.peer_registry` says which there are; none
is imported before it is asked for, and none has to be installed.
"""
