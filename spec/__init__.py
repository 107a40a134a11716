"""The contract, and what keeps it true."""
