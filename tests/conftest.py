"""What every test process starts with."""

import signal

# A shell that starts the tests in the background lets them ignore Ctrl-C, and whatever they start inherits that: the
# tests of an interrupted run would wait for an end that never comes.
signal.signal(signal.SIGINT, signal.default_int_handler)
