"""`python -m nodeserver.worker FD`: started by the node's process, not by people."""

from nodeserver.worker.quietforks import gather

gather()

from nodeserver.worker.main import main  # noqa: E402 - these modules are imported by `gather`

main()
