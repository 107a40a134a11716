"""Our broker on dramatiq-pg's table. Its module ``messages`` is all that a sender needs; ``postgres`` is the broker
that workers run, and ``consumer`` its claims, leases and upkeep. Why it is ours: ``spec/adr/0001``.
"""
