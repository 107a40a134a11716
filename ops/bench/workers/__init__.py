"""One module a contender: its broker with the bench's actors (``dramatiq ops.bench.workers.NAME``) and its sender.

Every broker has the same middleware: no Prometheus (it would bind a port), no retries.
"""
