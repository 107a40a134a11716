"""The life of a job: its states, who moves it between them, and the words its log is written in.

    pending ──claim──▶ processing ──▶ succeeded | failed | timed_out | cancelled
       └──────────────────────────────▶ failed | timed_out | cancelled

| state      | moved there by                          | how long it lasts                     |
|------------|-----------------------------------------|---------------------------------------|
| pending    | the web, with the message, on ingest    | until a worker claims it, at most     |
|            |                                         | ``expires_at``                        |
| processing | a worker (``jobs.claim``)               | at most ``expires_at``                |
| succeeded  | the worker that holds the claim         | row: ``T_job_history``; the picture:  |
|            |                                         | ``T_result_retention``                |
| failed     | the worker that holds the claim         | row: ``T_job_history``                |
| timed_out  | web (its own waiters), any worker, the  | row: ``T_job_history``                |
|            | scheduler                               |                                       |
| cancelled  | an administrator, the job's cancel URL, | row: ``T_job_history``                |
|            | or a guest who left                     |                                       |

The last four are final: whoever wins the row's guarded UPDATE decides, once.
"""

from __future__ import annotations

from enum import StrEnum


class JobStatus(StrEnum):
    PENDING = "pending"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


FINAL = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.TIMED_OUT, JobStatus.CANCELLED})

MOVES: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.PROCESSING, JobStatus.FAILED, JobStatus.TIMED_OUT, JobStatus.CANCELLED}),
    JobStatus.PROCESSING: FINAL,
    **{final: frozenset() for final in FINAL},
}


class JobEvent(StrEnum):
    """What the processing log of a job may say."""

    RECEIVED = "received"
    CLAIMED = "claimed"
    DISPATCHED = "dispatched"
    PROVIDER_RESPONDED = "provider_responded"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"


#: Claims of one job, the first included: after one crash it is tried once more, then ``worker_lost``.
MAX_CLAIMS = 2
