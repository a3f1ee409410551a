"""A computation that is a program: its file travels with it and is run once per job (D08)."""

import os
import subprocess
from pathlib import Path


class Program:
    """An executable file; called in a job with its arguments, it answers with the exit status."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        self._content = content

    def install(self) -> int:
        """Write the file into the computation's directory; called once on each node."""
        path = Path(self.name)
        path.unlink(missing_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
        with os.fdopen(file, 'wb') as stream:
            stream.write(self._content)
        return 0

    def __call__(self, *arguments: str) -> int:
        """Run the program to its end; negative: the signal that killed it."""
        command: list[str | Path] = [Path.cwd() / self.name, *arguments]
        try:
            return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
        except OSError as error:
            raise RuntimeError(
                f'{self.name} cannot be run on this node: {error.strerror}; a script begins with '
                'a line such as #!/bin/sh, and what that names has to be there'
            ) from None
