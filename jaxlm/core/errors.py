"""The one exception that is the user's to mend."""


class UserError(Exception):
    """Bad input. The message is one line that names the thing, its value and the mend.

    The command line prints it as ``error: ...`` and exits with code 2. Nothing expensive has run and nothing is lost
    when it is raised.
    """
