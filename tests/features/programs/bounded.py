#!/usr/bin/env python
"""Very many jobs of which only some are submitted at a time; they tell how far they are."""

import sys
import threading

import dispy

lower_bound, upper_bound = 3, 6


def compute(n):
    total = 0
    for i in range(n):
        total += i
        if i == n // 2:
            dispy_provisional_result((n, total))
    return total


def job_status(job):
    if job.status == dispy.DispyJob.ProvisionalResult:
        halfway.append(job.result[0])
    elif job.status in (
        dispy.DispyJob.Finished,
        dispy.DispyJob.Terminated,
        dispy.DispyJob.Cancelled,
        dispy.DispyJob.Abandoned,
    ):
        with jobs_cond:
            if job.id in pending:
                del pending[job.id]
            results[job.id] = job.result
            if len(pending) <= lower_bound:
                jobs_cond.notify()


if __name__ == '__main__':
    halfway, results, pending, most = [], {}, {}, 0
    jobs_cond = threading.Condition()
    cluster = dispy.JobCluster(
        compute,
        nodes=[(sys.argv[1], None), dispy.NodeAllocate(sys.argv[2])],
        host='127.0.0.1',
        job_status=job_status,
        reentrant=True,
        pulse_interval=2,
        loglevel=dispy.logger.ERROR,
    )
    for n in range(1, 41):
        with jobs_cond:
            job = cluster.submit_job_id(n, n)
            if job is None:
                print('creating job %s failed!' % n)
                continue
            pending[job.id] = job
            most = max(most, len(pending))
            if len(pending) >= upper_bound:
                while len(pending) > lower_bound:
                    jobs_cond.wait()
    cluster.wait()
    print(most, 'at a time')
    print(len(halfway), 'halfway')
    print(results == {n: n * (n - 1) // 2 for n in range(1, 41)})
    cluster.shutdown()
