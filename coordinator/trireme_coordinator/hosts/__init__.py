"""Clusters on plain hosts, over SSH: `trireme up`, `down` and `units`.

Thin orchestration of our own over the system's `ssh` rather than `ray up`: Ray's on-premise provider needs its
autoscaler and rsync, starts one kind of node only, puts what it runs on command lines, and stops every Ray of a machine
by name.
"""
