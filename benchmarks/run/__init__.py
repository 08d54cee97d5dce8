"""The measurement: targets, cases, and the processes in which cases run."""
