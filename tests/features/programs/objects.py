#!/usr/bin/env python
"""Objects of the program's own class go to the nodes and come back; the rest is cancelled."""

import sys

import dispy


class Sample:
    def __init__(self, number):
        self.number = number
        self.squared = None

    def __str__(self):
        return 'sample %s' % self.number


def compute(sample):
    if sample.number < 0:
        time.sleep(60)
    sample.squared = sample.number**2
    print('module', type(sample).__module__)
    sys.stderr.write('done\n')
    return sample


if __name__ == '__main__':
    cluster = dispy.JobCluster(compute, nodes=sys.argv[1:], host='127.0.0.1', loglevel=40)
    jobs = []
    for n in range(5):
        job = cluster.submit(Sample(n))
        job.id = Sample(n)
        jobs.append(job)
    for job in jobs:
        result = job()
        if job.status != dispy.DispyJob.Finished:
            print('job %s: %s' % (job.id, job.exception))
            continue
        assert isinstance(result, Sample)
        print('%s: %s, %s %s' % (job.id, result.squared, job.stdout.strip(), job.stderr.strip()))
    slow = cluster.submit(Sample(-1))
    print(cluster.wait(timeout=0.1), cluster.cancel(slow), slow(), slow.status == slow.Cancelled)
    print(cluster.cancel(slow))
    print(cluster.close(timeout=5, terminate=True))
