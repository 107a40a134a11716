"""``make bench``: what is measured of the queue and of the whole ingest, beside whom, and against which goals.

This package and ``workers`` are also imported inside the contenders' own environments: both, ``stamps``, ``work`` and
``send`` need the standard library only.
"""
