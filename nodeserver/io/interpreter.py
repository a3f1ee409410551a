"""How a node starts interpreters of its own: with what they import, and without what is secret."""

import os
import sys
from pathlib import Path

import nodeserver
from nodeserver.io.keys import SECRET_VARIABLE
from nodeserver.io.privileges import JobUser, environment_of
from nodeserver.wire import lane


def environment(job_user: JobUser | None = None, home: str = '/') -> dict[str, str]:
    """Have an interpreter import what this process would, but for the directory it stands in."""
    here = {'', str(Path.cwd())} - {str(Path(nodeserver.__file__).parent.parent)}
    before = os.environ.get('PYTHONPATH')
    path = os.pathsep.join(entry for entry in sys.path if entry not in here)
    environ = {**os.environ, 'PYTHONPATH': path, **({lane.PYTHONPATH: before} if before else {})}
    # else each fork looks up anew where the functions of C libraries are, and copies ten pages
    environ.setdefault(*lane.BIND_NOW)
    environ.pop(SECRET_VARIABLE, None)  # jobs are not told the secret (D7)
    return environ if job_user is None else environment_of(job_user, environ, home)
