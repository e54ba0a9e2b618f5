"""What runs on a host: one request in, progress and one result out. Sent over ssh's standard input, so it needs
Python's own library alone, and what it is told, secrets included, is on no command line.

It owns a folder of the deployment, starts processes in sessions of their own and ends exactly what it started. It never
decides: what is to be stopped, written and started is worked out by the caller (changes.py). program.py packs it.
"""
