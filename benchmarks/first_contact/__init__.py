"""Steps of gpu_first_contact.py, one file a subject.

outcome      what a step returns: named checks and tables; a step that checked nothing has failed
record       results.json and results.md, written after every step; resuming; the exit code
isolate      a step in a process of its own, so that a crash or a hang is a result too
context      what every step is told
calls        every operator, forward and backward, as something to be called again and again
tools        where a tool of the CUDA toolkit is

environment, operator_tests, sanitizer, stability, agreement, large, timings, models: the steps
"""
