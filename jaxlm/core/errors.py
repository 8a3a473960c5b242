"""The one exception that is the user's to mend, and the one of the machine's that is too."""

import errno

STOPPED_CODE = 3
"""The exit code of a run that its own incidents stopped: to start it again unchanged is of little use."""
ALONE_CODE = 4
"""The exit code of a process that has not met the others: to start it again is what there is to do."""


class UserError(Exception):
    """Bad input. The message is one line that names the thing, its value and the mend.

    The command line prints it as ``error: ...`` and exits with code 2. Nothing expensive has run and nothing is lost
    when it is raised.
    """

    exit_code = 2


class AloneError(UserError):
    """The other processes of this run have not come, or went before it began: they may be late."""

    exit_code = ALONE_CODE


def is_full_disk(error: BaseException | None) -> bool:
    """Whether this, or what it came from, is a full disk or quota."""
    return full_disk_error(error) is not None


def full_disk_error(error: BaseException | None) -> BaseException | None:
    """The error that says so: this one, its causes, and what an OSError was raised on top of.

    A bug inside a handler of a full disk stays a bug. TensorStore says it as a ValueError; that NCCL's or XLA's text
    speaks of some device without space is another matter.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return error
        said = ("No space left on device", "Disk quota exceeded")
        if isinstance(error, ValueError) and any(text in str(error) for text in said):
            return error
        beneath = None if error.__suppress_context__ or not isinstance(error, OSError) else error.__context__
        error = error.__cause__ or beneath
    return None


def full_disk_line(error: BaseException) -> str:
    """What is said of a full disk where nothing nearer to it has said more."""
    found = full_disk_error(error)
    text = " ".join(str(found).split())[:300]
    return f"no space left ({text}): free space and start the same command again"
