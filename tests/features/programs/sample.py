#!/usr/bin/env python
"""Jobs that sleep, one of which fails; `job_status` is called at the end of each."""

import sys

import dispy


def compute(n, fail=False):
    # no imports: `time`, `os` and the logger are there
    time.sleep(n / 100)
    dispynode_logger.info('job of process %s has slept', os.getpid())
    if fail:
        raise ValueError('asked to fail')
    return (dispy_node_name, n)


def job_status(job):
    global ended
    ended += 1
    if job.status == dispy.DispyJob.Terminated:
        print('job %s failed: %s' % (job.id, job.exception.splitlines()[-1]))
    elif job.status == dispy.DispyJob.Finished:
        host, n = job.result
        print(
            'job %s at %s: %s; it has logged %s' % (job.id, host, n, len(job.stderr.splitlines()))
        )


if __name__ == '__main__':
    ended = 0
    cluster = dispy.JobCluster(
        compute,
        nodes=sys.argv[1:],
        host='127.0.0.1',
        job_status=job_status,
        loglevel=dispy.logger.ERROR,
    )
    jobs = [cluster.submit(n) for n in range(4)]
    jobs.append(cluster.submit_job_id('bad', 1, fail=True))
    cluster.wait()
    status = cluster.status()
    print(len(status.nodes), 'nodes,', status.jobs_pending, 'pending,', ended, 'ended')
    print(sorted(job.id for job in jobs if job.finish.is_set() and job.id != 'bad'))
    cluster.print_status(wall_time=10)
    cluster.close()
