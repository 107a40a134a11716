"""PhotoChanger's core: jobs, queue, providers and storage. It knows nothing of HTTP or of who calls it."""

__version__ = "0.1.0"
