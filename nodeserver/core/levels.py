"""How important a report is: the numbers of the logging module, which a core may not import."""

DEBUG = 10
INFO = 20
WARNING = 30
ERROR = 40
