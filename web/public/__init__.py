"""What guests reach: results, and the state of a job for whoever sent it."""
