"""The one exception that is the user's to mend, and the one of the machine's that is too."""

import errno
import re

_FULL = re.compile(r"No space left on device|Disk quota exceeded|\d+ requested and \d+ written")
"""How those who keep no errno say it: TensorStore in a ValueError, NumPy's ``tofile`` with the items written."""


class UserError(Exception):
    """Bad input. The message is one line that names the thing, its value and the mend.

    The command line prints it as ``error: ...`` and exits with code 2. Nothing expensive has run and nothing is lost
    when it is raised.
    """


def is_full_disk(error: BaseException | None) -> bool:
    """Whether this, or what it came from, is a full disk or quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if _FULL.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def full_disk_line(error: BaseException) -> str:
    """What is said of a full disk where nothing nearer to it has said more."""
    name = getattr(error, "filename", None)
    return f"no space left on the device{f' for {name}' if name else ''}: free space and start the same command again"
