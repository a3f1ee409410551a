"""`python -m nodeserver.worker FD`: started by the node's process, not by people."""

from nodeserver.worker.main import main

main()
