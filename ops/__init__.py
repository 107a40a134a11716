"""Tools around the running system."""
