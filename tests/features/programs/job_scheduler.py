#!/usr/bin/env python
"""The program is its own scheduler: a job for each cpu of a node, and the next when one ends."""

import queue
import sys
import threading

import dispy


def compute(n):
    time.sleep(0.01)
    return (n, dispy_node_ip_addr)


def cluster_status(status, node, job):
    if status == dispy.DispyNode.Initialized:
        for _ in range(node.avail_cpus):
            submit_queue.put(node)
    elif status == dispy.DispyNode.Closed:
        print('node %s is closed' % node.ip_addr)
    elif status in (dispy.DispyJob.Finished, dispy.DispyJob.Terminated):
        submit_queue.put(node)


def submit_jobs():
    for n in range(20):
        node = submit_queue.get()
        job = cluster.submit_job_id_node(n, node, n)
        jobs.append((job, node.ip_addr))


if __name__ == '__main__':
    submit_queue = queue.Queue()
    jobs = []
    cluster = dispy.JobCluster(
        compute,
        nodes=sys.argv[1:],
        host='127.0.0.1',
        cluster_status=cluster_status,
        loglevel=dispy.logger.CRITICAL,
    )
    submitter = threading.Thread(target=submit_jobs)
    submitter.start()
    submitter.join()
    cluster.wait()
    assert [job.id for job, _ in jobs] == list(range(20))
    assert all(job() == (job.id, ip_addr) for job, ip_addr in jobs)
    assert all(job.ip_addr == ip_addr for job, ip_addr in jobs)
    print(len({ip_addr for _, ip_addr in jobs}), 'nodes')
    cluster.close()
