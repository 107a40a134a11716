"""Loaded by the fork server that image processes come from, and by nobody else: it ends with its worker.

Left to itself it would wait for its children to end, and they for it.
"""

from photochanger.process import die_with_parent

die_with_parent()
